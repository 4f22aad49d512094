// SPDX-License-Identifier: GPL-2.0-only
/* The tracepoint mm_migrate_on_fault, by a trace instance of its own, as text: its words are part of what is tested. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

#define INSTANCE "/sys/kernel/tracing/instances/mof-policy"

static int pipe_fd = -1;
static char text[1 << 18];

static void enable(const char *value)
{
	int file = open(INSTANCE "/events/migrate/mm_migrate_on_fault/enable", O_WRONLY | O_CLOEXEC);

	need("tracepoint", file >= 0);
	need("tracepoint", write(file, value, 1) == 1);
	close(file);
}

void trace_begin(void)
{
	need("trace instance", !mkdir(INSTANCE, 0755) || errno == EEXIST);
	enable("1");
	pipe_fd = open(INSTANCE "/trace_pipe", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	need("trace_pipe", pipe_fd >= 0);
}

void trace_end(void)
{
	enable("0");
	close(pipe_fd);
	rmdir(INSTANCE);
}

static void drain(void)
{
	size_t used = 0;
	ssize_t got;

	while (used < sizeof(text) - 1 && (got = read(pipe_fd, text + used, sizeof(text) - 1 - used)) > 0)
		used += got;
	text[used] = '\0';
}

void trace_forget(void)
{
	do
		drain();
	while (*text);
}

int trace_answers(const struct area *area, struct answer *answers, int most)
{
	char *line, *rest = text;
	int found = 0;

	drain();
	if (strstr(text, "LOST"))
		return -1;
	while ((line = strsep(&rest, "\n"))) {
		struct answer a = { 0 };
		unsigned long address;

		line = strstr(line, "addr=");
		if (!line || sscanf(line, "addr=%lx src_pfn=%*x dst_pfn=%*x src_nid=%d dst_nid=%d order=%u mode=%31s origin=%15s result=%31s",
				    &address, &a.from, &a.to, &a.order, a.mode, a.origin, a.result) != 7)
			continue;
		if (address < (uintptr_t)area->at || address >= (uintptr_t)area->at + area->unit * area->units)
			continue;
		a.unit = (address - (uintptr_t)area->at) / area->unit;
		if (found == most)
			return -1;
		answers[found++] = a;
	}
	return found;
}
