/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * policy: what its files share.
 *
 * main.c         the machine's settings, one process a combination
 * combination.c  reading one from a line
 * case.c         what is done with one
 * area.c         the area: filling it, putting its pages on nodes, looking where they are
 * settings.c     cpuset, weights, sysctls; and putting them back
 * trace.c        what the tracepoint says
 * call.c         mbind() with bad arguments
 */
#ifndef POLICY_COMMON_H
#define POLICY_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOST_NODES 64
#define MOST_UNITS 64		/* pages, or huge pages, of an area */
#define MASK_BITS (MOST_NODES + 1UL)	/* the kernel takes one off (get_nodes(), mm/mempolicy.c) */

/* linux/mempolicy.h of the build host may not know the last ones. */
enum { MODE_DEFAULT, MODE_PREFERRED, MODE_BIND, MODE_INTERLEAVE, MODE_LOCAL, MODE_PREFERRED_MANY, MODE_WEIGHTED };
enum { MF_STRICT = 1, MF_MOVE = 2, MF_MOVE_ALL = 4, MF_LAZY = 8 };
enum { F_NODE = 1, F_ADDR = 2, F_MEMS_ALLOWED = 4 };

struct combination {
	long id;
	int mode;
	int flags;		/* MPOL_F_STATIC_NODES, MPOL_F_RELATIVE_NODES */
	bool task;		/* by set_mempolicy(); otherwise, by mbind() */
	unsigned long nodes, rival;	/* rival: what the task is bound to besides, 0: nothing */
	int home;		/* -1: none */
	int cpu;
	unsigned long enter, then;	/* cpuset.mems before the policy is set, and afterwards; 0: no cpuset, no change */
	unsigned char weights[MOST_NODES];	/* 0: as it is */
	int sysctl;		/* vm.migrate_on_fault */
	int units;
	int rotate;		/* which node the first page starts on */
	int shift;		/* pages by which the area is moved once it is filled: its offset then differs from its address */
	bool huge, write, direct;	/* direct: the mbind() that sets the policy unmaps, too */
};

struct answer {			/* of the tracepoint, for a unit */
	int unit, from, to;
	unsigned order;
	char mode[32], origin[16], result[32];
};

struct area {
	char *at;
	size_t unit;		/* bytes */
	int units;
};

extern const size_t page_size;
extern long doing_id;		/* what stop() names; -1: nothing in particular */

/* Ends the process, after a line that says what it could not do. */
_Noreturn void stop(const char *doing);
void need(const char *doing, bool fine);

/* ---- combination.c ---- */

/* The mode that a word names; stops at an unknown one. */
int mode_of(const char *word);
void read_combination(char *line, struct combination *c);

/* ---- case.c ---- */

void try_combination(const struct combination *c);

/* ---- area.c ---- */

/*
 * An area that is filled, and its twin, from which fresh pages are to come: the same area, or, as the page table of a huge
 * page does not go away with it, one that was never touched and has the same offset, by which interleaving goes.
 */
void area_map(struct area *area, struct area *twin, const struct combination *c);
void area_fill(const struct area *area);
size_t area_mismatches(const struct area *area);
void area_put(const struct area *area, const int *nodes);
void area_nodes(const struct area *area, int *nodes);
/* Whether each unit is out of the page table and in swap, or its cache. */
void area_out(const struct area *area, bool *out);
/* Whether each unit is in the page table. */
void area_present(const struct area *area, bool *present);
/* Nodes of the policy in effect, by /proc/self/numa_maps; 0 when it has none. */
unsigned long area_policy_nodes(const struct area *area);
/* All of it is in huge pages, by /proc/self/smaps. */
bool area_is_huge(const struct area *area);

/* ---- settings.c ---- */

void settings_begin(void);
/* What can be set only for all processes. */
void settings_for(const struct combination *c);
void settings_end(void);
/* Let the group have these nodes, and join it. */
void cpuset_join(unsigned long nodes);
void cpuset_change(unsigned long nodes);

/* ---- trace.c ---- */

void trace_begin(void);
void trace_end(void);
/* Forget what was traced so far. */
void trace_forget(void);
/* What was traced since, of an area; the number of answers, -1 when some were lost. */
int trace_answers(const struct area *area, struct answer *answers, int most);

/* ---- call.c ---- */

void try_calls(void);

#endif
