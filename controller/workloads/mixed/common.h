/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mixed: what its files share.
 *
 * main.c      options, starting, killing and counting processes, the report
 * worker.c    what a process does at random
 * area.c      memory whose contents are known, and checking them
 * system.c    random numbers, nodes, CPUs, policies
 */
#ifndef MIXED_COMMON_H
#define MIXED_COMMON_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define THREADS 2
#define PAGE 4096UL
#define WORDS (PAGE / sizeof(uint64_t))

/* ---- main.c: what all processes count in, in one shared mapping ---- */

struct shared {
	atomic_bool stop;
	atomic_ulong forks;	/* by workers; those of the parent it knows itself */
	atomic_ulong lazy;	/* calls of mbind() with MPOL_MF_LAZY */
	atomic_ulong direct;	/* and without */
	atomic_ulong pageouts, remaps, locks, early_exits;
	atomic_ulong checked, written;	/* pages */
	atomic_ulong refused;	/* system calls that failed and should not have */
	atomic_int refused_errno;
	atomic_ulong mismatches;
	atomic_bool first_taken;
	struct {
		int kind;
		uint64_t page, word, expected, found;
	} first;
};

extern struct shared *shared;

/* Counts a system call that failed unexpectedly. */
void refused(void);

/* ---- system.c ---- */

struct random {
	uint64_t state;
};

uint64_t mix(uint64_t x);
uint64_t next(struct random *r);
/* From 0 to below - 1. */
unsigned long below(struct random *r, unsigned long below);

void learn_machine(void);
void to_random_cpu(struct random *r);

enum move { MOVE_NONE, MOVE_DIRECT, MOVE_LAZY };

/* Gives a range a policy that names a random node, and has its pages moved accordingly. */
void bind_randomly(struct random *r, void *at, size_t length, enum move move);
/* The same for whatever the calling thread allocates without a policy of its own. */
void prefer_randomly(struct random *r);

/* The value of one counter of /proc/vmstat after folding all CPUs' shares into it; -1 when there is no such. */
long vmstat(const char *name);

/* ---- area.c ---- */

enum kind { PLAIN, HUGE, MERGED, TOGETHER, KINDS };

extern const char *const kind_names[KINDS];

/*
 * Memory whose every word is known. The first words of each page belong to one thread each, who writes ever new numbers
 * there and remembers them, so that a write which got lost shows. The others stay as they are.
 */
struct area {
	enum kind kind;
	uint8_t *at;
	size_t pages;
	uint64_t id;
	uint32_t *written[THREADS];	/* by page: the last number that the thread wrote, 0 for none */
};

/* False when there is no memory for it. */
bool area_map(struct area *a, enum kind kind, uint64_t id);
/* Throws all contents away and begins anew. For areas of one thread only. */
void area_renew(struct area *a);
void area_check(struct area *a, int thread, struct random *r, size_t page);
void area_write(struct area *a, int thread, size_t page);

/* ---- worker.c ---- */

/* Does not return. */
_Noreturn void worker(uint64_t seed);

#endif
