// SPDX-License-Identifier: GPL-2.0-only
/* Segments: defined first, mapped later, forgotten at the end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

struct segment *segments;
const char *const kind_words[] = { "anon", "file", "shmem" };

static struct segment *find_segment(const char *name)
{
	struct segment *s = segments;

	while (s && strcmp(s->name, name))
		s = s->next;
	return s;
}

struct segment *take_segment(struct command *c, struct outcome *o)
{
	const char *name = take(c);
	struct segment *s;

	if (!name) {
		wrong(o, "the name of a segment is missing");
		return NULL;
	}
	s = find_segment(name);
	if (!s)
		failed(o, ENOENT, "no segment '%s'", name);
	return s;
}

bool place_span(struct outcome *o, const struct range *r, struct span *span)
{
	struct segment *s = span->seg;
	uint64_t offset = r->given ? r->offset : 0;
	uint64_t length = !r->given || r->to_end ? s->mapped - offset : r->length;

	if (!s->at)
		return failed(o, EFAULT, "segment '%s' is not mapped", s->name);
	if (offset >= s->mapped || length > s->mapped - offset)
		return failed(o, ERANGE, "the range passes the end of '%s', %llu pages", s->name,
			      (unsigned long long)(s->mapped / s->page));
	/* Every page that the range has a byte of. */
	span->at = s->at + offset / s->page * s->page;
	span->length = offset % s->page + length;
	span->pages = (span->length + s->page - 1) / s->page;
	return true;
}

bool take_span(struct command *c, struct outcome *o, struct span *span, struct range *r)
{
	span->seg = take_segment(c, o);
	return span->seg && take_range(c, o, r);
}

static size_t huge_page_size(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long kb = 0;
	char line[128];

	while (f && !kb && fgets(line, sizeof(line), f))
		if (sscanf(line, "Hugepagesize: %lu", &kb) != 1)
			kb = 0;
	if (f)
		fclose(f);
	return kb ? kb << 10 : 2 << 20;
}

static struct segment *new_segment(struct outcome *o, const char *name, enum kind kind)
{
	struct segment *s;

	if (find_segment(name)) {
		failed(o, EEXIST, "segment '%s'", name);
		return NULL;
	}
	if (strlen(name) >= sizeof(s->name)) {
		failed(o, ENAMETOOLONG, "segment '%s'", name);
		return NULL;
	}
	s = calloc(1, sizeof(*s));
	if (!s) {
		failed(o, ENOMEM, "segment '%s'", name);
		return NULL;
	}
	strcpy(s->name, name);
	s->kind = kind;
	s->page = page_size;
	s->fd = s->shmid = -1;
	return s;
}

/* The segment is whole: keep it, and tell of it. */
static void keep_segment(struct outcome *o, struct segment *s)
{
	struct segment **end = &segments;

	while (*end)
		end = &(*end)->next;
	*end = s;
	put_string(o, "seg", s->name);
	put_string(o, "kind", kind_words[s->kind]);
	put(o, "length", "%llu", (unsigned long long)s->length);
	say(o, "%s: %s segment, %llu pages\n", s->name, kind_words[s->kind], (unsigned long long)(s->length / s->page));
}

static uint64_t round_up(uint64_t n, size_t unit)
{
	return (n + unit - 1) / unit * unit;
}

/* SEG SIZE, as anon and shmem have it. */
static bool take_name_size(struct command *c, struct outcome *o, const char **name, uint64_t *size)
{
	const char *word;

	*name = take(c);
	word = take(c);
	if (!*name || !word)
		return wrong(o, "needs the name of a segment and a size");
	if (!parse_size(word, "size", o, size))
		return false;
	if (!*size || *size > (uint64_t)1 << 46)
		return wrong(o, "a size must be more than 0 and no more than 64 TB");
	return true;
}

void do_anon(struct command *c, struct outcome *o)
{
	bool shared = false;
	struct segment *s;
	const char *name;
	uint64_t size;

	if (!take_name_size(c, o, &name, &size) || !take_share(c, o, &shared) || !nothing_left(c, o))
		return;
	s = new_segment(o, name, ANON);
	if (!s)
		return;
	s->length = round_up(size, s->page);
	s->shared = shared;
	s->writable = true;
	keep_segment(o, s);
}

