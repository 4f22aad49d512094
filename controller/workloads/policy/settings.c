// SPDX-License-Identifier: GPL-2.0-only
/* What counts for all processes of the machine, and the cpuset. All of it is put back at the end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

#define ROOT "/sys/fs/cgroup"
#define GROUP ROOT "/mof-policy"
#define SYSCTL "/proc/sys/vm/migrate_on_fault"

/* What else moves pages, or has them move in other ways, where a kernel has it. */
static const char *const off[] = {
	"/proc/sys/kernel/numa_balancing",
	"/proc/sys/vm/migrate_on_fault_around",
	"/proc/sys/vm/migrate_on_fault_hinting",
	"/proc/sys/vm/migrate_on_fault_follow",
};
#define OFF (sizeof(off) / sizeof(*off))

static struct {
	char sysctl[16], off[OFF][16];		/* "" where there is no such file */
	char weights[MOST_NODES][16];
} before;
static struct {
	int sysctl;
	unsigned char weights[MOST_NODES];
} current;
static bool controlled;		/* the root's children had cpusets before */

static void read_file(const char *path, char *text, size_t room)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = 0;

	if (file >= 0) {
		got = read(file, text, room - 1);
		close(file);
	}
	text[got > 0 ? got : 0] = '\0';
}

static void write_file(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);

	need(path, file >= 0);
	need(path, write(file, text, strlen(text)) == (ssize_t)strlen(text));
	close(file);
}

static const char *weight_file(int node)
{
	static char path[80];

	snprintf(path, sizeof(path), "/sys/kernel/mm/mempolicy/weighted_interleave/node%d", node);
	return path;
}

static void remove_group(void)
{
	/* Who has just been waited for may be counted for a moment still. */
	for (int tries = 0; rmdir(GROUP) && errno == EBUSY && tries < 500; tries++)
		usleep(10000);
}

void settings_begin(void)
{
	char controllers[256];

	read_file(ROOT "/cgroup.subtree_control", controllers, sizeof(controllers));
	controlled = strstr(controllers, "cpuset");
	write_file(ROOT "/cgroup.subtree_control", "+cpuset");
	need(GROUP, !mkdir(GROUP, 0755) || errno == EEXIST);
	read_file(SYSCTL, before.sysctl, sizeof(before.sysctl));
	for (size_t n = 0; n < OFF; n++) {
		read_file(off[n], before.off[n], sizeof(before.off[n]));
		if (*before.off[n])
			write_file(off[n], "0");
	}
	for (int node = 0; node < MOST_NODES; node++)
		read_file(weight_file(node), before.weights[node], sizeof(before.weights[node]));
	current.sysctl = -1;
}

void settings_for(const struct combination *c)
{
	char text[16];

	if (current.sysctl != c->sysctl) {
		snprintf(text, sizeof(text), "%d", c->sysctl);
		write_file(SYSCTL, text);
		current.sysctl = c->sysctl;
	}
	for (int node = 0; node < MOST_NODES; node++) {
		if (!c->weights[node] || c->weights[node] == current.weights[node])
			continue;
		snprintf(text, sizeof(text), "%d", c->weights[node]);
		write_file(weight_file(node), text);
		current.weights[node] = c->weights[node];
	}
}

void settings_end(void)
{
	remove_group();
	if (!controlled)
		write_file(ROOT "/cgroup.subtree_control", "-cpuset");
	if (*before.sysctl)
		write_file(SYSCTL, before.sysctl);
	for (size_t n = 0; n < OFF; n++)
		if (*before.off[n])
			write_file(off[n], before.off[n]);
	for (int node = 0; node < MOST_NODES; node++)
		if (current.weights[node])
			write_file(weight_file(node), before.weights[node]);
}

void cpuset_change(unsigned long nodes)
{
	char list[4 * MOST_NODES] = "", *end = list;

	for (int node = 0; node < MOST_NODES; node++)
		if (nodes >> node & 1)
			end += sprintf(end, "%s%d", end == list ? "" : ",", node);
	write_file(GROUP "/cpuset.mems", list);
}

void cpuset_join(unsigned long nodes)
{
	cpuset_change(nodes);
	write_file(GROUP "/cgroup.procs", "0");
}
