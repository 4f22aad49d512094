// SPDX-License-Identifier: GPL-2.0-only
/* What was counted: by process, by page, and over time by range of addresses. */
#include <stdlib.h>
#include <string.h>

#include "memctl.h"

#define MAX_PAGES (1u << 22)

struct process *process[MAX_PROCESSES];
unsigned int processes;
struct page *pages; /* a hash table: what is there is where its hash says, or in the next free places */
unsigned int places;
uint64_t overflow;
static unsigned int pages_used;

struct process *process_of(uint64_t table)
{
	struct process *new;

	for (unsigned int i = 0; i < processes; i++)
		if (process[i]->table == table)
			return process[i];
	if (processes == MAX_PROCESSES)
		return NULL;
	new = calloc(1, sizeof(*new));
	if (!new)
		return NULL;
	new->table = table;
	new->window = new->left = FIRST_WINDOW;
	new->shift = PAGE_BITS;
	process[processes++] = new;
	return new;
}

static unsigned int place_of(const struct process *of, uint64_t number)
{
	uint64_t hash = (number ^ of->table) * 0x9e3779b97f4a7c15u;
	unsigned int i = (hash >> 32) & (places - 1);

	while (pages[i].process && (pages[i].process != of || pages[i].number != number))
		i = (i + 1) & (places - 1);
	return i;
}

static bool grow(void)
{
	struct page *old = pages;
	unsigned int had = places;

	if (places >= 2 * MAX_PAGES)
		return false;
	places = places ? 2 * places : 1u << 12;
	pages = calloc(places, sizeof(*pages));
	if (!pages) {
		pages = old;
		places = had;
		return false;
	}
	for (unsigned int i = 0; i < had; i++)
		if (old[i].process)
			pages[place_of(old[i].process, old[i].number)] = old[i];
	free(old);
	return true;
}

/* The page's counts by node, the last those of no node; NULL: there is no room. */
struct count *page_of(struct process *of, uint64_t number)
{
	unsigned int i;

	if (2 * pages_used >= places && !grow())
		return NULL;
	i = place_of(of, number);
	if (!pages[i].process) {
		struct count *counts = calloc(nodes + 1, sizeof(*counts));

		if (!counts)
			return NULL;
		pages[i] = (struct page){ number, of, counts, period };
		pages_used++;
	}
	if (pages[i].period != period) {
		memset(pages[i].of, 0, (nodes + 1) * sizeof(*pages[i].of));
		pages[i].period = period;
	}
	return pages[i].of;
}

static unsigned int index_of(struct process *of, uint64_t range)
{
	unsigned int i = 0;

	while (i < of->ranges && of->range[i] != range)
		i++;
	return i;
}

static void add(struct share *to, const struct share *what)
{
	to->local += what->local;
	to->remote += what->remote;
}

/* Ranges of twice the size: two that are one now come together in all that was counted. */
static void widen(struct process *of)
{
	unsigned int to[MAX_RANGES], had = of->ranges;
	struct share *all[MAX_ROWS + 1];

	of->shift++;
	of->ranges = 0;
	for (unsigned int i = 0; i < had; i++) {
		uint64_t range = of->range[i] >> 1;

		to[i] = index_of(of, range);
		of->ranges += to[i] == of->ranges;
		of->range[to[i]] = range;
	}
	for (unsigned int r = 0; r < of->rows; r++)
		all[r] = of->row[r]->of;
	all[of->rows] = of->now;
	for (unsigned int r = 0; r <= of->rows; r++)
		for (unsigned int i = 0; i < had; i++) {
			struct share was = all[r][i];

			/* Where it goes to was read before: it is never further on. */
			all[r][i] = (struct share){ 0, 0 };
			add(&all[r][to[i]], &was);
		}
	/* Nobody may count on where it was. */
	for (unsigned int c = 0; c < cpus; c++)
		cpu[c].era++;
}

/* Where accesses to the range of an address are counted, until the next call of this or of end_row() for a process. */
uint64_t *range_of(struct process *of, uint64_t address, bool local)
{
	unsigned int i = index_of(of, address >> of->shift);

	while (i == MAX_RANGES) {
		widen(of);
		i = index_of(of, address >> of->shift);
	}
	if (i == of->ranges)
		of->range[of->ranges++] = address >> of->shift;
	return local ? &of->now[i].local : &of->now[i].remote;
}

void end_row(struct process *of)
{
	struct row *row;

	if (of->rows == MAX_ROWS) {
		for (unsigned int i = 0; i < MAX_ROWS; i += 2) {
			for (unsigned int r = 0; r < of->ranges; r++)
				add(&of->row[i + 1]->of[r], &of->row[i]->of[r]);
			free(of->row[i]);
			of->row[i / 2] = of->row[i + 1];
		}
		of->rows = MAX_ROWS / 2;
		of->window *= 2;
	}
	of->left = of->window;
	row = calloc(1, sizeof(*row));
	if (!row) {
		overflow++;
		return;
	}
	row->ns = now();
	memcpy(row->of, of->now, sizeof(row->of));
	memset(of->now, 0, sizeof(of->now));
	of->row[of->rows++] = row;
}

/* What has begun since the last whole row is a row too. */
void end_rows(void)
{
	for (unsigned int p = 0; p < processes; p++)
		if (process[p]->left != process[p]->window)
			end_row(process[p]);
}

void forget_tally(void)
{
	for (unsigned int i = 0; i < places; i++)
		free(pages[i].of);
	free(pages);
	pages = NULL;
	places = pages_used = 0;
	while (processes) {
		struct process *one = process[--processes];

		while (one->rows)
			free(one->row[--one->rows]);
		free(one);
	}
	overflow = 0;
}
