// SPDX-License-Identifier: GPL-2.0-only
/*
 * Touching pages. Plain: one word a page. With a pattern: every word of every page, each a function of the pattern, the
 * page's index in the mapping and the word's place in the page, so that a page which came back lost, stale or in the
 * place of another shows, and shows which.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>

#include "common.h"

/* Words of a page fit below: up to 8 MB a page. */
#define INDEX_SHIFT 20

/*
 * An instruction that does nothing, and that the memory-controller plugin knows (provision/hardware/plugin/memctl.c): from
 * here on, or no longer, it counts accesses. The jump ends what is translated in one piece, and so what is counted.
 */
#define MARK(on) \
	__asm__ volatile(".byte 0x0f, 0x1f, 0x80\n\t.long 0x666f6d00 + %c0\n\tjmp 1f\n1:" : : "i"(on) : "memory")

static struct {
	sigjmp_buf back;
	volatile sig_atomic_t armed;
	volatile int signal;
	char *volatile address;
} fault;

static struct {
	uint64_t pages;			/* touched so far */
	uint64_t mismatches, bad_pages;
	uint64_t page, offset, expected, found;	/* of the first */
} seen;

static void on_fault(int signal, siginfo_t *info, void *context)
{
	struct sigaction plain = { .sa_handler = SIG_DFL };

	(void)context;
	if (fault.armed) {
		fault.armed = 0;
		fault.signal = signal;
		fault.address = info->si_addr;
		siglongjmp(fault.back, 1);
	}
	/* A defect of memtoy itself: die of it. */
	sigaction(signal, &plain, NULL);
}

void catch_faults(void)
{
	/* SA_NODEFER: the handler is left by a jump that does not restore the mask, which would be a system call. */
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER };

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}

