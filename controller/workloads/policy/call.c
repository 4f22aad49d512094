// SPDX-License-Identifier: GPL-2.0-only
/*
 * Calls of mbind() as they are told, right or wrong, each in a process of its own, on an area of pages that lie on one
 * node under a policy that prefers it. Told is what the call gave, and what can be seen of the area before and after.
 *
 * A line: `ID WORD=VALUE ...`
 *
 *   start=N, length=N   bytes; start is counted from the area's first page
 *   mode=N, flags=N     as they are handed over
 *   nodes=N|none|wild   the mask, no mask, an address where nothing is
 *   high=N              the mask's second word
 *   maxnode=N
 *   hole=FIRST-LAST     pages that are not there
 *   nice=0              without CAP_SYS_NICE
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

#define PAGES 8
#define NODE 1

struct call {
	long id;
	unsigned long start, length, mode, flags, maxnode;
	unsigned long mask[2];
	const void *nodes;
	int hole_first, hole_last;	/* none if the last is less */
	bool nice;
};

static struct call call;

static void read_call(char *line)
{
	char *word = strsep(&line, " ");

	call = (struct call){ .id = atol(word), .length = PAGES * page_size, .nodes = call.mask, .maxnode = MASK_BITS,
			      .hole_last = -1, .nice = true };
	while ((word = strsep(&line, " "))) {
		char *value = strchr(word, '=');
		unsigned long number;

		if (!value) {
			errno = EINVAL;
			stop(word);
		}
		*value++ = '\0';
		number = strtoul(value, NULL, 0);
		if (!strcmp(word, "start"))
			call.start = number;
		else if (!strcmp(word, "length"))
			call.length = number;
		else if (!strcmp(word, "mode"))
			call.mode = number;
		else if (!strcmp(word, "flags"))
			call.flags = number;
		else if (!strcmp(word, "nodes") && !strcmp(value, "none"))
			call.nodes = NULL;
		else if (!strcmp(word, "nodes") && !strcmp(value, "wild"))
			call.nodes = (void *)16;
		else if (!strcmp(word, "nodes"))
			call.mask[0] = number;
		else if (!strcmp(word, "high"))
			call.mask[1] = number;
		else if (!strcmp(word, "maxnode"))
			call.maxnode = number;
		else if (!strcmp(word, "hole"))
			need(word, sscanf(value, "%d-%d", &call.hole_first, &call.hole_last) == 2);
		else if (!strcmp(word, "nice"))
			call.nice = number;
		else {
			errno = EINVAL;
			stop(word);
		}
	}
}

static bool in_hole(int page)
{
	return page >= call.hole_first && page <= call.hole_last;
}

/* The counter's value, -1 where there is none. */
static long unmapped(void)
{
	int refresh = open("/proc/sys/vm/stat_refresh", O_WRONLY | O_CLOEXEC);
	FILE *stat = fopen("/proc/vmstat", "re");
	char line[128];
	long found = -1;

	need("stat_refresh", refresh >= 0 && write(refresh, "1", 1) == 1);
	close(refresh);
	need("vmstat", stat);
	while (found < 0 && fgets(line, sizeof(line), stat))
		if (sscanf(line, "mpol_lazy_unmapped %ld", &found) != 1)
			found = -1;
	fclose(stat);
	return found;
}

static void give_up_nice(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	need("capget", !syscall(SYS_capget, &header, data));
	data[0].effective &= ~(1U << CAP_SYS_NICE);
	need("capset", !syscall(SYS_capset, &header, data));
}

/* "modes", "masks", "present", "nodes" of all pages; for those in the hole, -1. */
static void tell_area(const char *name, const struct area *area)
{
	int modes[PAGES], nodes[PAGES];
	unsigned long masks[PAGES];
	bool present[PAGES];

	area_present(area, present);
	area_nodes(area, nodes);
	for (int page = 0; page < PAGES; page++) {
		modes[page] = -1;
		masks[page] = 0;
		if (!in_hole(page))
			need("get_mempolicy", !syscall(SYS_get_mempolicy, &modes[page], &masks[page], MASK_BITS,
						       area->at + page * page_size, F_ADDR));
	}
	printf(", \"%s\": [", name);
	for (int page = 0; page < PAGES; page++)
		printf("%s[%d, %lu, %d, %d]", page ? ", " : "", modes[page], masks[page], present[page],
		       in_hole(page) ? -1 : nodes[page]);
	printf("]");
}

static void try_call(void)
{
	static const struct combination shape = { .units = PAGES };
	int nodes[PAGES], error;
	unsigned long own = 1UL << NODE;
	struct area area, twin;
	long before;

	area_map(&area, &twin, &shape);
	for (int page = 0; page < PAGES; page++)
		nodes[page] = NODE;
	area_put(&area, nodes);
	need("mbind", !syscall(SYS_mbind, area.at, PAGES * page_size, MODE_PREFERRED, &own, MASK_BITS, 0));
	if (call.hole_last >= call.hole_first)
		need("munmap", !munmap(area.at + call.hole_first * page_size,
				       (call.hole_last - call.hole_first + 1) * page_size));
	if (!call.nice)
		give_up_nice();
	printf("{\"id\": %ld", call.id);
	tell_area("before", &area);
	before = unmapped();
	error = syscall(SYS_mbind, area.at + call.start, call.length, call.mode, call.nodes, call.maxnode, call.flags) ? errno : 0;
	printf(", \"errno\": %d, \"unmapped\": %ld", error, before < 0 ? -1 : unmapped() - before);
	tell_area("after", &area);
	printf("}\n");
}

void try_calls(void)
{
	char *line = NULL;
	size_t room = 0;

	while (getline(&line, &room, stdin) > 0) {
		pid_t child;

		line[strcspn(line, "\n")] = '\0';
		read_call(line);
		doing_id = call.id;
		fflush(stdout);
		child = fork();
		need("fork", child >= 0);
		if (!child) {
			try_call();
			fflush(stdout);
			_exit(0);
		}
		need("waitpid", waitpid(child, NULL, 0) == child);
	}
	free(line);
}
