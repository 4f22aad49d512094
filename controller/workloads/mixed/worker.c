// SPDX-License-Identifier: GPL-2.0-only
/*
 * One process: threads that at random place, touch, page out, lock and renew memory, fork, and end the process while
 * the others are in the middle of something.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

#define OWN 3			/* areas of one thread: PLAIN, HUGE, MERGED */
#define MOST_PAGES 64		/* of one range */
#define CHILDREN 2		/* of one thread, at a time */
#define CHILD_ROUNDS 12
#define SETUP_FAILED 3

struct thread {
	int index;
	struct random random;
	struct area own[OWN];
	struct area *together;
	int children;
};

struct range {
	struct area *area;
	size_t first, pages;
};

static struct area together;
static struct thread threads[THREADS];

static void *begin(const struct range *r)
{
	return r->area->at + r->first * PAGE;
}

static struct range random_range(struct thread *t)
{
	size_t which = below(&t->random, OWN + 1);
	struct range r = { .area = which == OWN ? t->together : &t->own[which] };

	r.pages = 1 + below(&t->random, MOST_PAGES);
	/* Whole at times: huge pages are moved whole, and ranges that begin inside one split it. */
	if (!below(&t->random, 8))
		r.pages = r.area->pages;
	r.first = below(&t->random, r.area->pages - r.pages + 1);
	return r;
}

static void touch(struct thread *t, const struct range *r)
{
	bool backwards = below(&t->random, 2), write = below(&t->random, 2);

	for (size_t i = 0; i < r->pages; i++) {
		size_t page = r->first + (backwards ? r->pages - 1 - i : i);

		/* A write first makes the fault one for writing; what was there before must have come along all the same. */
		if (write)
			area_write(r->area, t->index, page);
		area_check(r->area, t->index, &t->random, page);
		if (atomic_load_explicit(&shared->stop, memory_order_relaxed))
			return;
	}
}

static void mark(struct thread *t, const struct range *r)
{
	bind_randomly(&t->random, begin(r), r->pages * PAGE, MOVE_LAZY);
	atomic_fetch_add(&shared->lazy, 1);
	if (!below(&t->random, 4))
		return; /* never touched, or later, or by somebody else */
	to_random_cpu(&t->random);
	touch(t, r);
}

static void lock_for_a_while(struct thread *t, const struct range *r)
{
	if (mlock(begin(r), r->pages * PAGE)) {
		if (errno != ENOMEM && errno != EAGAIN)
			refused();
		return;
	}
	touch(t, r);
	bind_randomly(&t->random, begin(r), r->pages * PAGE, MOVE_LAZY);
	if (munlock(begin(r), r->pages * PAGE))
		refused();
	atomic_fetch_add(&shared->locks, 1);
}

/* What both processes and their children do. */
static void step(struct thread *t)
{
	struct range r = random_range(t);
	unsigned long what = below(&t->random, 100);

	if (what < 50) {
		mark(t, &r);
	} else if (what < 80) {
		touch(t, &r);
	} else if (what < 88) {
		/* EINVAL for locked ranges (madvise(2)): the other thread's. */
		if (madvise(begin(&r), r.pages * PAGE, MADV_PAGEOUT) && errno != EINVAL)
			refused();
		atomic_fetch_add(&shared->pageouts, 1);
	} else if (what < 93) {
		bind_randomly(&t->random, begin(&r), r.pages * PAGE, MOVE_DIRECT);
		atomic_fetch_add(&shared->direct, 1);
	} else if (what < 95) {
		prefer_randomly(&t->random);
	} else if (what < 97) {
		lock_for_a_while(t, &r);
	} else if (r.area != t->together) {
		area_renew(r.area);
		atomic_fetch_add(&shared->remaps, 1);
	} else {
		to_random_cpu(&t->random);
	}
}

/* Only this thread is left in the child; it knows its own words of all pages, and those that nobody writes. */
static _Noreturn void child(struct thread *t)
{
	unsigned long rounds = below(&t->random, CHILD_ROUNDS);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	t->random.state = mix(t->random.state ^ (uint64_t)getpid());
	while (rounds-- && !atomic_load(&shared->stop))
		step(t);
	_exit(0);
}

static void fork_one(struct thread *t)
{
	while (t->children && waitpid(-1, NULL, __WNOTHREAD | (t->children < CHILDREN ? WNOHANG : 0)) > 0)
		t->children--;
	if (t->children >= CHILDREN)
		return;
	switch (fork()) {
	case 0:
		child(t);
	case -1:
		if (errno != EAGAIN && errno != ENOMEM)
			refused();
		return;
	default:
		t->children++;
		atomic_fetch_add(&shared->forks, 1);
	}
}

static void *thread_main(void *argument)
{
	struct thread *t = argument;

	to_random_cpu(&t->random);
	while (!atomic_load(&shared->stop)) {
		unsigned long what = below(&t->random, 1000);

		if (what < 2) {
			/* The other thread is wherever it is. */
			atomic_fetch_add(&shared->early_exits, 1);
			_exit(0);
		}
		if (what < 40)
			fork_one(t);
		else
			step(t);
	}
	return NULL;
}

_Noreturn void worker(uint64_t seed)
{
	struct random random = { .state = mix(seed) };
	pthread_t others[THREADS];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	to_random_cpu(&random);
	if (!area_map(&together, TOGETHER, seed * 16))
		_exit(SETUP_FAILED);
	for (int i = 0; i < THREADS; i++) {
		struct thread *t = &threads[i];

		*t = (struct thread){ .index = i, .random.state = next(&random), .together = &together };
		for (int kind = 0; kind < OWN; kind++)
			if (!area_map(&t->own[kind], (enum kind)kind, seed * 16 + 1 + (uint64_t)(i * OWN + kind)))
				_exit(SETUP_FAILED);
	}
	for (int i = 1; i < THREADS; i++)
		if (pthread_create(&others[i], NULL, thread_main, &threads[i]))
			_exit(SETUP_FAILED);
	thread_main(&threads[0]);
	_exit(0);
}