void do_file(struct command *c, struct outcome *o)
{
	const char *path = take(c), *base;
	struct segment *s;
	struct range r;
	struct stat st;
	bool shared = false;
	int err;

	if (!path) {
		wrong(o, "the path of a file is missing");
		return;
	}
	if (!take_range(c, o, &r) || !take_share(c, o, &shared) || !nothing_left(c, o))
		return;
	if (r.offset % page_size) {
		wrong(o, "the offset must be whole pages");
		return;
	}
	base = strrchr(path, '/');
	s = new_segment(o, base ? base + 1 : path, MAPPED_FILE);
	if (!s)
		return;
	s->shared = shared;
	s->writable = true;
	s->fd = open(path, O_RDWR | O_CLOEXEC);
	if (s->fd < 0) {
		s->writable = false;
		s->fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	err = s->fd < 0 || fstat(s->fd, &st) < 0 ? errno : S_ISREG(st.st_mode) ? 0 : EINVAL;
	s->file_offset = r.offset;
	if (!err && !r.given)
		s->length = (uint64_t)st.st_size;
	else if (!err && r.to_end)
		s->length = r.offset < (uint64_t)st.st_size ? (uint64_t)st.st_size - r.offset : 0;
	else
		s->length = r.length;
	s->length = round_up(s->length, s->page);
	if (!err && s->length) {
		keep_segment(o, s);
		return;
	}
	failed(o, err ? err : EINVAL, err ? "%s" : "%s is empty from there on", path);
	if (s->fd >= 0)
		close(s->fd);
	free(s);
}

void do_shmem(struct command *c, struct outcome *o)
{
	struct segment *s;
	const char *name, *word;
	uint64_t size;
	bool huge = false;

	if (!take_name_size(c, o, &name, &size))
		return;
	word = take(c);
	if (word) {
		huge = !strncmp("huge", word, strlen(word));
		if (!huge) {
			wrong(o, "'%s' is not huge, the only word that may follow the size", word);
			return;
		}
	}
	if (!nothing_left(c, o))
		return;
	s = new_segment(o, name, SHMEM);
	if (!s)
		return;
	if (huge)
		s->page = huge_page_size();
	s->length = round_up(size, s->page);
	s->shared = s->writable = true;
	s->owner = getpid();
	s->shmid = shmget(IPC_PRIVATE, s->length, IPC_CREAT | 0600 | (huge ? SHM_HUGETLB : 0));
	if (s->shmid < 0) {
		failed(o, errno, huge ? "shmget (are there free huge pages?)" : "shmget");
		free(s);
		return;
	}
	keep_segment(o, s);
}

static int unmap_segment(struct segment *s)
{
	int result = 0;

	if (s->at)
		result = s->kind == SHMEM ? shmdt(s->at) : munmap(s->at, s->mapped);
	if (!result) {
		s->at = NULL;
		s->mapped = 0;
	}
	return result;
}

static void forget_segment(struct segment *s)
{
	struct segment **at = &segments;

	unmap_segment(s);
	if (s->fd >= 0)
		close(s->fd);
	/* A System V segment outlives its users unless somebody removes it: the process that made it does. */
	if (s->shmid >= 0 && s->owner == getpid())
		shmctl(s->shmid, IPC_RMID, NULL);
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	free(s);
}

void segments_end(void)
{
	while (segments)
		forget_segment(segments);
}

void do_remove(struct command *c, struct outcome *o)
{
	struct segment *s;
	int removed = 0;

	do {
		s = take_segment(c, o);
		if (!s)
			return;
		forget_segment(s);
		removed++;
	} while (peek(c));
	put(o, "removed", "%d", removed);
}

void do_map(struct command *c, struct outcome *o)
{
	struct segment *s = take_segment(c, o);
	uint64_t offset, length;
	struct range r;
	bool shared;
	char *at;

	if (!s)
		return;
	shared = s->shared;
	if (!take_range(c, o, &r) || !take_share(c, o, &shared) || !nothing_left(c, o))
		return;
	offset = r.given ? r.offset : 0;
	length = !r.given || r.to_end ? s->length - offset : round_up(r.length, s->page);
	if (offset % s->page) {
		wrong(o, "the offset must be whole pages");
		return;
	}
	if (s->at) {
		failed(o, EBUSY, "segment '%s' is mapped already", s->name);
		return;
	}
	if (offset >= s->length || length > s->length - offset) {
		failed(o, ERANGE, "the range passes the end of '%s', %llu pages", s->name,
		       (unsigned long long)(s->length / s->page));
		return;
	}
	if (s->kind == SHMEM && (length != s->length || !shared)) {
		failed(o, EINVAL, "a System V segment is mapped whole, and shared");
		return;
	}
	timed_begin(o);
	if (s->kind == SHMEM) {
		at = shmat(s->shmid, NULL, 0);
	} else {
		int prot = PROT_READ | (s->writable || !shared ? PROT_WRITE : 0);
		int flags = (shared ? MAP_SHARED : MAP_PRIVATE) | (s->kind == ANON ? MAP_ANONYMOUS : 0);
		/* Anonymous memory has no offset: what is mapped is as long as asked for. */
		off_t from = s->kind == ANON ? 0 : (off_t)(s->file_offset + offset);

		at = mmap(NULL, length, prot, flags, s->fd, from);
	}
	timed_end(o);
	if (at == MAP_FAILED) {		/* shmat fails with the same value */
		failed(o, errno, s->kind == SHMEM ? "shmat" : "mmap");
		return;
	}
	s->at = at;
	s->mapped = length;
	s->mapped_shared = shared;
	put_string(o, "seg", s->name);
	put(o, "address", "\"%p\"", (void *)at);
	put(o, "length", "%llu", (unsigned long long)length);
	put_bool(o, "shared", shared);
	say(o, "%s mapped at %p, %llu pages\n", s->name, (void *)at, (unsigned long long)(length / s->page));
}

void do_unmap(struct command *c, struct outcome *o)
{
	struct segment *s = take_segment(c, o);
	int result;

	if (!s || !nothing_left(c, o))
		return;
	if (!s->at) {
		failed(o, EFAULT, "segment '%s' is not mapped", s->name);
		return;
	}
	timed_begin(o);
	result = unmap_segment(s);
	timed_end(o);
	if (result)
		failed(o, errno, s->kind == SHMEM ? "shmdt" : "munmap");
	else
		put_string(o, "seg", s->name);
}
