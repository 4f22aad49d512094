// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tracepoint mm_migrate_on_fault, by a trace instance of its own, of this process and those that it forks. Read as
 * text: its words are part of what is tested.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

#define INSTANCE "/sys/kernel/tracing/instances/mof-refusals"
#define ENABLE INSTANCE "/events/migrate/mm_migrate_on_fault/enable"

static int pipe_fd = -1;
static char text[1 << 20], json[1 << 20];

static void read_pipe(void)
{
	size_t used = 0;
	ssize_t got;

	while (used < sizeof(text) - 1 && (got = read(pipe_fd, text + used, sizeof(text) - 1 - used)) > 0)
		used += got;
	text[used] = '\0';
	if (strstr(text, "LOST")) {
		errno = EOVERFLOW;
		stop("trace");
	}
}

void trace_begin(void)
{
	char pid[16];

	need("trace instance", !mkdir(INSTANCE, 0755) || errno == EEXIST);
	snprintf(pid, sizeof(pid), "%d", getpid());
	need("event-fork", !write_file(INSTANCE "/options/event-fork", "1"));
	need("set_event_pid", !write_file(INSTANCE "/set_event_pid", pid));
	pipe_fd = open(INSTANCE "/trace_pipe", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	need("trace_pipe", pipe_fd >= 0);
	trace_go_on();
}

void trace_pause(void)
{
	need("tracepoint", !write_file(ENABLE, "0"));
}

void trace_go_on(void)
{
	need("tracepoint", !write_file(ENABLE, "1"));
}

/* By the guard, which has not opened it. */
void trace_end(void)
{
	if (access(INSTANCE, F_OK))
		return;
	write_file(ENABLE, "0");
	rmdir(INSTANCE);
}

/* The number between the last hyphen before the CPU's bracket, and that: the name of a task may have hyphens, too. */
static int pid_in(char *line)
{
	char *bracket = strstr(line, " [");

	while (bracket && bracket > line && *bracket != '-')
		bracket--;
	return bracket ? atoi(bracket + 1) : 0;
}

void put_traced(const struct area *area)
{
	char *line, *rest = text, *end = json, *at;

	read_pipe();
	end += sprintf(end, "[");
	while ((line = strsep(&rest, "\n"))) {
		char mode[32], origin[16], result[32];
		unsigned long address, source, target;
		unsigned int order;
		int from, to;

		at = strstr(line, "addr=");
		if (!at || sscanf(at, "addr=%lx src_pfn=%lx dst_pfn=%lx src_nid=%d dst_nid=%d order=%u mode=%31s origin=%15s result=%31s",
				  &address, &source, &target, &from, &to, &order, mode, origin, result) != 9)
			continue;
		if (address < (uintptr_t)area->at || address >= (uintptr_t)area->at + area->unit * area->units)
			continue;
		end += sprintf(end, "%s{\"unit\": %ld, \"pid\": %d, \"source\": %lu, \"target\": %lu, \"from\": %d, \"to\": %d, "
			       "\"order\": %u, \"origin\": \"%s\", \"result\": \"%s\"}",
			       end == json + 1 ? "" : ", ", (long)((address - (uintptr_t)area->at) / area->unit), pid_in(line),
			       source, target, from, to, order, origin, result);
		if (end > json + sizeof(json) - 1024) {
			errno = EOVERFLOW;
			stop("trace");
		}
	}
	sprintf(end, "]");
	put_raw("traced", json);
}
