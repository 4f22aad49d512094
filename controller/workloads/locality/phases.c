// SPDX-License-Identifier: GPL-2.0-only
/*
 * When a phase begins and ends. Nothing lies between two phases: the time of one ends where that of the next begins.
 *
 * Nothing is printed before the last one is over: that would be counted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common.h"

/* For the memory-controller plugin (provision/hardware/plugin/memctl.c): an instruction that does nothing. */
#define MARK(code) \
	__asm__ volatile(".byte 0x0f, 0x1f, 0x80\n\t.long 0x666f6d00 + %c0\n\tjmp 1f\n1:" : : "i"(code) : "memory")
enum { MARK_OFF = 0, MARK_ON = 1, MARK_LAP = 2 };

#define MAX_PHASES (4 * MAX_ROUNDS + 2)

static struct phase {
	const char *name;
	uint64_t accesses, ns;
} phases[MAX_PHASES];
static unsigned int n_phases;
static uint64_t began;
static bool marking;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/*
 * What was left to be done by whoever ran before is not ours. The kernel's periodic work comes at round times (ticks,
 * vmstat's every second): to begin half way between two multiples of the period, and 2.5 ms later, which is between two ticks
 * at 100, 250 and 1000 Hz, is to meet it at the same distance each time.
 */
#define OFF_TICK_NS 2500000
static void settle(unsigned int ms)
{
	uint64_t period = ms * UINT64_C(1000000), at;
	struct timespec until;

	if (!ms)
		return;
	at = (now() + period - 1) / period * period + period / 2 + OFF_TICK_NS;
	until.tv_sec = (time_t)(at / 1000000000);
	until.tv_nsec = (long)(at % 1000000000);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

void begin(const struct options *o)
{
	/* Its pages are not to be faulted in at the end of some phase. */
	memset(phases, 1, sizeof(phases));
	marking = o->mark;
	settle(o->settle_ms);
	if (marking)
		MARK(MARK_ON);
	began = now();
}

void lap(const char *phase, uint64_t accesses)
{
	uint64_t ended = now();

	if (n_phases == MAX_PHASES)
		abort();
	phases[n_phases++] = (struct phase){ phase, accesses, ended - began };
	began = ended;
	if (marking)
		MARK(MARK_LAP);
}

void end(void)
{
	if (marking)
		MARK(MARK_OFF);
}

void print_phases(void)
{
	for (const struct phase *p = phases; p < phases + n_phases; p++)
		printf("{\"phase\": \"%s\", \"ns\": %" PRIu64 ", \"accesses\": %" PRIu64 "}\n", p->name, p->ns, p->accesses);
}
