/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * refusals: what its files share.
 *
 * main.c       the table of cases; a guard process that puts the machine back
 * report.c     what was seen, as JSON
 * area.c       memory: its contents, where it is, moving and touching it
 * page.c       facts about page frames
 * counter.c    /proc/vmstat
 * trace.c      the tracepoint
 * setting.c    files of /proc and /sys; control groups; and putting them back
 * swap.c       swap devices
 * actor.c      other processes that do things on request
 * usual.c      steps that most cases have in common
 *
 * and the cases, by what it is that stands in the way:
 *
 * reference.c  other references to the page, and writeback
 * mapping.c    other processes that map it, look at it, or are forked
 * memory.c     no memory on the target node
 * content.c    KSM, MADV_FREE
 * protection.c mlock, userfaultfd
 * policy.c     switch, cpuset, no policy
 * space.c      no swap space
 * huge.c       huge pages
 * race.c       threads that write all the time
 */
#ifndef REFUSALS_COMMON_H
#define REFUSALS_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE ((size_t)4096)
#define HUGE ((size_t)2 << 20)
#define PAGES 8			/* of an area, unless there is a reason for more */
#define FROM 1			/* where pages are at first, */
#define TO 2			/* where they are to go, */
#define OTHER 3			/* and where somebody else wants them */
#define PATIENCE 120		/* seconds to wait for what is bound to happen, on a slow machine */

/* linux/mempolicy.h of the build host may not know the last flag. */
enum { POLICY_DEFAULT, POLICY_PREFERRED, POLICY_BIND };
enum { STATIC_NODES = 1 << 15 };
enum { MF_STRICT = 1, MF_MOVE = 2, MF_MOVE_ALL = 4, MF_LAZY = 8 };

/* ---- main.c ---- */

/* Ends the case: what could not be done, and errno. */
_Noreturn void stop(const char *doing);
void need(const char *doing, bool fine);
void run_on(int cpu);
/* Wait for a condition; stop when it does not come true in PATIENCE seconds. */
void wait_until(const char *what, bool (*condition)(void));

/* ---- report.c ---- */

/* An object of its own, by the name of the step; then what is in it. */
void step_begin(const char *name);
void step_end(void);
void put_number(const char *key, long value);
void put_numbers(const char *key, const long *values, int count);
void put_raw(const char *key, const char *json);
/* An object with nothing else in it. */
void step_number(const char *name, const char *key, long value);
void report_begin(void);
/* Where the report is now; and back there, to forget what was added. */
long report_place(void);
void report_return(long place);
/* The members of an object, without braces. */
const char *report_text(void);

/* ---- area.c ---- */

struct area {
	char *at;
	size_t unit;		/* bytes: PAGE or HUGE */
	int units;
	unsigned generation;	/* of its contents */
	uint64_t salt;		/* areas of equal salt have equal contents */
};

/* An area whose units are filled and on `node`. */
struct area area_on(int node, int units, size_t unit);
/* Without filling it. */
struct area area_empty(int units, size_t unit);
void area_fill(struct area *area);
void area_put(const struct area *area, int node);
void area_drop(struct area *area);
/* Words that are not what was written, which reads all of it. */
long mismatches(const struct area *area);
bool area_is_out(const struct area *area);	/* nothing of it is mapped */
/* Of all its units; -1 when they are on several, or not mapped. */
int area_node(const struct area *area);
long set_policy(const struct area *area, int mode, int node, int flags);

/* The steps. Each reports what it did to the counters, and what was traced of this area. */

/* mbind(BIND) to a node by MOVE and LAZY, and more flags. Answer and errno. */
void lazy(const char *name, const struct area *area, int node, int more_flags);
/* Read a word of each unit, in order. */
void touch(const char *name, const struct area *area);
/* Read all of it and compare. */
void check(const char *name, const struct area *area);
/* New contents for all of it, then compare. */
void rewrite(const char *name, struct area *area);
/* Nodes, frames, map counts and flags of the units, by what does not touch them. */
void look(const char *name, const struct area *area);
/* Nothing stands in the way any more: lazily to a node and touched, as NAME_lazy, NAME_touch, NAME_look, NAME_check. */
void again(const char *name, struct area *area, int node);
/* Pages that were moved last are in this CPU's batch for the LRU: to the LRU with them. */
void drain(void);
/* A step in which something else was done: counters and trace of it. */
void step_done(const char *name, const struct area *area);

/* ---- page.c ---- */

