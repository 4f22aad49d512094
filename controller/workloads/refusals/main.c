// SPDX-License-Identifier: GPL-2.0-only
/*
 * Puts pages of its own into a state in which they must not be moved, lets a fault find them so, and tells what it saw
 * of them before and afterwards. It judges nothing.
 *
 *   refusals CASE	one of the table below; prints an object of JSON in a line
 *
 * Its members: "case"; a member a step, in the order in which they were done; "swap_left": swap space still
 * in use once the memory is unmapped; "left": isolated pages, more than before ("isolated"), and whether all swap devices
 * could be taken out of use ("swapped_off"). A step has what it answered ("errno", "mismatches"), what it added to the
 * counters of /proc/vmstat, and "traced": the tracepoint's words about its area; or else "nodes" (-2: not mapped), "frames",
 * "maps" and "flags" of its pages, by /proc/kpagecount and /proc/kpageflags. "wrong": what could not be done, status 1.
 *
 * Needs root, cgroup2, debugfs and tracefs where systemd has them, zram, four nodes, and for some cases an empty ext4 in
 * /run/refusals.ext4. What it changes of the machine is put back by a process of its own, even if the case crashes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

#define SECONDS 900		/* for a case, on a slow machine */

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{ "writeback", case_writeback },
	{ "spliced", case_spliced },
	{ "pinned", case_pinned },
	{ "batch-new", case_batch_new },
	{ "batch-activated", case_batch_activated },
	{ "mapped", case_mapped },
	{ "foreign-read", case_foreign_read },
	{ "foreign-mem", case_foreign_mem },
	{ "foreign-ptrace", case_foreign_ptrace },
	{ "forked", case_forked },
	{ "watermark", case_watermark },
	{ "failing", case_failing },
	{ "ksm-shared", case_ksm_shared },
	{ "ksm-alone", case_ksm_alone },
	{ "ksm-copy", case_ksm_copy },
	{ "freed", case_freed },
	{ "mlocked", case_mlocked },
	{ "mlocked-on-fault", case_mlocked_on_fault },
	{ "mlocked-later", case_mlocked_later },
	{ "write-protected", case_write_protected },
	{ "cpuset", case_cpuset },
	{ "cpuset-nearest", case_cpuset_nearest },
	{ "switched-off", case_switched_off },
	{ "default-policy", case_default_policy },
	{ "no-swap", case_no_swap },
	{ "swap-full", case_swap_full },
	{ "swap-limit", case_swap_limit },
	{ "swapoff", case_swapoff },
	{ "huge-whole", case_huge_whole },
	{ "huge-rotational", case_huge_rotational },
	{ "huge-no-memory", case_huge_no_memory },
	{ "race", case_race },
};
enum { CASES = sizeof(cases) / sizeof(*cases) };

static const char *doing_case = "";
static pid_t case_pid;

void stop(const char *doing)
{
	int error = errno;

	if (case_pid && getpid() != case_pid)
		_exit(1);	/* one that helps; who asked it sees that no answer comes */
	printf("{\"case\": \"%s\", \"wrong\": \"%s: %s\"}\n", doing_case, doing, strerror(error));
	fflush(stdout);
	_exit(1);
}

void need(const char *doing, bool fine)
{
	if (!fine)
		stop(doing);
}

void run_on(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	need("running on a CPU", !sched_setaffinity(0, sizeof(cpus), &cpus));
}

void wait_until(const char *what, bool (*condition)(void))
{
	time_t end = time(NULL) + PATIENCE;

	while (!condition()) {
		if (time(NULL) > end) {
			errno = ETIMEDOUT;
			stop(what);
		}
		usleep(20000);
	}
}

static void do_case(void (*run)(void))
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	case_pid = getpid();
	/* Its own pages are mapped before there is a policy or a swap device that could have to do with them. */
	need("mlockall", !mlockall(MCL_CURRENT) && !munlockall());
	report_begin();
	set("/proc/sys/vm/migrate_on_fault", "1");
	set("/proc/sys/kernel/numa_balancing", "0");
	set("/proc/sys/vm/page-cluster", "0");
	run_on(0);
	trace_begin();
	counters_begin();
	run();
	step_number("swap_left", "used_kb", swap_used_kb());
	printf("{\"case\": \"%s\", %s", doing_case, report_text());
	fflush(stdout);
	_exit(0);
}

/* False when the case did not get to its end; it has said why, unless a signal ended it. */
static bool watch(pid_t child)
{
	time_t end = time(NULL) + SECONDS;
	int status = 0;
	pid_t ended;

	while (!(ended = waitpid(child, &status, WNOHANG)) && time(NULL) < end)
		usleep(20000);
	if (!ended) {
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
	}
	if (WIFSIGNALED(status))
		printf("{\"case\": \"%s\", \"wrong\": \"ended by signal %d\"}\n", doing_case, WTERMSIG(status));
	return !status;
}

static int guard(void (*run)(void))
{
	long isolated;
	bool fine, off;
	pid_t child;

	settings_begin();
	isolated = counter("nr_isolated_anon");
	swap_begin();
	fflush(stdout);
	child = fork();
	need("fork", child >= 0);
	if (!child)
		do_case(run);
	fine = watch(child);
	isolated = counter("nr_isolated_anon") - isolated;
	off = swap_end();
	settings_restore();
	trace_end();
	if (fine)
		printf(", \"left\": {\"isolated\": %ld, \"swapped_off\": %s}}\n", isolated, off ? "true" : "false");
	return !fine;
}

int main(int count, char **argument)
{
	for (int n = 0; count == 2 && n < CASES; n++) {
		doing_case = cases[n].name;
		if (!strcmp(argument[1], doing_case))
			return guard(cases[n].run);
	}
	fprintf(stderr, "usage: refusals CASE\n");
	for (int n = 0; n < CASES; n++)
		fprintf(stderr, "  %s\n", cases[n].name);
	return 2;
}