/* The last step of splitmix64: patterns 1 and 2 share no bits to speak of. */
static uint64_t pattern_key(uint64_t pattern)
{
	uint64_t z = pattern + 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static void touch_plain(volatile char *at, uint64_t pages, size_t page, bool write)
{
	/* Volatile, so that the compiler cannot see that the bits stay as they are and leave the write out. */
	volatile uint64_t none = 0;

	for (seen.pages = 0; seen.pages < pages; seen.pages++, at += page) {
		/* One access that is a write at once, not a read fault and then a write fault; contents stay. */
		if (write)
			__atomic_fetch_or((volatile uint64_t *)at, none, __ATOMIC_RELAXED);
		else
			(void)*(volatile uint64_t *)at;
	}
}

static void touch_write(volatile char *at, uint64_t pages, size_t page, uint64_t key, uint64_t index)
{
	for (seen.pages = 0; seen.pages < pages; seen.pages++, index++, at += page) {
		volatile uint64_t *word = (volatile uint64_t *)at;

		for (size_t n = 0; n < page / sizeof(*word); n++)
			word[n] = key ^ (index << INDEX_SHIFT | n);
	}
}

static void touch_verify(volatile char *at, uint64_t pages, size_t page, uint64_t key, uint64_t index)
{
	for (seen.pages = 0; seen.pages < pages; seen.pages++, index++, at += page) {
		volatile uint64_t *word = (volatile uint64_t *)at;
		uint64_t before = seen.mismatches;

		for (size_t n = 0; n < page / sizeof(*word); n++) {
			uint64_t expected = key ^ (index << INDEX_SHIFT | n), found = word[n];

			if (found == expected)
				continue;
			if (!seen.mismatches++) {
				seen.page = index;
				seen.offset = n * sizeof(*word);
				seen.expected = expected;
				seen.found = found;
			}
		}
		seen.bad_pages += seen.mismatches != before;
	}
}

/* The page of the mapping that the first wrong word is of, or -1. */
static long long belongs_to(const struct segment *s, uint64_t key)
{
	uint64_t index = (seen.found ^ key) >> INDEX_SHIFT;

	return index < s->mapped / s->page ? (long long)index : -1;
}

static void tell(struct outcome *o, const struct span *span, bool write, bool patterned, uint64_t pattern)
{
	const struct segment *s = span->seg;
	long long other = belongs_to(s, pattern_key(pattern));
	uint64_t ns = o->end_ns - o->start_ns;

	put_string(o, "seg", s->name);
	put(o, "start", "\"%p\"", (void *)span->at);
	put(o, "pages", "%llu", (unsigned long long)seen.pages);
	put(o, "page_size", "%zu", s->page);
	put(o, "ns", "%llu", (unsigned long long)ns);
	put_bool(o, "write", write);
	if (patterned)
		put(o, "pattern", "%llu", (unsigned long long)pattern);
	else
		put(o, "pattern", "null");
	put(o, "mismatches", "%llu", (unsigned long long)seen.mismatches);
	put(o, "bad_pages", "%llu", (unsigned long long)seen.bad_pages);
	if (seen.mismatches) {
		put(o, "first", "{\"page\": %llu, \"offset\": %llu, \"expected\": \"0x%llx\", \"found\": \"0x%llx\", ",
		    (unsigned long long)seen.page, (unsigned long long)seen.offset, (unsigned long long)seen.expected,
		    (unsigned long long)seen.found);
		text_add(&o->result, other < 0 ? "\"belongs_to\": null}" : "\"belongs_to\": %lld}", other);
	} else {
		put(o, "first", "null");
	}
	say(o, "touched %llu pages in %.6f secs\n", (unsigned long long)seen.pages, (double)ns / 1e9);
	if (!seen.mismatches)
		return;
	failed(o, 0, "contents differ in %llu words of %llu pages; first in page %llu at byte %llu: 0x%llx, not 0x%llx",
	       (unsigned long long)seen.mismatches, (unsigned long long)seen.bad_pages, (unsigned long long)seen.page,
	       (unsigned long long)seen.offset, (unsigned long long)seen.found, (unsigned long long)seen.expected);
	if (other >= 0)
		text_add(&o->error, ", which is of page %lld", other);
}

static void touch(struct outcome *o, const struct span *span, bool write, bool patterned, uint64_t pattern)
{
	const struct segment *s = span->seg;
	uint64_t key = pattern_key(pattern), index = (uint64_t)(span->at - s->at) / s->page;

	memset(&seen, 0, sizeof(seen));
	if (sigsetjmp(fault.back, 0)) {
		timed_end(o);
		if (mark_accesses)
			MARK(0);
		tell(o, span, write, patterned, pattern);
		/* Not errno, but what a system call would have answered: no such access here. */
		failed(o, EFAULT, "%s at %p, page %llu of '%s'%s",
		       fault.signal == SIGBUS ? "SIGBUS" : "SIGSEGV", (void *)fault.address,
		       (unsigned long long)(index + seen.pages), s->name,
		       fault.signal == SIGBUS ? " (beyond the end of the file, or no huge page left)" : "");
		return;
	}
	fault.armed = 1;
	if (mark_accesses)
		MARK(1);
	timed_begin(o);
	if (!patterned)
		touch_plain(span->at, span->pages, s->page, write);
	else if (write)
		touch_write(span->at, span->pages, s->page, key, index);
	else
		touch_verify(span->at, span->pages, s->page, key, index);
	timed_end(o);
	if (mark_accesses)
		MARK(0);
	fault.armed = 0;
	tell(o, span, write, patterned, pattern);
}

void do_touch(struct command *c, struct outcome *o)
{
	static const char *const words[] = { "read", "write" };
	bool write = false, patterned = false;
	uint64_t pattern = 0;
	struct span span;
	struct range r;
	char *word, *value;

	if (!take_span(c, o, &span, &r))
		return;
	word = take(c);
	if (word) {
		int found;

		value = strchr(word, '=');
		if (value)
			*value++ = '\0';
		found = find_word(words, 2, 2, word);
		if (found < 0) {
			wrong(o, "'%s' is neither read nor write", word);
			return;
		}
		write = found == 1;
		patterned = value != NULL;
		if (value && !parse_number(value, false, &pattern)) {
			wrong(o, "'%s' is no pattern (a number, 0x for hex)", value);
			return;
		}
	}
	if (nothing_left(c, o) && place_span(o, &r, &span))
		touch(o, &span, write, patterned, pattern);
}