enum { FLAG_LRU = 5, FLAG_WRITEBACK = 8, FLAG_SWAPCACHE = 13, FLAG_KSM = 21 };	/* linux/kernel-page-flags.h */

/* 0 when the address is not mapped. */
unsigned long frame_of(const void *address);
long frame_maps(unsigned long frame);
long frame_flags(unsigned long frame);
/* The page table entry has userfaultfd's write protection, mapped or not. */
bool is_write_protected(const void *address);

/* ---- counter.c ---- */

long counter(const char *name);
void counters_begin(void);
/* What was added since the last time. */
void put_counters(void);

/* ---- trace.c ---- */

void trace_begin(void);
void trace_pause(void);
void trace_go_on(void);
void trace_end(void);
/* What was traced since the last time at addresses of the area. */
void put_traced(const struct area *area);

/* ---- setting.c ---- */

#define CGROUPS "/sys/fs/cgroup"
#define GROUP CGROUPS "/mof-refusals"

/* Before anything is set: room that the guard shares with the case. */
void settings_begin(void);
/* Write a file, and remember what was there. */
void set(const char *path, const char *value);
void set_number(const char *path, long value);
/* Write a file; the answer of write(2) as 0 or -errno. */
int write_file(const char *path, const char *value);
long read_number(const char *path);
bool read_text(const char *path, char *text, size_t room);
/* A control group with these controllers ("+memory +cpuset"), and the calling process in it. */
void group_make(const char *controllers);
void group_join(void);
void settings_restore(void);

/* ---- swap.c ---- */

/* Remember the devices in use, and stop using them. */
void swap_begin(void);
/* A device in memory that writes at once; rotational as the kernel sees it. The only one. */
void swap_in_memory(size_t size, bool rotational);
/* A device over a file of a file system that can be frozen: what is written then, stays under writeback. */
void swap_freezable(void);
void swap_freeze(void);
void swap_thaw(void);
/* 0, or errno. */
int swap_off(void);
/* No longer any device but those that were found. False: one could not be taken out of use, as slots of it are. */
bool swap_end(void);
long swap_free_kb(void);
/* Less free than when the last device was taken into use. */
long swap_used_kb(void);

/* ---- actor.c ---- */

struct actor {
	pid_t pid;
	int ask, answer;
};

/* Another process, forked here. */
struct actor actor_start(void);
/* Let it call a function and wait for the answer. */
long actor_do(const struct actor *actor, long (*what)(long), long argument);
void actor_end(struct actor *actor);

/* ---- usual.c ---- */

/* Pages on FROM, and a small swap device in memory. */
struct area usual_area(void);
/* Read all, as "check"; write all, as "rewrite". */
void use(struct area *area);
/* A touch, as "touch"; a look, as "after"; and use() it. */
void touch_and_use(struct area *area);
/* Pages that stay mapped: by the plain call, "lazy", and by that which insists, "strict". Then touched, and use() it. */
void insist(struct area *area);
/* again(), as "again", and no more of the area. */
void finish(struct area *area, int node);
/* mbind() in any way: answer and counters, without what was traced. */
void ask(const char *name, const struct area *area, int mode, int node, int flags);
/* Of an area's pages, at most PAGES; and wait until none of these frames is under writeback any more. */
void remember_frames(const struct area *area);
void wait_until_written(void);

/* ---- memory.c ---- */

/* Take what huge pages a node has; and give them back. */
void node_fill(int node);
void node_empty(int node);

/* ---- cases ---- */

void case_writeback(void);
void case_spliced(void);
void case_pinned(void);
void case_batch_new(void);
void case_batch_activated(void);

void case_mapped(void);
void case_foreign_read(void);
void case_foreign_mem(void);
void case_foreign_ptrace(void);
void case_forked(void);

void case_watermark(void);
void case_failing(void);

void case_ksm_shared(void);
void case_ksm_alone(void);
void case_ksm_copy(void);
void case_freed(void);

void case_mlocked(void);
void case_mlocked_on_fault(void);
void case_mlocked_later(void);
void case_write_protected(void);

void case_cpuset(void);
void case_cpuset_nearest(void);
void case_switched_off(void);
void case_default_policy(void);

void case_no_swap(void);
void case_swap_full(void);
void case_swap_limit(void);
void case_swapoff(void);

void case_huge_whole(void);
void case_huge_rotational(void);
void case_huge_no_memory(void);

void case_race(void);

#endif
