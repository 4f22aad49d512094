// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an ordinary swap fault costs: of a page that is on the swap device alone, and of one that is in the swap cache.
 *
 *   swapfault ROUNDS
 *
 * Prints one line of JSON: "device" and "cache", nanoseconds that the thread was on a CPU while it read one word of each of
 * 16 pages, and "loop", the same of pages that are mapped; a number a round. On a clock of instructions these are
 * instructions. Status 1, and the reason, when the pages were not where they had to be, or the faults were others.
 *
 * So few pages, since that many are taken from the CPU's own list of free pages, to which they have just gone: what a page
 * from anywhere else costs depends on what the guest did before.
 *
 * The swap device has to be one that reads at once (zram): then the first kind goes around the swap cache, and no other
 * page is read ahead.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define WORDS (PAGE / sizeof(uint64_t))
#define PAGES 16UL
#define MAX_ROUNDS 1024
#define TRIES 5

static uint64_t device[MAX_ROUNDS], cache[MAX_ROUNDS], loop[MAX_ROUNDS];

static _Noreturn void stop(const char *what)
{
	printf("{\"error\": \"%s\", \"errno\": %d}\n", what, errno);
	exit(1);
}

static uint64_t now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

/* Half way between two seconds, and between two ticks: the kernel's periodic work comes at round times. */
static void settle(void)
{
	uint64_t at = (now(CLOCK_MONOTONIC) / 1000000000ULL + 1) * 1000000000ULL + 502500000ULL;
	struct timespec until = {
		.tv_sec = (time_t)(at / 1000000000ULL),
		.tv_nsec = (long)(at % 1000000000ULL),
	};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

/* Read all, with so many faults of each kind. */
static uint64_t read_all(const volatile char *area, long minor, long major)
{
	struct rusage before, after;
	uint64_t ns;

	getrusage(RUSAGE_THREAD, &before);
	ns = now(CLOCK_THREAD_CPUTIME_ID);
	for (size_t i = 0; i < PAGES; i++)
		(void)*(const volatile uint64_t *)(area + i * PAGE);
	ns = now(CLOCK_THREAD_CPUTIME_ID) - ns;
	getrusage(RUSAGE_THREAD, &after);
	if (after.ru_minflt - before.ru_minflt != minor || after.ru_majflt - before.ru_majflt != major)
		stop("other faults than those that were to be measured");
	return ns;
}

/* How many of the pages are in memory, mapped or in the swap cache (mincore(2)). */
static size_t resident(char *area)
{
	unsigned char map[PAGES];
	size_t found = 0;

	if (mincore(area, PAGES * PAGE, map))
		stop("mincore");
	for (size_t i = 0; i < PAGES; i++)
		found += map[i] & 1;
	return found;
}

/* A page is one number, repeated: zram keeps that alone, so that reading it back adds as little as it can to the fault. */
static void fill(char *area)
{
	for (size_t i = 0; i < PAGES; i++)
		for (size_t k = 0; k < WORDS; k++)
			((uint64_t *)(area + i * PAGE))[k] = i + 1;
}

/*
 * New pages, and out with them.  One that has come back from swap before may be told to belong to the working set, which the
 * next fault on it has to account for.
 */
static void page_out(char *area)
{
	if (madvise(area, PAGES * PAGE, MADV_DONTNEED))
		stop("MADV_DONTNEED");
	fill(area);
	for (int i = 0; i < TRIES && resident(area); i++)
		if (madvise(area, PAGES * PAGE, MADV_PAGEOUT))
			stop("MADV_PAGEOUT");
	if (resident(area))
		stop("pages stay in memory: is there swap?");
}

/*
 * Into the swap cache, and out of every page table: a child reads them there and ends. That the parent has an entry as
 * well makes it go through the cache, and leaves the page in it.
 */
static void to_cache(char *area)
{
	pid_t child = fork();
	int status;

	if (child < 0)
		stop("fork");
	if (!child) {
		for (size_t i = 0; i < PAGES; i++)
			(void)*(volatile uint64_t *)(area + i * PAGE);
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child || status)
		stop("the child failed");
	if (resident(area) != PAGES)
		stop("not every page is in the swap cache");
}

static void check(const char *area)
{
	for (size_t i = 0; i < PAGES; i++)
		for (size_t k = 0; k < WORDS; k++)
			if (((const uint64_t *)(area + i * PAGE))[k] != i + 1)
				stop("contents differ");
}

static void show(const char *name, const uint64_t *values, long rounds, const char *end)
{
	printf("\"%s\": [", name);
	for (long i = 0; i < rounds; i++)
		printf("%s%llu", i ? ", " : "", (unsigned long long)values[i]);
	printf("]%s", end);
}

int main(int argc, char **argv)
{
	long rounds = argc == 2 ? strtol(argv[1], NULL, 10) : 0;
	char *area;

	if (rounds < 1 || rounds > MAX_ROUNDS) {
		fprintf(stderr, "usage: swapfault ROUNDS\n");
		return 2;
	}
	area = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		stop("no memory");
	for (long i = 0; i < rounds; i++) {
		settle();
		page_out(area);
		device[i] = read_all(area, 0, PAGES);
		check(area);
		loop[i] = read_all(area, 0, 0);

		settle();
		page_out(area);
		to_cache(area);
		cache[i] = read_all(area, PAGES, 0);
		check(area);
	}
	printf("{\"pages\": %lu, ", PAGES);
	show("device", device, rounds, ", ");
	show("cache", cache, rounds, ", ");
	show("loop", loop, rounds, "}\n");
	return 0;
}
