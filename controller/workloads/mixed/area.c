// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory whose contents are known, and checking them.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "common.h"

#define HUGE_BYTES (2UL << 20)
/* Pages of merged areas come in so many different contents, the same in all processes: KSM finds them equal. */
#define ALIKE 4
/* Of the words that stay as they are, so many are looked at; once in WHOLE times all of them. */
#define SAMPLE 6
#define WHOLE 16

const char *const kind_names[KINDS] = {
	[PLAIN] = "plain",
	[HUGE] = "huge",
	[MERGED] = "merged",
	[TOGETHER] = "together",
};

static const size_t sizes[KINDS] = {
	[PLAIN] = 256,
	[HUGE] = HUGE_BYTES / PAGE,
	[MERGED] = 128,
	[TOGETHER] = 256,
};

static uint64_t fixed(const struct area *a, size_t page, size_t word)
{
	if (a->kind == MERGED)
		return mix((page % ALIKE) << 16 | word);
	return mix(a->id << 32 ^ page << 16 ^ word);
}

static uint64_t slot(const struct area *a, int thread, size_t page, uint32_t number)
{
	if (!number)
		return 0;
	return (uint64_t)number << 32 ^ (mix(a->id << 32 ^ page << 16 ^ (uint64_t)thread) >> 32);
}

static void fill(struct area *a)
{
	uint64_t *to = (uint64_t *)a->at;

	for (size_t page = 0; page < a->pages; page++, to += WORDS)
		for (size_t word = THREADS; word < WORDS; word++)
			to[word] = fixed(a, page, word);
}

bool area_map(struct area *a, enum kind kind, uint64_t id)
{
	size_t length = sizes[kind] * PAGE, books = sizes[kind] * sizeof(uint32_t) * THREADS;
	size_t room = kind == HUGE ? length + HUGE_BYTES : length;
	int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
	uint8_t *at = mmap(NULL, room, prot, flags, -1, 0);
	uint32_t *book = mmap(NULL, books, prot, flags, -1, 0);

	if (at == MAP_FAILED || book == MAP_FAILED)
		return false;
	if (kind == HUGE)
		at = (uint8_t *)(((uintptr_t)at + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1));
	*a = (struct area){ .kind = kind, .at = at, .pages = sizes[kind], .id = id };
	for (int thread = 0; thread < THREADS; thread++)
		a->written[thread] = book + (size_t)thread * a->pages;
	/* Without them in the kernel there are only fewer kinds of pages. */
	if (kind == HUGE)
		(void)madvise(at, length, MADV_HUGEPAGE);
	if (kind == MERGED)
		(void)madvise(at, length, MADV_MERGEABLE);
	fill(a);
	return true;
}

void area_renew(struct area *a)
{
	if (madvise(a->at, a->pages * PAGE, MADV_DONTNEED)) {
		refused();
		return;
	}
	for (int thread = 0; thread < THREADS; thread++)
		for (size_t page = 0; page < a->pages; page++)
			a->written[thread][page] = 0;
	fill(a);
}

static void compare(const struct area *a, size_t page, size_t word, uint64_t expected, uint64_t found)
{
	if (found == expected)
		return;
	atomic_fetch_add(&shared->mismatches, 1);
	if (atomic_exchange(&shared->first_taken, true))
		return;
	shared->first.kind = a->kind;
	shared->first.page = page;
	shared->first.word = word;
	shared->first.expected = expected;
	shared->first.found = found;
}

void area_check(struct area *a, int thread, struct random *r, size_t page)
{
	const volatile uint64_t *words = (const volatile uint64_t *)(a->at + page * PAGE);
	size_t free_words = WORDS - THREADS;
	size_t count = below(r, WHOLE) ? SAMPLE : free_words;
	size_t word = below(r, free_words);

	compare(a, page, (size_t)thread, slot(a, thread, page, a->written[thread][page]), words[thread]);
	for (size_t i = 0; i < count; i++, word = (word + 61) % free_words)
		compare(a, page, word + THREADS, fixed(a, page, word + THREADS), words[word + THREADS]);
	atomic_fetch_add_explicit(&shared->checked, 1, memory_order_relaxed);
}

void area_write(struct area *a, int thread, size_t page)
{
	volatile uint64_t *words = (volatile uint64_t *)(a->at + page * PAGE);
	uint32_t number = a->written[thread][page] + 1;

	words[thread] = slot(a, thread, page, number);
	a->written[thread][page] = number;
	atomic_fetch_add_explicit(&shared->written, 1, memory_order_relaxed);
}
