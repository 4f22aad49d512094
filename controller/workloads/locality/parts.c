// SPDX-License-Identifier: GPL-2.0-only
/*
 * parts: one thread initialises memory, and others, on CPUs of their own, work on a part of it each: round after round, so
 * that it pays to have the pages where they are worked on.
 *
 * Rounds, and what comes before them, end in barriers, at which threads sleep.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

const char *const placement_names[PLACEMENTS] = {
	[FIRST_TOUCH] = "first-touch",
	[DIRECT] = "direct",
	[LAZY] = "lazy",
	[IDEAL] = "ideal",
};

struct barrier {
	_Atomic uint32_t arrived, passed;
	uint32_t parties;
};

struct part {
	int cpu;
	size_t page, pages;	/* of the area: its first, how many */
	uint64_t sum;		/* of what its worker has read */
	pthread_t thread;
};

static const struct options *options;
static volatile uint64_t *memory;
static struct part all[MAX_WORKERS];
static struct barrier ready, go, laps;
static uint64_t words, a_round;	/* accesses of initialising, and of a round, all parts together */

/*
 * The last thread to arrive tells of the phase's end before it lets the others go, so that nobody is at work at that moment,
 * and who arrived last, and not who woke first, decides when it was.
 */
static void await(struct barrier *b, const char *phase, uint64_t accesses, bool last)
{
	uint32_t passed = atomic_load(&b->passed);

	if (atomic_fetch_add(&b->arrived, 1) + 1 == b->parties) {
		if (phase)
			lap(phase, accesses);
		if (last)
			end();
		atomic_store(&b->arrived, 0);
		atomic_fetch_add(&b->passed, 1);
		syscall(SYS_futex, &b->passed, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
		return;
	}
	while (atomic_load(&b->passed) == passed)
		syscall(SYS_futex, &b->passed, FUTEX_WAIT_PRIVATE, passed, NULL, NULL, 0);
}

static uint64_t first(size_t word)
{
	return (word + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void initialise(size_t page, size_t pages)
{
	volatile uint64_t *at = memory;

	for (size_t word = page * WORDS; word < (page + pages) * WORDS; word++)
		at[word] = first(word);
}

/* So many pages in a hundred, evenly. */
static bool is_touched(size_t page, unsigned int percent)
{
	return (page + 1) * percent / 100 != page * percent / 100;
}

static uint64_t read_page(const volatile uint64_t *at)
{
	uint64_t sum = 0;

	for (size_t word = 0; word < WORDS; word += LINE_WORDS)
		sum += at[word];
	return sum;
}

static void write_page(volatile uint64_t *at)
{
	for (size_t word = 0; word < WORDS; word += LINE_WORDS)
		at[word]++;
}

/* Its words are all that it accesses: what it has to know of them is in registers. */
static uint64_t work_round(const struct part *mine)
{
	const size_t first_page = mine->page, end = first_page + mine->pages;
	const unsigned int percent = options->percent;
	const bool writes = options->writes;
	volatile uint64_t *at = memory + first_page * WORDS;
	uint64_t sum = 0;

	for (size_t page = first_page; page < end; page++, at += WORDS) {
		if (!is_touched(page, percent))
			continue;
		if (writes)
			write_page(at);
		else
			sum += read_page(at);
	}
	return sum;
}

static void place(const struct part *mine)
{
	bool lazily = options->placement == LAZY;

	move_to((void *)(memory + mine->page * WORDS), mine->pages * PAGE, own_node(), lazily);
}

static void *work(void *given)
{
	struct part *mine = given;
	uint64_t sum = 0;

	run_on(mine->cpu);
	await(&ready, NULL, 0, false);
	if (options->placement == IDEAL) {
		await(&go, NULL, 0, false);
		initialise(mine->page, mine->pages);
		await(&laps, "init", words, false);
	} else {
		await(&go, "init", words, false);
	}
	if (options->placement == DIRECT || options->placement == LAZY) {
		place(mine);
		await(&laps, "place", 0, false);
	}
	for (unsigned int round = 1; round <= options->rounds; round++) {
		sum += work_round(mine);
		await(&laps, "round", a_round, round == options->rounds);
	}
	mine->sum = sum;
	return NULL;
}

static void divide(size_t pages)
{
	size_t n = (size_t)options->n_workers, touched = 0;

	for (size_t i = 0; i < n; i++) {
		all[i].cpu = options->workers[i];
		all[i].page = pages * i / n;
		all[i].pages = pages * (i + 1) / n - all[i].page;
	}
	for (size_t page = 0; page < pages; page++)
		touched += is_touched(page, options->percent);
	words = pages * WORDS;
	a_round = touched * (WORDS / LINE_WORDS) * (options->writes ? 2 : 1);
}

/* Every word of the part, and the sum of what was read in it. */
static bool check(const struct part *p)
{
	uint64_t sum = 0;

	for (size_t page = p->page; page < p->page + p->pages; page++) {
		for (size_t in = 0; in < WORDS; in++) {
			size_t word = page * WORDS + in;
			bool touched = is_touched(page, options->percent) && in % LINE_WORDS == 0;
			uint64_t expected = first(word) + (touched && options->writes ? options->rounds : 0);
			uint64_t found = memory[word];

			if (found != expected) {
				wrong("parts: word %zu is %#lx, not %#lx", word, found, expected);
				return false;
			}
			if (touched && !options->writes)
				sum += options->rounds * first(word);
		}
	}
	if (p->sum != sum) {
		wrong("parts: CPU %d has read a sum of %#lx, not %#lx", p->cpu, p->sum, sum);
		return false;
	}
	return true;
}

bool parts(const struct options *o, struct whereabouts *w)
{
	uint32_t workers = (uint32_t)o->n_workers;

	options = o;
	memory = area(o->bytes, -1);
	divide(o->bytes / PAGE);
	ready.parties = go.parties = workers + 1;
	laps.parties = workers;
	for (uint32_t i = 0; i < workers; i++)
		if (pthread_create(&all[i].thread, NULL, work, &all[i]))
			failed("pthread_create");
	await(&ready, NULL, 0, false);
	begin(o);
	if (o->placement == IDEAL) {
		await(&go, NULL, 0, false);
	} else {
		initialise(0, o->bytes / PAGE);
		await(&go, "init", words, false);
	}
	for (uint32_t i = 0; i < workers; i++)
		pthread_join(all[i].thread, NULL);
	/* Before the check, which accesses pages that the workers did not. */
	locate((const void *)memory, o->bytes, w);
	for (uint32_t i = 0; i < workers; i++)
		if (!check(&all[i]))
			return false;
	return true;
}
