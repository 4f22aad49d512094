/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts of the memory-controller plugin know of each other. memctl.c tells what it is. */
#ifndef MEMCTL_H
#define MEMCTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "qemu.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

#define MAX_NODES 64
#define NOWHERE MAX_NODES /* devices, and what could not be told */
#define MAX_CPUS 64
#define MAX_PROCESSES 64
#define SLOTS 4096 /* of each CPU's memory of where pages are: 16 MB of them */
#define NO_PAGE UINT64_MAX
#define PAGE_BITS 12

/* The series has a row every so many accesses of a process: of twice as many whenever there is no more room. */
#define MAX_ROWS 512
#define FIRST_WINDOW (1u << 12)
/* Each row has so many ranges: of twice the size whenever there is no more room. */
#define MAX_RANGES 128
#define MAX_LAPS 4096

struct count {
	uint64_t reads, writes;
};

/* Local: of the node of the CPU that accesses. */
struct share {
	uint64_t local, remote;
};

struct row {
	int64_t ns; /* of the guest's clock at its end, -1 where that cannot be read */
	struct share of[MAX_RANGES];
};

struct process {
	uint64_t table; /* physical address of its page table, 0: unknown */
	struct count of[MAX_CPUS][MAX_NODES + 1];
	uint32_t window, left;
	unsigned int shift; /* a range is that many bits of addresses */
	unsigned int ranges;
	uint64_t range[MAX_RANGES]; /* addresses, shifted */
	struct share now[MAX_RANGES];
	unsigned int rows;
	struct row *row[MAX_ROWS];
};

struct page {
	uint64_t number;
	struct process *process; /* NULL: there is none here */
	struct count *of;	 /* by node, since counting last went on and the page was accessed */
	unsigned int period;
};

/* What is known of a page that a CPU accesses, until its kernel has run. */
struct slot {
	uint64_t page;
	unsigned long era;
	uint64_t frame; /* physical address, less that of the page */
	unsigned int node;
	struct process *process;
	struct count *count, *of_page;
	uint64_t *share;
};

struct cpu {
	struct slot slots[SLOTS];
	unsigned long era; /* goes on whenever the kernel has run: it may have mapped something else; from 1 */
	unsigned int node;
	bool busy; /* it runs a process, or the kernel for one: not since it was last halted */
	struct process *process; /* NULL: there was no room */
	unsigned long table_era; /* as of when `process` is known */
	void *table_register;
	struct array *bytes;
	struct count kernel[MAX_NODES + 1];
	uint64_t instructions, stall_ns, misses[MAX_NODES];
};

/* memctl.c */
extern unsigned int cpus;
extern struct cpu cpu[MAX_CPUS];

/* who.c */
extern struct cpu_state **current, *last;
extern unsigned int last_number;
unsigned int running_anew(unsigned int told);
bool cpus_told_apart(void);
struct process *at_work(struct cpu *this);
void starts(plugin_id id, unsigned int number);

/* The CPU that runs. `told`: what QEMU says (who.c). */
static inline unsigned int running(unsigned int told)
{
	return current && *current == last ? last_number : running_anew(told);
}

/* access.c */
void instrument(struct qemu_plugin_insn *insn, bool kernel);

/* code.c */
void translate(plugin_id id, struct qemu_plugin_tb *tb);

/* switch.c */
extern plugin_id self;
extern bool counting;
extern unsigned int period;    /* how often counting went on */
extern unsigned long switched; /* how often it went on or off */
void count(bool on);
bool settled(bool on);
void applied_now(void);
bool lock_while_quiet(void);
void unlock(void);
void forget(void);

/* where.c */
extern unsigned int nodes;
int memory_option(const char *text);
bool has_memory(unsigned int node);
unsigned int node_of(uint64_t physical);
bool in_direct_map(uint64_t address, uint64_t *physical);
unsigned int translated(meminfo info, uint64_t address, uint64_t *physical);

/* tally.c */
extern struct process *process[MAX_PROCESSES];
extern unsigned int processes;
extern struct page *pages;
extern unsigned int places;
extern uint64_t overflow; /* accesses for which there was no room */
struct process *process_of(uint64_t table);
struct count *page_of(struct process *of, uint64_t number);
uint64_t *range_of(struct process *of, uint64_t address, bool local);
void end_row(struct process *of);
void end_rows(void);
void forget_tally(void);

/* price.c */
struct lap {
	uint64_t instructions, stall_ns;
};
extern bool priced;
extern bool only_model; /* add up what accesses cost, and leave the clock alone */
extern unsigned int laps;
int price_option(const char *text);
const char *price_problem(void);
const char *clock_problem(void);
void pay(unsigned int number, unsigned int node, uint64_t physical, bool store);
void cold(void);
void take_lap(void);
const struct lap *lap(unsigned int number, unsigned int of_cpu);
int64_t now(void);
void forget_prices(void);

/* tell.c */
void tell_all(FILE *to);
void tell_pages(FILE *to);

/* serve.c */
int listen_at(const char *path);

#endif
