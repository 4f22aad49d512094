// SPDX-License-Identifier: GPL-2.0-only
/* Locking memory, and its protection. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include "common.h"

static void put_span(struct outcome *o, const struct span *span)
{
	put_string(o, "seg", span->seg->name);
	put(o, "start", "\"%p\"", (void *)span->at);
	put(o, "length", "%llu", (unsigned long long)span->length);
}

static void lock_or_unlock(struct command *c, struct outcome *o, int (*call)(const void *, size_t), const char *name)
{
	struct span span;
	struct range r;
	int result;

	if (!take_span(c, o, &span, &r) || !nothing_left(c, o) || !place_span(o, &r, &span))
		return;
	timed_begin(o);
	result = call(span.at, span.length);
	timed_end(o);
	if (result)
		failed(o, errno, "%s", name);
	else
		put_span(o, &span);
}

void do_lock(struct command *c, struct outcome *o)
{
	lock_or_unlock(c, o, mlock, "mlock");
}

void do_unlock(struct command *c, struct outcome *o)
{
	lock_or_unlock(c, o, munlock, "munlock");
}

static void shm_lock_or_unlock(struct command *c, struct outcome *o, int request, const char *name)
{
	struct segment *s = take_segment(c, o);
	int result;

	if (!s || !nothing_left(c, o))
		return;
	if (s->kind != SHMEM) {
		failed(o, EINVAL, "'%s' is no System V segment (use lock and unlock)", s->name);
		return;
	}
	timed_begin(o);
	result = shmctl(s->shmid, request, NULL);
	timed_end(o);
	if (result)
		failed(o, errno, "%s", name);
	else
		put_string(o, "seg", s->name);
}

void do_slock(struct command *c, struct outcome *o)
{
	shm_lock_or_unlock(c, o, SHM_LOCK, "SHM_LOCK");
}

void do_sunlock(struct command *c, struct outcome *o)
{
	shm_lock_or_unlock(c, o, SHM_UNLOCK, "SHM_UNLOCK");
}

/* none, or some of read, write and exec with + between them; what can be written or run can be read. */
static bool parse_protection(char *word, struct outcome *o, int *prot)
{
	static const char *const words[] = { "none", "read", "write", "exec" };
	static const int bits[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC };
	char *part;
	int parts = 0;

	*prot = PROT_NONE;
	while ((part = strsep(&word, "+"))) {
		int found = find_word(words, 4, 4, part);

		if (found < 0)
			return wrong(o, "'%s' is none of none, read, write, exec", part);
		if (parts++ && (found == 0 || *prot == PROT_NONE))
			return wrong(o, "none stands alone");
		*prot |= bits[found];
	}
	return true;
}

void do_mprotect(struct command *c, struct outcome *o)
{
	struct span span;
	struct range r;
	char *word;
	int prot, result;

	if (!take_span(c, o, &span, &r))
		return;
	word = take(c);
	if (!word) {
		wrong(o, "needs a protection: none, read, write or exec");
		return;
	}
	if (!parse_protection(word, o, &prot) || !nothing_left(c, o) || !place_span(o, &r, &span))
		return;
	timed_begin(o);
	result = mprotect(span.at, span.length, prot);
	timed_end(o);
	if (result) {
		failed(o, errno, "mprotect");
		return;
	}
	put_span(o, &span);
	put(o, "protection", "\"%s%s%s\"", prot & PROT_READ ? "r" : "-", prot & PROT_WRITE ? "w" : "-",
	    prot & PROT_EXEC ? "x" : "-");
}
