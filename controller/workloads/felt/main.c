// SPDX-License-Identifier: GPL-2.0-only
/*
 * How long a load from memory takes by the clock of whoever runs this, while the memory-controller plugin
 * (provision/hardware/plugin/memctl.c) counts.
 *
 *   felt NODE:LENGTH...
 *
 * Prints a line for each: the ns of each of 64 walks of 4,096 loads, one after the other, in memory that is bound to the node, of so
 * many bytes, a power of two. Each load is from the next page and 64 bytes further, all around: so every line comes before
 * one comes again. Walks are short, that most of them have no interrupt in them.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WALKS 64
#define LOADS 4096
#define STRIDE 4160
#define LINE 64
#define MAX_PLACES 8
#define MPOL_BIND 2

#define MARK(on) \
	__asm__ volatile(".byte 0x0f, 0x1f, 0x80\n\t.long 0x666f6d00 + %c0\n\tjmp 1f\n1:" : : "i"(on) : "memory")

struct place {
	unsigned int node;
	unsigned long length;
	char *memory;
	int64_t took[WALKS];
};

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int made(struct place *place, const char *text)
{
	uint64_t mask;

	if (sscanf(text, "%u:%lu", &place->node, &place->length) != 2 || place->node > 63 || place->length < LINE ||
	    place->length & (place->length - 1)) {
		fprintf(stderr, "felt NODE:LENGTH...\n");
		return 2;
	}
	mask = 1UL << place->node;
	place->memory = mmap(NULL, place->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (place->memory == MAP_FAILED || syscall(SYS_mbind, place->memory, place->length, MPOL_BIND, &mask, 64, 0)) {
		perror("felt");
		return 1;
	}
	memset(place->memory, 1, place->length);
	return 0;
}

/* So many loads from there on; where the next one would be. */
static uint64_t walk(const struct place *place, uint64_t at, uint64_t loads)
{
	__asm__ volatile("1:\tmovq (%[memory], %[at]), %%rax\n\t"
			 "addq %[stride], %[at]\n\t"
			 "andq %[around], %[at]\n\t"
			 "decq %[loads]\n\t"
			 "jnz 1b"
			 : [loads] "+r"(loads), [at] "+r"(at)
			 : [memory] "r"(place->memory), [stride] "i"(STRIDE), [around] "r"(place->length - 8)
			 : "rax", "memory", "cc");
	return at;
}

int main(int argc, char **argv)
{
	static struct place places[MAX_PLACES];
	int count = argc - 1;

	if (count < 1 || count > MAX_PLACES) {
		fprintf(stderr, "felt NODE:LENGTH..., at most %d of them\n", MAX_PLACES);
		return 2;
	}
	for (int i = 0; i < count; i++) {
		int wrong = made(&places[i], argv[i + 1]);

		if (wrong)
			return wrong;
	}

	MARK(1);
	for (int i = 0; i < count; i++) {
		/* What fits into a cache is in it from then on. */
		uint64_t at = walk(&places[i], 0, LOADS);

		for (int w = 0; w < WALKS; w++) {
			int64_t began = now_ns();

			at = walk(&places[i], at, LOADS);
			places[i].took[w] = now_ns() - began;
		}
	}
	MARK(0);

	for (int i = 0; i < count; i++)
		for (int w = 0; w < WALKS; w++)
			printf("%ld%c", (long)places[i].took[w], w + 1 < WALKS ? ' ' : '\n');
	return 0;
}
