// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is done with a combination, in a process of its own. The pages of an area are put on nodes in turn and unmapped
 * lazily while the process may use all nodes. Then come policy and cpuset, in the order that is asked for. What the
 * kernel makes of each page when it is touched is one thing; where fresh pages come from at the same addresses, after
 * that, under the very same policy, is the other. Both are told, and not compared here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

#ifndef SYS_set_mempolicy_home_node
#define SYS_set_mempolicy_home_node 450
#endif

static void run_on(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	need("sched_setaffinity", !sched_setaffinity(0, sizeof(cpus), &cpus));
}

static unsigned long allowed(void)
{
	unsigned long nodes = 0;

	need("get_mempolicy", !syscall(SYS_get_mempolicy, NULL, &nodes, MASK_BITS, NULL, F_MEMS_ALLOWED));
	return nodes;
}

/* Each of the nodes in turn, and one further with each round, so that they do not keep step with interleaving. */
static void starts(const struct area *area, unsigned long nodes, int rotate, int *start)
{
	int known[MOST_NODES], count = 0;

	for (int node = 0; node < MOST_NODES; node++)
		if (nodes >> node & 1)
			known[count++] = node;
	for (int unit = 0; unit < area->units; unit++)
		start[unit] = known[(unit + unit / count + rotate) % count];
}

static void unmap_lazily(const struct area *area)
{
	/* To the default policy: then no page is where it should be, and none stays mapped. */
	need("mbind lazily", !syscall(SYS_mbind, area->at, area->unit * area->units, MODE_DEFAULT, NULL, 0UL, MF_MOVE | MF_LAZY));
}

/* The errno of what sets the policy, 0 when it was taken. */
static int set_policy(const struct area *area, const struct combination *c, int move)
{
	unsigned long length = area->unit * area->units, mode = c->mode | c->flags;
	const unsigned long *nodes = c->nodes ? &c->nodes : NULL;

	if (c->task)
		return syscall(SYS_set_mempolicy, mode, nodes, MASK_BITS) ? errno : 0;
	return syscall(SYS_mbind, area->at, length, mode, nodes, MASK_BITS, move) ? errno : 0;
}

static int set_home(const struct area *area, const struct combination *c)
{
	if (c->home < 0)
		return 0;
	return syscall(SYS_set_mempolicy_home_node, area->at, area->unit * area->units, (unsigned long)c->home, 0UL) ? errno : 0;
}

static void touch(const struct area *area, bool write)
{
	for (int unit = 0; unit < area->units; unit++) {
		volatile uint64_t *at = (volatile uint64_t *)(area->at + unit * area->unit);

		/*
		 * A store, to a word that holds nothing: what reads and writes at once reads first where an emulator runs
		 * all CPUs in one thread, and so has two faults.
		 */
		if (write)
			*at = 1;
		else
			(void)*at;
	}
}

static void tell_numbers(const char *name, const int *numbers, int count)
{
	printf(", \"%s\": [", name);
	for (int n = 0; n < count; n++)
		printf("%s%d", n ? ", " : "", numbers[n]);
	printf("]");
}

static void tell_answers(const struct answer *answers, int count)
{
	printf(", \"answers\": [");
	for (int n = 0; n < count; n++)
		printf("%s[%d, %d, %d, %u, \"%s\", \"%s\", \"%s\"]", n ? ", " : "", answers[n].unit, answers[n].from,
		       answers[n].to, answers[n].order, answers[n].mode, answers[n].origin, answers[n].result);
	printf("]");
}

void try_combination(const struct combination *c)
{
	static struct answer answers[2 * MOST_UNITS];
	int start[MOST_UNITS], final[MOST_UNITS], fresh[MOST_UNITS], out[MOST_UNITS];
	int refused, home, count;
	unsigned long effective;
	size_t mismatches;
	bool swapped[MOST_UNITS];
	struct area area, twin;

	run_on(c->cpu);
	area_map(&area, &twin, c);
	if (c->huge && !area_is_huge(&area)) {
		errno = ENOMEM;
		stop("making huge pages");
	}
	starts(&area, allowed(), c->rotate, start);
	area_put(&area, start);
	if (!c->direct)
		unmap_lazily(&area);

	if (c->enter)
		cpuset_join(c->enter);
	if (c->rival)
		need("set_mempolicy", !syscall(SYS_set_mempolicy, MODE_BIND, &c->rival, MASK_BITS));
	refused = set_policy(&area, c, c->direct ? MF_MOVE | MF_LAZY : 0);
	if (refused) {
		printf("{\"id\": %ld, \"refused\": %d}\n", c->id, refused);
		return;
	}
	home = set_home(&area, c);
	if (twin.at != area.at)
		need("the policy once more", !set_policy(&twin, c, 0) && !set_home(&twin, c));
	if (c->then && c->enter)
		cpuset_change(c->then);
	else if (c->then)
		cpuset_join(c->then);
	run_on(c->cpu);

	area_out(&area, swapped);
	effective = area_policy_nodes(&area);
	trace_forget();
	touch(&area, c->write);
	count = trace_answers(&area, answers, 2 * MOST_UNITS);
	if (count < 0) {
		errno = EOVERFLOW;
		stop("tracing");
	}
	area_nodes(&area, final);
	mismatches = area_mismatches(&area);

	need("madvise", !madvise(area.at, area.unit * area.units, MADV_DONTNEED));
	touch(&twin, true);
	area_nodes(&twin, fresh);
	if (c->huge && !area_is_huge(&twin)) {
		errno = ENOMEM;
		stop("making fresh huge pages");
	}

	for (int unit = 0; unit < area.units; unit++)
		out[unit] = swapped[unit];
	printf("{\"id\": %ld, \"refused\": 0, \"home\": %d, \"cpu\": %d, \"allowed\": %lu, \"effective\": %lu, \"mismatches\": %zu",
	       c->id, home, sched_getcpu(), allowed(), effective, mismatches);
	tell_numbers("start", start, area.units);
	tell_numbers("out", out, area.units);
	tell_numbers("final", final, area.units);
	tell_numbers("fresh", fresh, area.units);
	tell_answers(answers, count);
	printf("}\n");
}
