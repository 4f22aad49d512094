// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an access costs: nothing where a model of the node's cache has the line, else the latency from the CPU's node to the
 * memory's, which is added to the guest's clock.
 *
 * Each node has one cache for its CPUs: set-associative, by physical address, of the line that was used least recently the place is
 * taken. A line that is written leaves the caches of other nodes. Writing costs what reading does: the line is fetched.
 *
 * There is one clock, and CPUs run in turn. So only those pay that run processes, or the kernel for them: what a CPU does that was
 * halted, and is only waked by a timer, would be felt by the others.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "memctl.h"

#define LINE_BITS 6
#define MAX_WAYS 64
/* Timers come late by as much as was added since translated code was last left. */
#define LEAVE_NS 20000

static int64_t price[MAX_NODES][MAX_NODES];
static uint64_t *cache[MAX_NODES]; /* sets of ways, the last used first; 0: empty, else a line's number and 1 */
static unsigned int cache_kb, ways, sets;
/* Which nodes may have a line, by a hash of it. */
#define HOLDERS (1u << 20)
static uint64_t *holders;
static int64_t since_left;
static struct lap *lap_of; /* laps of CPUs */
static bool felt;

bool priced, only_model;
unsigned int laps;

/* `price=INITIATOR:TARGET=NS` and `cache=KB/WAYS`: 1 when it was one of them, -1 when one that cannot be, else 0. */
int price_option(const char *text)
{
	unsigned int from, to, ns;

	if (sscanf(text, "price=%u:%u=%u", &from, &to, &ns) == 3) {
		if (from >= MAX_NODES || to >= MAX_NODES || !ns)
			return -1;
		price[from][to] = ns;
		priced = true;
		return 1;
	}
	if (sscanf(text, "cache=%u/%u", &cache_kb, &ways) != 2)
		return 0;
	sets = ways ? (cache_kb << (10 - LINE_BITS)) / ways : 0;
	return !sets || ways > MAX_WAYS || sets & (sets - 1) ? -1 : 1;
}

/* Why it is not known where the guest's clock of instructions is; NULL when it is. Known when QEMU has started. */
static const char *clock_unknown(void)
{
	ElfW(Sym) *symbol = NULL;
	Dl_info info;

	if (!&use_icount || !use_icount)
		return "the guest's clock is not that of instructions";
	if (!&timers_state)
		return "this QEMU does not export timers_state";
	if (!dladdr1(&timers_state, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol)
		return "how large timers_state is cannot be told";
	if (symbol->st_size != sizeof(struct timers))
		return "timers_state is not what it was in QEMU 7.2 and 10.0";
	return NULL;
}

/* Why the guest does not feel what accesses cost; NULL when it does. */
const char *clock_problem(void)
{
	return only_model ? "its clock was to be left alone" : clock_unknown();
}

/* After all options: what is wrong with them, or NULL. */
const char *price_problem(void)
{
	if (!priced)
		return NULL;
	if (!sets)
		return "prices need a cache";
	for (unsigned int c = 0; c < cpus; c++)
		for (unsigned int n = 0; n < nodes; n++)
			if (has_memory(n) && !price[cpu[c].node][n])
				return "a price is missing";
	for (unsigned int c = 0; c < cpus; c++)
		if (!cache[cpu[c].node])
			cache[cpu[c].node] = calloc((size_t)sets * ways, sizeof(**cache));
	holders = calloc(HOLDERS, sizeof(*holders));
	lap_of = calloc((size_t)MAX_LAPS * MAX_CPUS, sizeof(*lap_of));
	return holders && lap_of ? NULL : "no memory";
}

/* Nothing is in any cache. */
void cold(void)
{
	if (!priced)
		return;
	felt = !clock_problem();
	for (unsigned int n = 0; n < MAX_NODES; n++)
		if (cache[n])
			memset(cache[n], 0, (size_t)sets * ways * sizeof(**cache));
	memset(holders, 0, HOLDERS * sizeof(*holders));
}

static void drop(unsigned int node, uint64_t line)
{
	uint64_t *set = cache[node] + (line & (sets - 1)) * ways;
	unsigned int way = 0;

	while (way < ways && set[way] != line + 1)
		way++;
	if (way == ways)
		return;
	for (; way + 1 < ways; way++)
		set[way] = set[way + 1];
	set[ways - 1] = 0;
}

static void charge(unsigned int number, int64_t ns)
{
	cpu[number].stall_ns += ns;
	if (!felt)
		return;
	/* Others write it only while this thread does not run. */
	__atomic_store_n(&timers_state.bias, timers_state.bias + ns, __ATOMIC_RELAXED);
	since_left += ns;
	if (since_left >= LEAVE_NS) {
		since_left = 0;
		cpu_exit(qemu_get_cpu(number));
	}
}

/* For an access of a CPU to the memory of a node, if there is such a node. */
void pay(unsigned int number, unsigned int node, uint64_t physical, bool store)
{
	struct cpu *this = &cpu[number];
	uint64_t line = physical >> LINE_BITS, mine = 1ul << this->node;
	uint64_t *set = cache[this->node] + (line & (sets - 1)) * ways;
	uint64_t *who = &holders[line & (HOLDERS - 1)];
	unsigned int way = 0;

	if (node >= nodes)
		return;
	if (store && unlikely(*who & ~mine)) {
		for (unsigned int n = 0; n < nodes; n++)
			if (n != this->node && *who >> n & 1)
				drop(n, line);
		*who &= mine;
	}
	if (set[0] == line + 1)
		return;
	while (way < ways - 1 && set[way] != line + 1)
		way++;
	if (set[way] != line + 1) {
		*who |= mine;
		if (this->busy) {
			this->misses[node]++;
			charge(number, price[this->node][node]);
		}
	}
	memmove(set + 1, set, way * sizeof(*set));
	set[0] = line + 1;
}

/* How far each CPU has come, as of now. */
void take_lap(void)
{
	for (unsigned int c = 0; priced && laps < MAX_LAPS && c < cpus; c++)
		lap_of[laps * MAX_CPUS + c] = (struct lap){ cpu[c].instructions, cpu[c].stall_ns };
	laps++;
}

/* NULL: there was no room for it. */
const struct lap *lap(unsigned int number, unsigned int of_cpu)
{
	return priced && number < MAX_LAPS ? &lap_of[number * MAX_CPUS + of_cpu] : NULL;
}

/* The guest's clock, as far as it can be read in the middle of translated code; -1: not at all. */
int64_t now(void)
{
	if (!&use_icount || !use_icount)
		return qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
	/* Instructions since translated code was last entered are missing. */
	return clock_unknown() ? -1 : timers_state.bias + (timers_state.instructions << timers_state.shift);
}

void forget_prices(void)
{
	laps = 0;
	for (unsigned int c = 0; c < MAX_CPUS; c++) {
		cpu[c].instructions = cpu[c].stall_ns = 0;
		memset(cpu[c].misses, 0, sizeof(cpu[c].misses));
	}
}
