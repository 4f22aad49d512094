// SPDX-License-Identifier: GPL-2.0-only
/* On which CPU a thread runs, and on which node memory is. System calls are made without libnuma. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

#ifndef MPOL_MF_LAZY
#define MPOL_MF_LAZY (1 << 3)	/* EINVAL since v6.7 on a kernel without the series */
#endif
/* The kernel takes one off: "maxnode" is one more than the bits it reads. */
#define MAXNODE (MAX_NODES + 1UL)
/* Pages that are asked for in one call. */
#define BATCH 512

void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		failed("sched_setaffinity");
}

int own_node(void)
{
	unsigned int node;

	if (syscall(SYS_getcpu, NULL, &node, NULL))
		failed("getcpu");
	return (int)node;
}

static void bind_to(void *at, size_t bytes, int node, unsigned int flags, const char *doing)
{
	uint64_t mask = UINT64_C(1) << node;

	if (syscall(SYS_mbind, at, bytes, MPOL_BIND, &mask, MAXNODE, flags))
		failed(doing);
}

void *area(size_t bytes, int node)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		failed("mmap");
	/* EINVAL: a kernel that has no huge pages. */
	if (madvise(at, bytes, MADV_NOHUGEPAGE) && errno != EINVAL)
		failed("madvise");
	if (node >= 0)
		bind_to(at, bytes, node, 0, "mbind");
	return at;
}

void move_to(void *at, size_t bytes, int node, bool lazily)
{
	if (lazily)
		bind_to(at, bytes, node, MPOL_MF_MOVE | MPOL_MF_LAZY, "mbind, lazily");
	else
		bind_to(at, bytes, node, MPOL_MF_MOVE, "mbind");
}

void locate(const void *at, size_t bytes, struct whereabouts *w)
{
	const char *page = at;
	const void *asked[BATCH];
	int found[BATCH];

	memset(w, 0, sizeof(*w));
	for (size_t left = bytes / PAGE, count; left; left -= count) {
		count = left < BATCH ? left : BATCH;
		for (size_t i = 0; i < count; i++, page += PAGE)
			asked[i] = page;
		if (syscall(SYS_move_pages, 0, count, asked, NULL, found, 0))
			failed("move_pages");
		for (size_t i = 0; i < count; i++) {
			if (found[i] >= 0 && found[i] < MAX_NODES)
				w->on[found[i]]++;
			else
				w->absent++;
		}
	}
}
