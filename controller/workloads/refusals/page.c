// SPDX-License-Identifier: GPL-2.0-only
/* Page frames, by /proc/self/pagemap, /proc/kpagecount and /proc/kpageflags: nothing here touches a page. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>

#include "common.h"

#define PRESENT (1ULL << 63)
#define WRITE_PROTECTED (1ULL << 57)
#define FRAME ((1ULL << 55) - 1)

static uint64_t entry_of(const char *path, unsigned long index)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t entry;

	need(path, file >= 0);
	need(path, pread(file, &entry, sizeof(entry), index * sizeof(entry)) == sizeof(entry));
	close(file);
	return entry;
}

unsigned long frame_of(const void *address)
{
	uint64_t entry = entry_of("/proc/self/pagemap", (uintptr_t)address / PAGE);

	return entry & PRESENT ? entry & FRAME : 0;
}

bool is_write_protected(const void *address)
{
	return entry_of("/proc/self/pagemap", (uintptr_t)address / PAGE) & WRITE_PROTECTED;
}

long frame_maps(unsigned long frame)
{
	return entry_of("/proc/kpagecount", frame);
}

long frame_flags(unsigned long frame)
{
	return entry_of("/proc/kpageflags", frame);
}
