// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loads and stores exactly as often as it is told, in memory that is bound to one node, between two marks of the
 * memory-controller plugin (provision/hardware/plugin/memctl.c).
 *
 *   known NODE LOADS STORES
 *
 * Prints the address of the memory, and its length. Each access is to the next page and 64 bytes further, all around the memory.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LENGTH (4UL << 20)
#define MPOL_BIND 2

#define MARK(on) \
	__asm__ volatile(".byte 0x0f, 0x1f, 0x80\n\t.long 0x666f6d00 + %c0\n\tjmp 1f\n1:" : : "i"(on) : "memory")

int main(int argc, char **argv)
{
	uint64_t mask, loads, stores, at = 0;
	char *memory;

	if (argc != 4) {
		fprintf(stderr, "known NODE LOADS STORES\n");
		return 2;
	}
	mask = 1UL << strtoul(argv[1], NULL, 0);
	loads = strtoull(argv[2], NULL, 0);
	stores = strtoull(argv[3], NULL, 0);
	memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || syscall(SYS_mbind, memory, LENGTH, MPOL_BIND, &mask, 64, 0)) {
		perror("known");
		return 1;
	}
	memset(memory, 1, LENGTH);

	MARK(1);
	/* Nothing between the marks but this: no stack, no variable in memory. */
	__asm__ volatile("test %[loads], %[loads]\n\t"
			 "jz 2f\n"
			 "1:\tmovq (%[memory], %[at]), %%rax\n\t"
			 "addq $4160, %[at]\n\t"
			 "andq $0x3ffff8, %[at]\n\t"
			 "decq %[loads]\n\t"
			 "jnz 1b\n"
			 "2:\ttest %[stores], %[stores]\n\t"
			 "jz 4f\n"
			 "3:\tmovq %%rax, (%[memory], %[at])\n\t"
			 "addq $4160, %[at]\n\t"
			 "andq $0x3ffff8, %[at]\n\t"
			 "decq %[stores]\n\t"
			 "jnz 3b\n"
			 "4:"
			 : [loads] "+r"(loads), [stores] "+r"(stores), [at] "+r"(at)
			 : [memory] "r"(memory)
			 : "rax", "memory", "cc");
	MARK(0);

	printf("%lu %lu\n", (unsigned long)memory, LENGTH);
	return 0;
}
