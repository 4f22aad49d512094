// SPDX-License-Identifier: GPL-2.0-only
/*
 * Random numbers, nodes, CPUs, policies, counters. System calls are made without libnuma.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

#ifndef MPOL_MF_LAZY
#define MPOL_MF_LAZY (1 << 3)
#endif
#define MOST_NODES 64

static int nodes[MOST_NODES], n_nodes;
static int cpus[CPU_SETSIZE], n_cpus;

/* splitmix64 */
uint64_t mix(uint64_t z)
{
	z += 0x9e3779b97f4a7c15ULL;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

uint64_t next(struct random *r)
{
	return mix(r->state++);
}

unsigned long below(struct random *r, unsigned long below)
{
	return next(r) % below;
}

/* Lists as the kernel writes them: 0-2,5 */
static int read_list(const char *path, int *into, int room)
{
	char text[256] = "";
	int fd = open(path, O_RDONLY), found = 0;
	ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	for (char *at = text; got > 0 && *at >= '0' && *at <= '9';) {
		long first = strtol(at, &at, 10), last = first;

		if (*at == '-')
			last = strtol(at + 1, &at, 10);
		for (; first <= last && found < room; first++)
			into[found++] = (int)first;
		if (*at == ',')
			at++;
	}
	return found;
}

void learn_machine(void)
{
	cpu_set_t set;

	n_nodes = read_list("/sys/devices/system/node/has_memory", nodes, MOST_NODES);
	if (!n_nodes)
		n_nodes = 1;
	if (sched_getaffinity(0, sizeof(set), &set))
		CPU_ZERO(&set);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set))
			cpus[n_cpus++] = cpu;
}

void to_random_cpu(struct random *r)
{
	cpu_set_t set;

	if (!n_cpus)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpus[below(r, (unsigned long)n_cpus)], &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		refused();
}

/* One node, or for interleaving all of them. */
static unsigned long random_policy(struct random *r, int *mode)
{
	static const int modes[] = { MPOL_BIND, MPOL_BIND, MPOL_PREFERRED, MPOL_INTERLEAVE };
	unsigned long mask = 0;

	*mode = modes[below(r, sizeof(modes) / sizeof(*modes))];
	if (*mode != MPOL_INTERLEAVE)
		return 1UL << nodes[below(r, (unsigned long)n_nodes)];
	for (int i = 0; i < n_nodes; i++)
		mask |= 1UL << nodes[i];
	return mask;
}

void bind_randomly(struct random *r, void *at, size_t length, enum move move)
{
	static const unsigned int flags[] = {
		[MOVE_NONE] = 0,
		[MOVE_DIRECT] = MPOL_MF_MOVE,
		[MOVE_LAZY] = MPOL_MF_MOVE | MPOL_MF_LAZY,
	};
	int mode;
	unsigned long mask = random_policy(r, &mode);

	if (syscall(SYS_mbind, at, length, mode, &mask, MOST_NODES + 1UL, flags[move]))
		refused();
}

void prefer_randomly(struct random *r)
{
	unsigned long mask = 1UL << nodes[below(r, (unsigned long)n_nodes)];

	if (syscall(SYS_set_mempolicy, MPOL_PREFERRED, &mask, MOST_NODES + 1UL))
		refused();
}

long vmstat(const char *name)
{
	size_t length = strlen(name);
	char line[128];
	long value = -1;
	FILE *file = fopen("/proc/sys/vm/stat_refresh", "w");

	if (file) {
		fputs("1\n", file);
		fclose(file);
	}
	file = fopen("/proc/vmstat", "r");
	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, name, length) && line[length] == ' ')
			value = strtol(line + length, NULL, 10);
	if (file)
		fclose(file);
	return value;
}
