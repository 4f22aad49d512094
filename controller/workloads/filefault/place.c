// SPDX-License-Identifier: GPL-2.0-only
/* Policies, and where pages are; see common.h. */
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

#define PRESENT (1ULL << 63)

unsigned long parse_nodes(const char *step, const char *text)
{
	unsigned long mask = 0;

	for (char *end; *text; text = *end ? end + 1 : end) {
		unsigned long node = strtoul(text, &end, 10);

		if (end == text || node >= MOST_NODES)
			stop(step, EINVAL);
		mask |= 1UL << node;
	}
	return mask;
}

void task_policy(const char *step, const char *nodes, int mode)
{
	unsigned long mask;

	if (!strcmp(nodes, "-")) {
		need(step, !syscall(SYS_set_mempolicy, POLICY_DEFAULT, NULL, 0UL));
	} else {
		mask = parse_nodes(step, nodes);
		need(step, !syscall(SYS_set_mempolicy, mode, &mask, MOST_NODES + 1UL));
	}
	done(step);
}

/* NODES[:FLAG...], where each flag is a word. */
void area_policy(const char *step, const char *value)
{
	static const struct {
		const char *word;
		unsigned int flag;
	} known[] = {{"strict", MF_STRICT}, {"move", MF_MOVE}, {"all", MF_MOVE_ALL}, {"lazy", MF_LAZY}};
	unsigned int flags = 0;
	unsigned long mask;
	char *text = strdup(value), *word, *rest = text;

	need(step, text);
	mask = parse_nodes(step, strsep(&rest, ":"));
	while ((word = strsep(&rest, ":"))) {
		bool found = false;

		for (size_t n = 0; n < sizeof(known) / sizeof(*known); n++) {
			if (!strcmp(word, known[n].word)) {
				flags |= known[n].flag;
				found = true;
			}
		}
		if (!found)
			stop(step, EINVAL);
	}
	free(text);
	need(step, !syscall(SYS_mbind, now.area, now.pages * page_size, POLICY_BIND, &mask, MOST_NODES + 1UL, flags));
	done(step);
}

/* Any mbind() with a MOVE flag does it first (lru_cache_disable(), mm/mempolicy.c). */
void drain(const char *step)
{
	char *page = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	need(step, page != MAP_FAILED);
	need(step, !syscall(SYS_mbind, page, page_size, POLICY_DEFAULT, NULL, 0UL, MF_MOVE));
	munmap(page, page_size);
	done(step);
}

void where(const char *step)
{
	void **addresses = calloc(now.pages, sizeof(*addresses));
	int *nodes = calloc(now.pages, sizeof(*nodes));

	need(step, addresses && nodes);
	for (size_t page = 0; page < now.pages; page++)
		addresses[page] = now.area + page * page_size;
	need(step, syscall(SYS_move_pages, 0, now.pages, addresses, NULL, nodes, 0) >= 0);
	printf("{\"step\": \"%s\", \"ok\": true, \"nodes\": [", step);
	for (size_t page = 0; page < now.pages; page++)
		printf("%s%d", page ? ", " : "", nodes[page]);
	printf("]}\n");
	free(addresses);
	free(nodes);
}

void present(const char *step)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);

	need(step, fd >= 0);
	printf("{\"step\": \"%s\", \"ok\": true, \"pages\": [", step);
	for (size_t page = 0, first = 1; page < now.pages; page++) {
		uint64_t entry = 0;
		off_t at = (uintptr_t)(now.area + page * page_size) / page_size * sizeof(entry);

		if (pread(fd, &entry, sizeof(entry), at) != sizeof(entry))
			stop(step, EIO);
		if (entry & PRESENT) {
			printf("%s%zu", first ? "" : ", ", page);
			first = 0;
		}
	}
	printf("]}\n");
	close(fd);
}

/* kB of the area that are mapped by huge entries, by /proc/self/smaps. */
void huge(const char *step)
{
	FILE *maps = fopen("/proc/self/smaps", "r");
	unsigned long start, kb, total = 0;
	bool ours = false;
	char line[512];

	need(step, maps);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%*x ", &start) == 1 && strchr(line, '-'))
			ours = start >= (unsigned long)now.area &&
			       start < (unsigned long)now.area + now.pages * page_size;
		else if (ours && (sscanf(line, "ShmemPmdMapped: %lu", &kb) == 1 || sscanf(line, "FilePmdMapped: %lu", &kb) == 1))
			total += kb;
	}
	fclose(maps);
	printf("{\"step\": \"%s\", \"ok\": true, \"kb\": %lu}\n", step, total);
}
