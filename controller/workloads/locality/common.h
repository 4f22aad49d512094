/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * locality: what its files share.
 *
 * main.c      options, the report
 * phases.c    when a phase begins and ends, and what others are told of it
 * place.c     on which CPU a thread runs, on which node memory is
 * chase.c     one load after another, each address out of the one before
 * stream.c    four kernels over three arrays
 * update.c    words of a table, at random
 * parts.c     memory that one thread initialises and others work on
 */
#ifndef LOCALITY_COMMON_H
#define LOCALITY_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096UL
#define LINE 64UL
#define WORDS (PAGE / sizeof(uint64_t))
#define LINE_WORDS (LINE / sizeof(uint64_t))
#define MAX_NODES 64
#define MAX_WORKERS 64
#define MAX_ROUNDS 1000

enum placement { FIRST_TOUCH, DIRECT, LAZY, IDEAL, PLACEMENTS };

extern const char *const placement_names[PLACEMENTS];

struct options {
	size_t bytes;		/* of the area; of each array */
	unsigned long steps;	/* of a round of chase, of a pass of update */
	unsigned int rounds;
	int cpu, node;		/* -1: wherever */
	int workers[MAX_WORKERS], n_workers;	/* their CPUs */
	enum placement placement;
	unsigned int percent;	/* of the pages of each part */
	bool writes;
	bool mark;
	unsigned int settle_ms;
};

/* Says on standard error what is wrong with the result. */
__attribute__((format(printf, 1, 2))) void wrong(const char *format, ...);
/* Ends the program: a system call failed. */
_Noreturn void failed(const char *what);

/* splitmix64: a number that looks random, for each x another one. */
uint64_t mix(uint64_t x);

/* ---- phases.c ---- */

/* The first phase begins: rests before, if asked to. */
void begin(const struct options *o);
/* A phase ends, with so many accesses to memory that is measured, and the next one begins. */
void lap(const char *phase, uint64_t accesses);
/* After the last one. */
void end(void);
void print_phases(void);

/* ---- place.c ---- */

/* The calling thread runs on this CPU from now on. */
void run_on(int cpu);
/* Of the CPU on which the calling thread runs. */
int own_node(void);
/* Memory in small pages, of that node alone; -1: of whatever node touches it first. */
void *area(size_t bytes, int node);
/* Pages are to be on that node: moved there at once, or when they are next accessed. */
void move_to(void *at, size_t bytes, int node, bool lazily);

struct whereabouts {
	unsigned long on[MAX_NODES];	/* pages */
	unsigned long absent;		/* not mapped: nobody has accessed them since they were unmapped */
};

/* Without touching them. */
void locate(const void *at, size_t bytes, struct whereabouts *w);

/* ---- the four kinds: false when the result is not what it has to be ---- */

bool chase(const struct options *o, struct whereabouts *w);
bool stream(const struct options *o, struct whereabouts *w);
bool update(const struct options *o, struct whereabouts *w);
bool parts(const struct options *o, struct whereabouts *w);

#endif
