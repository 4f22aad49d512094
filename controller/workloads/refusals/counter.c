// SPDX-License-Identifier: GPL-2.0-only
/* Counters of /proc/vmstat, after the differences that each CPU keeps were added up. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

static const char *const names[] = {
	"pgmigrate_on_fault_misplaced", "pgmigrate_on_fault", "pgmigrate_on_fault_fail", "mpol_lazy_unmapped",
	"mpol_lazy_fail", "pgmigrate_success", "ksm_swpin_copy",
};
enum { COUNTERS = sizeof(names) / sizeof(*names) };

static long last[COUNTERS];
static char text[1 << 15];

static void read_all(void)
{
	int file = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
	size_t used = 0;
	ssize_t got;

	need("stat_refresh", !write_file("/proc/sys/vm/stat_refresh", "1"));
	need("/proc/vmstat", file >= 0);
	while (used < sizeof(text) - 1 && (got = read(file, text + used, sizeof(text) - 1 - used)) > 0)
		used += got;
	text[used] = '\0';
	close(file);
}

static long value_of(const char *name)
{
	size_t length = strlen(name);
	const char *at = text;

	while (at && (strncmp(at, name, length) || at[length] != ' ')) {
		at = strchr(at, '\n');
		if (at)
			at++;
	}
	need(name, at);
	return atol(at + length);
}

long counter(const char *name)
{
	read_all();
	return value_of(name);
}

void counters_begin(void)
{
	read_all();
	for (int n = 0; n < COUNTERS; n++)
		last[n] = value_of(names[n]);
}

void put_counters(void)
{
	long before[COUNTERS];

	memcpy(before, last, sizeof(before));
	counters_begin();
	for (int n = 0; n < COUNTERS; n++)
		put_number(names[n], last[n] - before[n]);
}
