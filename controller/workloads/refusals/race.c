// SPDX-License-Identifier: GPL-2.0-only
/*
 * Four threads write to the same pages all the time, each to words of its own, while another has the pages unmapped and
 * moved to and fro. A write that gets lost, to a page that was already copied, is missing from the sum.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <time.h>

#include "common.h"

#define THREADS 4
#define PER_THREAD 20000000UL		/* writes, at least, and on until there were */
#define MIGRATIONS 1100			/* enough of these */
#define SHARED_PAGES 32
#define ROUNDS 8			/* between two looks at how many there were */
#define SECONDS 300			/* after which it has to do without */
#define WORDS (PAGE / sizeof(uint64_t))

static struct area area;
static uint64_t rounds_of[THREADS];	/* over all pages */
static int going;
static bool enough;

static volatile uint64_t *word_of(long thread, int page)
{
	return (volatile uint64_t *)(area.at + page * PAGE) + thread * (WORDS / THREADS);
}

static void *count_up(void *number)
{
	long thread = (long)number;
	volatile uint64_t *words[SHARED_PAGES];
	uint64_t rounds = 0;

	run_on(thread);
	for (int page = 0; page < SHARED_PAGES; page++)
		words[page] = word_of(thread, page);
	while (rounds * SHARED_PAGES < PER_THREAD || !__atomic_load_n(&enough, __ATOMIC_RELAXED)) {
		for (int page = 0; page < SHARED_PAGES; page++)
			(*words[page])++;
		rounds++;
	}
	rounds_of[thread] = rounds;
	__atomic_sub_fetch(&going, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void put_sums(void)
{
	long writes = 0, missing = 0, wrong = 0;

	for (long thread = 0; thread < THREADS; thread++) {
		writes += rounds_of[thread] * SHARED_PAGES;
		for (int page = 0; page < SHARED_PAGES; page++) {
			missing += rounds_of[thread] - *word_of(thread, page);
			wrong += rounds_of[thread] != *word_of(thread, page);
		}
	}
	put_number("writes", writes);
	put_number("missing", missing);
	put_number("wrong_words", wrong);
}

void case_race(void)
{
	long rounds = 0, refused = 0, moved_before;
	time_t end = time(NULL) + SECONDS;
	pthread_t threads[THREADS];

	swap_in_memory(0, false);
	area = area_empty(SHARED_PAGES, PAGE);
	for (int page = 0; page < SHARED_PAGES; page++)
		*word_of(0, page) = 0;
	look("before", &area);
	trace_pause();
	counters_begin();
	moved_before = counter("pgmigrate_on_fault");
	going = THREADS;
	for (long thread = 0; thread < THREADS; thread++)
		need("pthread_create", !pthread_create(&threads[thread], NULL, count_up, (void *)thread));
	while (__atomic_load_n(&going, __ATOMIC_ACQUIRE)) {
		if (set_policy(&area, POLICY_BIND, rounds % 2 ? FROM : TO, MF_MOVE | MF_LAZY))
			refused++;
		if (++rounds % ROUNDS == 0 &&
		    (counter("pgmigrate_on_fault") - moved_before >= MIGRATIONS || time(NULL) > end))
			__atomic_store_n(&enough, true, __ATOMIC_RELAXED);
	}
	for (long thread = 0; thread < THREADS; thread++)
		pthread_join(threads[thread], NULL);
	step_begin("race");
	put_number("rounds", rounds);
	put_number("refused", refused);
	put_counters();
	put_sums();
	step_end();
	area_fill(&area);
	trace_go_on();
	counters_begin();
	finish(&area, OTHER);
}
