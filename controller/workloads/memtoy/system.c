// SPDX-License-Identifier: GPL-2.0-only
/* What the process may use: nodes (numa, mems) and CPUs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "common.h"

static bool node_memory(int node, unsigned long long *total_kb, unsigned long long *free_kb)
{
	char path[64], line[128];
	int found = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	f = fopen(path, "re");
	while (f && found < 2 && fgets(line, sizeof(line), f)) {
		found += sscanf(line, "Node %*d MemTotal: %llu", total_kb) == 1;
		found += sscanf(line, "Node %*d MemFree: %llu", free_kb) == 1;
	}
	if (f)
		fclose(f);
	return found == 2;
}

void do_numa(struct command *c, struct outcome *o)
{
	unsigned long long total, available;
	const char *comma = "";
	struct set nodes;

	if (!nothing_left(c, o))
		return;
	if (!allowed_nodes(&nodes)) {
		failed(o, errno, "get_mempolicy");
		return;
	}
	put(o, "nodes", "[");
	say(o, "node    total MB     free MB\n");
	for (int n = 0; n < MAX_NODES; n++) {
		if (!set_has(&nodes, n) || !node_memory(n, &total, &available))
			continue;
		text_add(&o->result, "%s{\"node\": %d, \"total_kb\": %llu, \"free_kb\": %llu}", comma, n, total, available);
		comma = ", ";
		say(o, "%4d %11.1f %11.1f\n", n, (double)total / 1024, (double)available / 1024);
	}
	text_add(&o->result, "]");
}

/* A list (0-3,5) or a mask in hex (0x2f, as taskset has it). */
static bool parse_mask_or_list(const char *word, const char *what, int limit, struct outcome *o, struct set *s)
{
	uint64_t mask;

	if (strncasecmp(word, "0x", 2))
		return parse_set(word, what, limit, o, s);
	memset(s, 0, sizeof(*s));
	if (!parse_number(word, false, &mask) || !mask)
		return wrong(o, "'%s' is no mask of %s (hex, up to 64 bits, one of them set)", word, what);
	for (int n = 0; n < 64; n++)
		if (mask >> n & 1)
			set_add(s, n);
	return true;
}

static void show_set(struct outcome *o, const char *name, const struct set *s)
{
	put_set(o, name, s);
	if (json_output)
		return;
	text_add(&o->human, "%s ", name);
	set_print(s, &o->human);
	text_add(&o->human, "\n");
}

void do_cpus(struct command *c, struct outcome *o)
{
	const char *word = take(c);
	struct set cpus = { 0 };

	if (word && (!parse_mask_or_list(word, "CPUs", SET_BITS, o, &cpus) || !nothing_left(c, o)))
		return;
	if (word) {
		timed_begin(o);
		if (syscall(SYS_sched_setaffinity, 0, sizeof(cpus.bits), cpus.bits))
			failed(o, errno, "sched_setaffinity (is there such a CPU?)");
		timed_end(o);
		memset(&cpus, 0, sizeof(cpus));
	}
	if (o->status == DONE && syscall(SYS_sched_getaffinity, 0, sizeof(cpus.bits), cpus.bits) < 0)
		failed(o, errno, "sched_getaffinity");
	if (o->status == DONE)
		show_set(o, "cpus", &cpus);
}

/*
 * No system call sets mems_allowed: a cpuset does. memtoy makes a control group (version 2) of its own below the root
 * of the hierarchy and moves in. The kernel then moves pages that lie outside to the new nodes by itself, as it does
 * for every cpuset of version 2.
 */
static struct {
	char root[PATH_MAX / 2];	/* where cgroup2 is mounted */
	char group[PATH_MAX / 2 + 64];	/* ours, "" as long as there is none */
	pid_t owner;
} cpuset;

static int write_file(const char *folder, const char *name, const char *value)
{
	char path[PATH_MAX];
	int fd, err = 0;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	if (write(fd, value, strlen(value)) < 0)
		err = errno;
	close(fd);
	return err;
}

static bool find_cgroup2(void)
{
	FILE *f = fopen("/proc/self/mounts", "re");
	char line[PATH_MAX], type[32];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f))
		found = sscanf(line, "%*s %2047s %31s", cpuset.root, type) == 2 && !strcmp(type, "cgroup2");
	if (f)
		fclose(f);
	return found;
}

static bool enter_cpuset(struct outcome *o, const char *nodes)
{
	int err;

	if (*cpuset.group && cpuset.owner == getpid()) {
		err = write_file(cpuset.group, "cpuset.mems", nodes);
		return !err || failed(o, err, "%s/cpuset.mems", cpuset.group);
	}
	if (!find_cgroup2())
		return failed(o, EOPNOTSUPP, "mems is set by a cpuset, and no cgroup2 is mounted");
	err = write_file(cpuset.root, "cgroup.subtree_control", "+cpuset");
	if (err)
		return failed(o, err, "%s/cgroup.subtree_control does not take +cpuset", cpuset.root);
	snprintf(cpuset.group, sizeof(cpuset.group), "%s/memtoy.%d", cpuset.root, (int)getpid());
	cpuset.owner = getpid();
	if (mkdir(cpuset.group, 0755) && errno != EEXIST) {
		err = errno;
		failed(o, err, "%s", cpuset.group);
		*cpuset.group = '\0';
		return false;
	}
	/* Nodes first: a process may not enter a cpuset that is limited to nothing it could use. */
	err = write_file(cpuset.group, "cpuset.mems", nodes);
	if (!err)
		err = write_file(cpuset.group, "cgroup.procs", "0");
	if (!err)
		return true;
	failed(o, err, "cannot enter %s with nodes %s", cpuset.group, nodes);
	rmdir(cpuset.group);
	*cpuset.group = '\0';
	return false;
}

void mems_end(void)
{
	if (!*cpuset.group || cpuset.owner != getpid())
		return;
	write_file(cpuset.root, "cgroup.procs", "0");
	rmdir(cpuset.group);	/* stays when a child is still in it */
}

void do_mems(struct command *c, struct outcome *o)
{
	const char *word = take(c);
	struct text list = { 0 };
	struct set nodes;

	if (word) {
		if (!parse_mask_or_list(word, "nodes", MAX_NODES, o, &nodes) || !nothing_left(c, o))
			return;
		text_reset(&list);
		set_print(&nodes, &list);
		timed_begin(o);
		enter_cpuset(o, list.at);
		timed_end(o);
		free(list.at);
	}
	if (o->status == DONE && !allowed_nodes(&nodes))
		failed(o, errno, "get_mempolicy");
	if (o->status == DONE)
		show_set(o, "nodes", &nodes);
}
