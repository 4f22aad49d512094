// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults that move pages of a file, while another thread takes the pages away; see common.h.
 *
 * Two threads map the file, each for itself. Over and over they bind their mapping to another node, remove it from the page
 * table and touch each page, so that it is the next fault that moves the page.
 *
 * truncate: a third thread cuts the file to nothing, or to half, and writes it again. What the two read is what has been
 * written or zero, or they get SIGBUS beyond the end of the file.
 *
 * invalidate: a third thread writes the file back and drops it from the page cache. The two count up in a word of each page,
 * of their own, and must find again what they wrote.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

#define TOUCHERS 2
#define NODES 4

struct toucher {
	pthread_t thread;
	int number;
	bool counts;		/* writes, too */
	uint64_t *last;		/* what it wrote to its word of each page */
	unsigned long passes, wrong, bus_errors;
	int error;
};

static atomic_bool over;
static __thread sigjmp_buf beyond;
static __thread volatile sig_atomic_t may_miss;

static void on_bus(int signal)
{
	if (!may_miss)
		_exit(128 + signal);
	siglongjmp(beyond, 1);
}

static unsigned long wrong_words(const volatile uint64_t *at, size_t page)
{
	unsigned long wrong = 0;

	for (size_t word = 0; word < WORDS; word++) {
		uint64_t found = at[word];

		wrong += found && found != pattern(page, word);
	}
	return wrong;
}

/* Returns whether the page could be read. */
static bool check_page(struct toucher *me, char *area, size_t page)
{
	bool there = true;

	if (sigsetjmp(beyond, 1)) {
		there = false;
	} else {
		may_miss = 1;
		me->wrong += wrong_words((uint64_t *)(area + page * page_size), page);
	}
	may_miss = 0;
	return there;
}

static void count_page(struct toucher *me, char *area, size_t page)
{
	volatile uint64_t *word = (uint64_t *)(area + page * page_size) + me->number;

	/* Half of them are looked at before they are written to: a fault for reading, which goes around. */
	if ((page ^ me->passes) & 1)
		me->wrong += *word != me->last[page];
	*word = ++me->last[page];
}

static void *touch_all(void *argument)
{
	struct toucher *me = argument;
	char *area = mmap(NULL, now.pages * page_size, PROT_READ | PROT_WRITE, MAP_SHARED, now.fd, 0);

	if (area == MAP_FAILED) {
		me->error = errno;
		return NULL;
	}
	while (!over) {
		unsigned long mask = 1UL << ((me->passes + me->number) % NODES);

		if (syscall(SYS_mbind, area, now.pages * page_size, POLICY_BIND, &mask, MOST_NODES + 1UL, 0) ||
		    madvise(area, now.pages * page_size, MADV_DONTNEED)) {
			me->error = errno;
			break;
		}
		for (size_t page = 0; page < now.pages; page++) {
			if (me->counts)
				count_page(me, area, page);
			else if (!check_page(me, area, page))
				me->bus_errors++;
		}
		me->passes++;
	}
	for (size_t page = 0; me->counts && page < now.pages; page++)
		me->wrong += ((volatile uint64_t *)(area + page * page_size))[me->number] != me->last[page];
	munmap(area, now.pages * page_size);
	return NULL;
}

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void write_again(const char *step)
{
	uint64_t page_of[WORDS];

	for (size_t page = 0; page < now.pages; page++) {
		for (size_t word = 0; word < WORDS; word++)
			page_of[word] = pattern(page, word);
		if (pwrite(now.fd, page_of, page_size, page * page_size) != (ssize_t)page_size)
			stop(step, errno);
	}
}

void race(const char *step, const char *value)
{
	struct toucher all[TOUCHERS] = {0};
	unsigned long rounds = 0, wrong = 0, passes = 0, bus_errors = 0;
	bool truncating = !strncmp(value, "truncate:", 9);
	struct sigaction action = {.sa_handler = on_bus};
	const char *seconds = strchr(value, ':');
	uint64_t end;

	if (!seconds || (!truncating && strncmp(value, "invalidate:", 11)))
		stop(step, EINVAL);
	need(step, !sigaction(SIGBUS, &action, NULL));
	end = clock_ns() + strtoull(seconds + 1, NULL, 0) * 1000000000ULL;
	for (int n = 0; n < TOUCHERS; n++) {
		all[n].number = n;
		all[n].counts = !truncating;
		all[n].last = calloc(now.pages, sizeof(uint64_t));
		need(step, all[n].last);
		for (size_t page = 0; page < now.pages; page++)
			all[n].last[page] = pattern(page, n);
		errno = pthread_create(&all[n].thread, NULL, touch_all, &all[n]);
		need(step, !errno);
	}
	for (; clock_ns() < end; rounds++) {
		if (truncating) {
			need(step, !ftruncate(now.fd, rounds & 1 ? now.pages / 2 * page_size : 0));
			write_again(step);
		} else {
			need(step, !sync_file_range(now.fd, 0, 0, rounds & 1 ? SYNC_FILE_RANGE_WRITE :
				SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
			errno = posix_fadvise(now.fd, 0, 0, POSIX_FADV_DONTNEED);
			need(step, !errno);
		}
	}
	over = true;
	for (int n = 0; n < TOUCHERS; n++) {
		pthread_join(all[n].thread, NULL);
		if (all[n].error)
			stop(step, all[n].error);
		wrong += all[n].wrong;
		passes += all[n].passes;
		bus_errors += all[n].bus_errors;
	}
	/* What they counted is in the file; after it, the file is as its pattern says. */
	for (int n = 0; n < TOUCHERS; n++) {
		for (size_t page = 0; !truncating && page < now.pages; page++) {
			uint64_t found;

			if (pread(now.fd, &found, sizeof(found), page * page_size + n * sizeof(found)) != sizeof(found))
				stop(step, errno);
			wrong += found != all[n].last[page];
		}
		free(all[n].last);
	}
	write_again(step);
	printf("{\"step\": \"%s\", \"ok\": true, \"rounds\": %lu, \"passes\": %lu, \"bus_errors\": %lu, \"wrong\": %lu}\n", step,
	       rounds, passes, bus_errors, wrong);
}
