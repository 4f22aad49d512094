// SPDX-License-Identifier: GPL-2.0-only
/*
 * Takes the steps that its arguments name, in order, on one area of private anonymous memory. After each step it prints
 * a line of JSON, {"step": NAME, "ok": true, ...}, or with "ok": false and "errno", and then it ends with status 1.
 *
 *   map=N             a new area of N pages, none of them touched
 *   bind=NODE         mbind() the area to a node
 *   lazy=NODE         the same with MPOL_MF_MOVE | MPOL_MF_LAZY
 *   prefer=NODE       set_mempolicy() of the task
 *   lock              mlock() the area
 *   cpu=NODE          run on the first CPU of the node only
 *   fill, touch       write a pattern to each page; read it again ("mismatches")
 *   where             on which node is how many pages ("nodes": {NODE: N}; -2 is ENOENT: in no page table)
 *   state             how many pages are "present", and how many "swapped", by /proc/self/pagemap
 *   watch=SECONDS[:N] compute, for so many seconds of CPU time or until N pages are "swapped". "samples": each change as
 *                     [microseconds of the sample before, microseconds, swapped], by the guest's CLOCK_MONOTONIC
 *   write=TEXT:PATH   one write() to a file
 *   join=FOLDER       write the own pid to the cgroup's cgroup.procs
 *   sh=COMMAND        by sh(1), whose $PPID is this program ("status")
 *   thread            one more thread, which does nothing
 *   fork              go on in a child, while the parent waits
 *   into=FOLDER       the same, and the child starts in that cgroup (CLONE_INTO_CGROUP)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* linux/mempolicy.h of the build host may not know the flag. */
enum { POLICY_PREFERRED = 1, POLICY_BIND = 2, MF_MOVE = 1 << 1, MF_LAZY = 1 << 3 };
#define MOST_NODES 64
#define MOST_SAMPLES 4096
#define SAMPLE_US 3000
#define PRESENT (1ULL << 63)
#define SWAPPED (1ULL << 62)

static size_t page_size, pages;
static char *area;

struct counts {
	size_t present, swapped;
};

static _Noreturn void stop(const char *step, int error)
{
	printf("{\"step\": \"%s\", \"ok\": false, \"errno\": %d, \"error\": \"%s\"}\n", step, error, strerror(error));
	exit(1);
}

static void need(const char *step, int fine)
{
	if (!fine)
		stop(step, errno);
}

static void done(const char *step)
{
	printf("{\"step\": \"%s\", \"ok\": true}\n", step);
}

static void map(const char *step, const char *value)
{
	pages = strtoul(value, NULL, 0);
	area = mmap(NULL, pages * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(step, area != MAP_FAILED);
	need(step, !madvise(area, pages * page_size, MADV_NOHUGEPAGE));
	done(step);
}

static void bind_area(const char *step, const char *node, unsigned flags)
{
	unsigned long mask = 1UL << atoi(node);

	need(step, !syscall(SYS_mbind, area, pages * page_size, POLICY_BIND, &mask, (unsigned long)MOST_NODES + 1, flags));
	done(step);
}

static void prefer(const char *step, const char *node)
{
	unsigned long mask = 1UL << atoi(node);

	need(step, !syscall(SYS_set_mempolicy, POLICY_PREFERRED, &mask, (unsigned long)MOST_NODES + 1));
	done(step);
}

static void run_on(const char *step, const char *node)
{
	char path[80];
	cpu_set_t cpus;
	unsigned cpu;
	FILE *list;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", atoi(node));
	list = fopen(path, "r");
	need(step, list != NULL);
	if (fscanf(list, "%u", &cpu) != 1)
		stop(step, ENODEV);
	fclose(list);
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	need(step, !sched_setaffinity(0, sizeof(cpus), &cpus));
	done(step);
}

/* Every page has contents of its own. */
static uint64_t pattern(size_t page)
{
	return 0x9e3779b97f4a7c15ULL * (page + 1);
}

static void fill(const char *step)
{
	for (size_t page = 0; page < pages; page++)
		*(volatile uint64_t *)(area + page * page_size) = pattern(page);
	done(step);
}

static void touch(const char *step)
{
	size_t mismatches = 0;

	for (size_t page = 0; page < pages; page++)
		mismatches += *(volatile uint64_t *)(area + page * page_size) != pattern(page);
	printf("{\"step\": \"%s\", \"ok\": true, \"mismatches\": %zu}\n", step, mismatches);
}

static void where(const char *step)
{
	void **addresses = calloc(pages, sizeof(*addresses));
	int *status = calloc(pages, sizeof(*status));
	size_t on[MOST_NODES] = { 0 }, absent = 0;
	const char *comma = "";

	need(step, addresses && status);
	for (size_t page = 0; page < pages; page++)
		addresses[page] = area + page * page_size;
	need(step, !syscall(SYS_move_pages, 0, pages, addresses, NULL, status, 0));
	for (size_t page = 0; page < pages; page++) {
		if (status[page] >= 0 && status[page] < MOST_NODES)
			on[status[page]]++;
		else if (status[page] == -ENOENT)
			absent++;
		else
			stop(step, -status[page]);
	}
	printf("{\"step\": \"%s\", \"ok\": true, \"nodes\": {", step);
	if (absent) {
		printf("\"%d\": %zu", -ENOENT, absent);
		comma = ", ";
	}
	for (int node = 0; node < MOST_NODES; node++) {
		if (on[node]) {
			printf("%s\"%d\": %zu", comma, node, on[node]);
			comma = ", ";
		}
	}
	puts("}}");
	free(addresses);
	free(status);
}

static struct counts look(const char *step, int pagemap)
{
	struct counts found = { 0, 0 };
	uint64_t entries[512];

	for (size_t page = 0; page < pages;) {
		size_t some = pages - page < 512 ? pages - page : 512;
		off_t at = ((uintptr_t)area / page_size + page) * sizeof(*entries);

		need(step, pread(pagemap, entries, some * sizeof(*entries), at) == (ssize_t)(some * sizeof(*entries)));
		for (size_t i = 0; i < some; i++) {
			found.present += !!(entries[i] & PRESENT);
			found.swapped += !!(entries[i] & SWAPPED);
		}
		page += some;
	}
	return found;
}

static int open_pagemap(const char *step)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	need(step, pagemap >= 0);
	return pagemap;
}

