// SPDX-License-Identifier: GPL-2.0-only
/* Private anonymous memory, and what the cases do with it. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

#define MASK_BITS 65UL		/* the kernel takes one off (get_nodes(), mm/mempolicy.c) */
#define BATCH 1024		/* pages a call of move_pages(2) */
#define MOST_SHOWN 64

static size_t bytes(const struct area *area)
{
	return area->unit * area->units;
}

static char *unit_at(const struct area *area, int unit)
{
	return area->at + unit * area->unit;
}

/* Between margins that nothing may access, so that it does not merge with neighbours. */
struct area area_empty(int units, size_t unit)
{
	struct area area = {.unit = unit, .units = units};
	char *room;

	room = mmap(NULL, bytes(&area) + 3 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	need("mmap", room != MAP_FAILED);
	area.at = (char *)(((uintptr_t)room + 2 * HUGE - 1) & ~(HUGE - 1));
	need("mmap", mmap(area.at, bytes(&area), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == area.at);
	need("madvise", !madvise(area.at, bytes(&area), unit == HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE));
	area.salt = (uintptr_t)area.at;
	return area;
}

static uint64_t pattern(const struct area *area, size_t word)
{
	return 0x9e3779b97f4a7c15ULL * (word + 1) + area->salt + 0x10001ULL * area->generation;
}

void area_fill(struct area *area)
{
	area->generation++;
	for (size_t word = 0; word < bytes(area) / sizeof(uint64_t); word++)
		((volatile uint64_t *)area->at)[word] = pattern(area, word);
}

long mismatches(const struct area *area)
{
	long wrong = 0;

	for (size_t word = 0; word < bytes(area) / sizeof(uint64_t); word++)
		wrong += ((volatile uint64_t *)area->at)[word] != pattern(area, word);
	return wrong;
}

/* With `node` below 0: only where they are. */
static void move_or_look(const struct area *area, int node, int *status)
{
	static void *at[BATCH];
	static int nodes[BATCH];

	for (int done = 0; done < area->units; done += BATCH) {
		int count = area->units - done < BATCH ? area->units - done : BATCH;

		for (int n = 0; n < count; n++) {
			at[n] = unit_at(area, done + n);
			nodes[n] = node;
		}
		need("move_pages", syscall(SYS_move_pages, 0, (unsigned long)count, at, node < 0 ? NULL : nodes, status + done,
					   MF_MOVE) >= 0);
	}
}

void area_put(const struct area *area, int node)
{
	int *status = calloc(area->units, sizeof(*status));

	need("calloc", status);
	move_or_look(area, node, status);
	move_or_look(area, -1, status);
	for (int n = 0; n < area->units; n++) {
		if (status[n] != node) {
			errno = status[n] < 0 ? -status[n] : EBUSY;
			stop("putting pages on a node");
		}
	}
	free(status);
	counters_begin();
}

struct area area_on(int node, int units, size_t unit)
{
	struct area area = area_empty(units, unit);

	area_fill(&area);
	area_put(&area, node);
	return area;
}

void area_drop(struct area *area)
{
	need("munmap", !munmap(area->at, bytes(area)));
	area->units = 0;
}

int area_node(const struct area *area)
{
	int *status = calloc(area->units, sizeof(*status)), node;

	need("calloc", status);
	move_or_look(area, -1, status);
	node = status[0] < 0 ? -1 : status[0];
	for (int n = 1; n < area->units; n++)
		if (status[n] != node)
			node = -1;
	free(status);
	return node;
}

bool area_is_out(const struct area *area)
{
	for (int n = 0; n < area->units; n++)
		if (frame_of(unit_at(area, n)))
			return false;
	return true;
}

long set_policy(const struct area *area, int mode, int node, int flags)
{
	unsigned long nodes = mode == POLICY_DEFAULT ? 0 : 1UL << node;

	return syscall(SYS_mbind, area->at, bytes(area), mode, nodes ? &nodes : NULL, nodes ? MASK_BITS : 0, flags);
}

void step_done(const char *name, const struct area *area)
{
	step_begin(name);
	put_counters();
	put_traced(area);
	step_end();
}

static void step_answered(const char *name, const struct area *area, const char *what, long answer)
{
	step_begin(name);
	put_number(what, answer);
	put_counters();
	put_traced(area);
	step_end();
}

void lazy(const char *name, const struct area *area, int node, int more_flags)
{
	long answer = set_policy(area, POLICY_BIND, node, MF_LAZY | (more_flags & MF_MOVE_ALL ? 0 : MF_MOVE) | more_flags);

	step_answered(name, area, "errno", answer ? errno : 0);
}

void touch(const char *name, const struct area *area)
{
	for (int n = 0; n < area->units; n++)
		(void)*(volatile uint64_t *)unit_at(area, n);
	step_done(name, area);
}

void check(const char *name, const struct area *area)
{
	step_answered(name, area, "mismatches", mismatches(area));
}

void rewrite(const char *name, struct area *area)
{
	area_fill(area);
	check(name, area);
}

void look(const char *name, const struct area *area)
{
	static int status[1 << 16];
	long frames[MOST_SHOWN], maps[MOST_SHOWN], flags[MOST_SHOWN], nodes[MOST_SHOWN];
	int count = area->units < MOST_SHOWN ? area->units : MOST_SHOWN;

	move_or_look(area, -1, status);
	for (int n = 0; n < count; n++) {
		nodes[n] = status[n];
		frames[n] = frame_of(unit_at(area, n));
		maps[n] = frames[n] ? frame_maps(frames[n]) : 0;
		flags[n] = frames[n] ? frame_flags(frames[n]) : 0;
	}
	step_begin(name);
	put_numbers("nodes", nodes, count);
	put_numbers("frames", frames, count);
	put_numbers("maps", maps, count);
	put_numbers("flags", flags, count);
	step_end();
}

/* By unmapping something (unmap_region(), mm/vma.c). */
void drain(void)
{
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	need("mmap", page != MAP_FAILED);
	*(volatile char *)page = 1;
	need("munmap", !munmap(page, PAGE));
}

void again(const char *name, struct area *area, int node)
{
	char step[64];

	snprintf(step, sizeof(step), "%s_lazy", name);
	lazy(step, area, node, 0);
	snprintf(step, sizeof(step), "%s_touch", name);
	touch(step, area);
	drain();
	snprintf(step, sizeof(step), "%s_look", name);
	look(step, area);
	snprintf(step, sizeof(step), "%s_check", name);
	check(step, area);
}
