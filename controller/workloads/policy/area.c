// SPDX-License-Identifier: GPL-2.0-only
/* An area of private anonymous memory, of pages or of huge pages. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

#define HUGE ((size_t)2 << 20)
/* Where nothing else is: interleaving goes by addresses, which should be the same each time. */
#define PLACE ((void *)0x10000000000)
#define PRESENT (1ULL << 63)
#define SWAPPED (1ULL << 62)

static void map(char *at, size_t length, bool huge)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	need("mmap", mmap(at, length, PROT_READ | PROT_WRITE, flags, -1, 0) == at);
	need("madvise", !madvise(at, length, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE));
}

/* Between margins that nothing may access, so that it stays an area of its own: neighbours with equal policies merge. */
void area_map(struct area *area, struct area *twin, const struct combination *c)
{
	size_t length, room;
	char *base, *moved;

	area->unit = c->huge ? HUGE : page_size;
	area->units = c->units;
	length = area->unit * area->units;
	room = 2 * length + 2 * HUGE + c->shift * page_size;
	base = mmap(PLACE, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	need("mmap", base == PLACE);
	area->at = base + HUGE + (c->huge ? 0 : c->rotate * page_size);
	map(area->at, length, c->huge);
	area_fill(area);
	*twin = *area;
	if (!c->shift && !c->huge)
		return;
	moved = area->at + length + (c->huge ? HUGE : c->shift * page_size);
	need("mremap", mremap(area->at, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, moved) == moved);
	area->at = moved;
	if (c->huge)
		map(twin->at, length, true);
	else
		twin->at = moved;
}

static size_t pages(const struct area *area)
{
	return area->unit / page_size * area->units;
}

/* The second of a page: the first is there to be touched. */
static volatile uint64_t *word(const struct area *area, size_t page)
{
	return (volatile uint64_t *)(area->at + page * page_size) + 1;
}

/* Every page has contents of its own. */
static uint64_t pattern(size_t page)
{
	return 0x9e3779b97f4a7c15ULL * (page + 1);
}

void area_fill(const struct area *area)
{
	for (size_t page = 0; page < pages(area); page++)
		*word(area, page) = pattern(page);
}

size_t area_mismatches(const struct area *area)
{
	size_t wrong = 0;

	for (size_t page = 0; page < pages(area); page++)
		wrong += *word(area, page) != pattern(page);
	return wrong;
}

static void addresses(const struct area *area, void **found)
{
	for (int unit = 0; unit < area->units; unit++)
		found[unit] = area->at + unit * area->unit;
}

void area_put(const struct area *area, const int *nodes)
{
	int status[MOST_UNITS];
	void *at[MOST_UNITS];

	addresses(area, at);
	need("move_pages", !syscall(SYS_move_pages, 0, (unsigned long)area->units, at, nodes, status, MF_MOVE));
	area_nodes(area, status);
	for (int unit = 0; unit < area->units; unit++) {
		if (status[unit] != nodes[unit]) {
			errno = status[unit] < 0 ? -status[unit] : EBUSY;
			stop("putting pages on nodes");
		}
	}
}

void area_nodes(const struct area *area, int *nodes)
{
	void *at[MOST_UNITS];

	addresses(area, at);
	need("move_pages", !syscall(SYS_move_pages, 0, (unsigned long)area->units, at, NULL, nodes, 0));
}

static void look(const struct area *area, uint64_t bit, bool *found)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	need("pagemap", pagemap >= 0);
	for (int unit = 0; unit < area->units; unit++) {
		off_t at = ((uintptr_t)area->at + unit * area->unit) / page_size * sizeof(uint64_t);
		uint64_t entry;

		need("pagemap", pread(pagemap, &entry, sizeof(entry), at) == sizeof(entry));
		found[unit] = entry & bit;
	}
	close(pagemap);
}

void area_out(const struct area *area, bool *out)
{
	look(area, SWAPPED, out);
}

void area_present(const struct area *area, bool *present)
{
	look(area, PRESENT, present);
}

static unsigned long parse_list(const char *text)
{
	unsigned long found = 0;

	while (*text >= '0' && *text <= '9') {
		char *end;
		unsigned long first = strtoul(text, &end, 10), last = first;

		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		for (; first <= last && first < MOST_NODES; first++)
			found |= 1UL << first;
		text = *end == ',' ? end + 1 : end;
	}
	return found;
}

unsigned long area_policy_nodes(const struct area *area)
{
	FILE *maps = fopen("/proc/self/numa_maps", "re");
	unsigned long nodes = 0;
	bool seen = false;
	char line[4096];

	need("numa_maps", maps);
	while (!seen && fgets(line, sizeof(line), maps)) {
		char *list = strchr(line, ':');

		seen = strtoul(line, NULL, 16) == (uintptr_t)area->at;
		if (seen && list)
			nodes = parse_list(list + 1);
	}
	fclose(maps);
	if (!seen) {
		errno = ENOENT;
		stop("numa_maps");
	}
	return nodes;
}

bool area_is_huge(const struct area *area)
{
	unsigned long start, end, kb, total = 0;
	FILE *maps = fopen("/proc/self/smaps", "re");
	bool ours = false;
	char line[4096];

	need("smaps", maps);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			ours = start == (uintptr_t)area->at;
		else if (ours && sscanf(line, "AnonHugePages: %lu", &kb) == 1)
			total = kb;
	}
	fclose(maps);
	return total * 1024 == area->unit * area->units;
}