static void state(const char *step)
{
	int pagemap = open_pagemap(step);
	struct counts now = look(step, pagemap);

	close(pagemap);
	printf("{\"step\": \"%s\", \"ok\": true, \"present\": %zu, \"swapped\": %zu}\n", step, now.present, now.swapped);
}

static long microseconds(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static void watch(const char *step, const char *value)
{
	long most, start = microseconds(CLOCK_MONOTONIC), before = start, now = start;
	long cpu = microseconds(CLOCK_THREAD_CPUTIME_ID);
	int pagemap = open_pagemap(step);
	struct counts last = look(step, pagemap), found = last;
	const char *comma = "";
	size_t enough;
	char *rest;
	int samples = 0;

	most = strtod(value, &rest) * 1e6;
	enough = *rest == ':' ? strtoul(rest + 1, NULL, 0) : SIZE_MAX;
	printf("{\"step\": \"%s\", \"ok\": true, \"samples\": [", step);
	do {
		do
			now = microseconds(CLOCK_MONOTONIC);
		while (now - before < SAMPLE_US);
		found = look(step, pagemap);
		if (found.swapped != last.swapped && samples < MOST_SAMPLES) {
			/* Counted before the time is taken, or else a step between the two would seem to come early. */
			now = microseconds(CLOCK_MONOTONIC);
			printf("%s[%ld, %ld, %zu]", comma, before - start, now - start, found.swapped);
			comma = ", ";
			samples++;
			last = found;
		}
		before = now;
	} while (microseconds(CLOCK_THREAD_CPUTIME_ID) - cpu < most && found.swapped < enough);
	printf("], \"seconds\": %.3f, \"swapped\": %zu}\n", (now - start) / 1e6, found.swapped);
	close(pagemap);
}

static void write_to(const char *step, const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);

	need(step, file >= 0);
	need(step, write(file, text, strlen(text)) == (ssize_t)strlen(text));
	close(file);
	done(step);
}

static void write_text(const char *step, const char *value)
{
	const char *colon = strchr(value, ':');
	char text[80];

	if (!colon || (size_t)(colon - value) >= sizeof(text))
		stop(step, EINVAL);
	memcpy(text, value, colon - value);
	text[colon - value] = 0;
	write_to(step, colon + 1, text);
}

static void join(const char *step, const char *folder)
{
	char path[4096], pid[32];

	snprintf(path, sizeof(path), "%s/cgroup.procs", folder);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	write_to(step, path, pid);
}

static void shell(const char *step, const char *command)
{
	int status;

	fflush(stdout);
	status = system(command);
	printf("{\"step\": \"%s\", \"ok\": true, \"status\": %d}\n", step, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static void *idle(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void add_thread(const char *step)
{
	pthread_t thread;
	int error = pthread_create(&thread, NULL, idle, NULL);

	if (error)
		stop(step, error);
	done(step);
}

/* The child returns; the parent ends as the child did. */
static void go_on_in_child(const char *step, const char *folder)
{
	struct clone_args how = { .exit_signal = SIGCHLD };
	int status = 0;
	long child;

	fflush(stdout);
	if (folder) {
		how.flags = CLONE_INTO_CGROUP;
		how.cgroup = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		need(step, (int)how.cgroup >= 0);
	}
	child = syscall(SYS_clone3, &how, sizeof(how));
	need(step, child >= 0);
	if (child) {
		need(step, waitpid(child, &status, 0) == child);
		exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
	}
	done(step);
}

int main(int count, char **arguments)
{
	page_size = sysconf(_SC_PAGESIZE);
	for (int i = 1; i < count; i++) {
		char *step = arguments[i], *value = strchr(step, '=');

		if (value)
			*value++ = 0;
		if (value && !strcmp(step, "map"))
			map(step, value);
		else if (value && !strcmp(step, "bind"))
			bind_area(step, value, 0);
		else if (value && !strcmp(step, "lazy"))
			bind_area(step, value, MF_MOVE | MF_LAZY);
		else if (value && !strcmp(step, "prefer"))
			prefer(step, value);
		else if (value && !strcmp(step, "cpu"))
			run_on(step, value);
		else if (value && !strcmp(step, "watch"))
			watch(step, value);
		else if (value && !strcmp(step, "write"))
			write_text(step, value);
		else if (value && !strcmp(step, "join"))
			join(step, value);
		else if (value && !strcmp(step, "sh"))
			shell(step, value);
		else if (value && !strcmp(step, "into"))
			go_on_in_child(step, value);
		else if (!strcmp(step, "fork"))
			go_on_in_child(step, NULL);
		else if (!strcmp(step, "lock")) {
			need(step, !mlock(area, pages * page_size));
			done(step);
		} else if (!strcmp(step, "fill"))
			fill(step);
		else if (!strcmp(step, "touch"))
			touch(step);
		else if (!strcmp(step, "where"))
			where(step);
		else if (!strcmp(step, "state"))
			state(step);
		else if (!strcmp(step, "thread"))
			add_thread(step);
		else {
			fprintf(stderr, "control: no such step, or no value: %s\n", step);
			return 2;
		}
		fflush(stdout);
	}
	return 0;
}
