// SPDX-License-Identifier: GPL-2.0-only
/*
 * chase: one load after another, each from the address that the one before has loaded: what an access takes, and no other
 * access hides it. The lines of the area are one cycle, in random order.
 */
#include <stdlib.h>

#include "common.h"

struct line {
	struct line *next;
	char rest[LINE - sizeof(struct line *)];
};

/* Which line comes after each: Sattolo's shuffle gives one cycle through all of them, every such cycle as likely. */
static uint32_t *cycle_of(size_t lines)
{
	uint32_t *next = malloc(lines * sizeof(*next));

	if (!next)
		failed("malloc");
	for (size_t i = 0; i < lines; i++)
		next[i] = (uint32_t)i;
	for (size_t i = lines - 1; i > 0; i--) {
		size_t j = mix(i) % i;
		uint32_t other = next[j];

		next[j] = next[i];
		next[i] = other;
	}
	return next;
}

/* A load a step and, but for every sixteenth, nothing else. */
static struct line *follow(struct line *at, unsigned long steps)
{
	unsigned long many = steps / 16, rest = steps % 16;

	__asm__ volatile("test %[many], %[many]\n\t"
			 "jz 2f\n"
			 "1:\t.rept 16\n\t"
			 "movq (%[at]), %[at]\n\t"
			 ".endr\n\t"
			 "decq %[many]\n\t"
			 "jnz 1b\n"
			 "2:\ttest %[rest], %[rest]\n\t"
			 "jz 4f\n"
			 "3:\tmovq (%[at]), %[at]\n\t"
			 "decq %[rest]\n\t"
			 "jnz 3b\n"
			 "4:"
			 : [at] "+r"(at), [many] "+r"(many), [rest] "+r"(rest)
			 :
			 : "memory", "cc");
	return at;
}

static bool check(const struct line *area, const uint32_t *next, size_t lines, unsigned long steps, const struct line *ended)
{
	size_t at = 0, expected = 0;

	for (size_t i = 0; i < lines; i++) {
		if (area[i].next != &area[next[i]]) {
			wrong("chase: line %zu does not name line %u", i, next[i]);
			return false;
		}
	}
	for (size_t i = 0; i < lines; i++) {
		if (i == steps % lines)
			expected = at;
		if (i && !at) {
			wrong("chase: the cycle closes after %zu of %zu lines", i, lines);
			return false;
		}
		at = next[at];
	}
	if (at) {
		wrong("chase: the cycle does not close");
		return false;
	}
	if (ended != &area[expected]) {
		wrong("chase: after %lu steps at another line than %zu", steps, expected);
		return false;
	}
	return true;
}

bool chase(const struct options *o, struct whereabouts *w)
{
	size_t lines = o->bytes / sizeof(struct line);
	struct line *lines_at = area(o->bytes, o->node), *at = lines_at;
	uint32_t *next = cycle_of(lines);

	for (size_t i = 0; i < lines; i++)
		lines_at[i].next = &lines_at[next[i]];
	begin(o);
	for (unsigned int round = 0; round < o->rounds; round++) {
		at = follow(at, o->steps);
		lap("chase", o->steps);
	}
	end();
	locate(lines_at, o->bytes, w);
	return check(lines_at, next, lines, o->steps * o->rounds, at);
}
