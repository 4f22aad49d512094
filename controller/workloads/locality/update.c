// SPDX-License-Identifier: GPL-2.0-only
/*
 * update: words of a table are read and written at random, as in HPC Challenge's RandomAccess. A second pass undoes what the
 * first one did.
 */
#include "common.h"

/* Of MMIX (Knuth): x = FACTOR x + SUMMAND runs through all 64-bit numbers. */
#define FACTOR UINT64_C(6364136223846793005)
#define SUMMAND UINT64_C(1442695040888963407)

static void pass(volatile uint64_t *table, unsigned int shift, unsigned long updates)
{
	uint64_t x = 1;

	for (unsigned long i = 0; i < updates; i++) {
		x = FACTOR * x + SUMMAND;
		/* The high bits: the low ones have short periods. */
		table[x >> shift] ^= x;
	}
}

bool update(const struct options *o, struct whereabouts *w)
{
	size_t words = o->bytes / sizeof(uint64_t);
	unsigned int shift = 64 - (unsigned int)__builtin_ctzl(words);
	volatile uint64_t *table = area(o->bytes, o->node);

	for (size_t i = 0; i < words; i++)
		table[i] = mix(i);
	begin(o);
	for (unsigned int round = 0; round < 2 * o->rounds; round++) {
		pass(table, shift, o->steps);
		lap("pass", 2 * o->steps);
	}
	end();
	locate((const void *)table, o->bytes, w);
	for (size_t i = 0; i < words; i++) {
		uint64_t found = table[i];

		if (found != mix(i)) {
			wrong("update: word %zu is %#lx, not %#lx", i, found, mix(i));
			return false;
		}
	}
	return true;
}
