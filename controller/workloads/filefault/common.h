/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * filefault: what its files share.
 *
 * main.c    the steps
 * place.c   policies, draining, where pages are
 * race.c    threads that truncate, invalidate and touch
 */
#ifndef FILEFAULT_COMMON_H
#define FILEFAULT_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORDS 512		/* uint64_t a page */
#define MOST_NODES 64

/* linux/mempolicy.h of the build host may not know the last flag. */
enum { POLICY_DEFAULT = 0, POLICY_BIND = 2, POLICY_INTERLEAVE = 3 };
enum { MF_STRICT = 1, MF_MOVE = 2, MF_MOVE_ALL = 4, MF_LAZY = 8 };

struct state {
	int fd;
	size_t pages;		/* of the file and of the mapping */
	char *area;		/* NULL while nothing is mapped */
};

extern struct state now;
extern const size_t page_size;

_Noreturn void stop(const char *step, int error);
void need(const char *step, bool fine);
void done(const char *step);

/* Word `word` of page `page` of the file, in its generation. */
uint64_t pattern(size_t page, size_t word);
/* "1,3" as a node mask; the policy is over when it is "-". */
unsigned long parse_nodes(const char *step, const char *text);

/* ---- place.c ---- */

void task_policy(const char *step, const char *nodes, int mode);
void area_policy(const char *step, const char *value);
/* Empty the LRU batches of all CPUs. */
void drain(const char *step);
void where(const char *step);
void present(const char *step);
void huge(const char *step);

/* ---- race.c ---- */

void race(const char *step, const char *value);

#endif
