// SPDX-License-Identifier: GPL-2.0-only
/*
 * Takes the steps that its arguments name, in order. After each step it prints a line of JSON, {"step": NAME, "ok": true,
 * ...}, or with "ok": false and "errno", and then it ends with status 1.
 *
 *   node=N,..., interleave=N,...   set_mempolicy() of the task, to bind or to interleave; "-": none any more
 *   cpu=N                          run on this CPU only
 *   open=PATH, openro=PATH         the file of the steps that follow: a new, empty one; one that is there, for reading
 *   pages=N                        length of the file and of mappings
 *   write[=FIRST-LAST]             write(2) its pattern to these pages of the file
 *   read                           read(2) all of the file, and so into the page cache ("mismatches")
 *   sync, drop                     fsync(); the same, and drop its pages from the page cache
 *   drain                          empty the LRU batches of all CPUs
 *   map=shared|private|exec|ro     map the file ("start", "end"); exec and ro: not for writing
 *   map=anon, map=sysv             shared anonymous memory, a System V segment
 *   unmap, zap                     munmap(); remove the pages from the page table only
 *   lock, shmlock                  mlock(); SHM_LOCK
 *   mbind=N,...[:move|all|lazy|strict...]
 *   touch[=FIRST-LAST]             read one word of each page, then check all of them ("mismatches"). "faults": of the first
 *   dirty[=FIRST-LAST]             write a new pattern to each page, through the mapping ("faults")
 *   where                          nodes of the pages by move_pages(2) ("nodes"; -2 is ENOENT: in no page table)
 *   present                        numbers of the pages that are in the page table ("pages")
 *   huge                           kB mapped by huge entries ("kb")
 *   hold=map|touch                 a child that maps the file as `map` did last, and touches all of it or not, to the end
 *   race=truncate|invalidate:SECONDS
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <unistd.h>

#include "common.h"

#define HUGE (2UL << 20)

struct state now = {.fd = -1};
const size_t page_size = WORDS * sizeof(uint64_t);

static int generation, segment = -1;
static int last_protection, last_flags;

void stop(const char *step, int error)
{
	printf("{\"step\": \"%s\", \"ok\": false, \"errno\": %d, \"error\": \"%s\"}\n", step, error, strerror(error));
	exit(1);
}

void need(const char *step, bool fine)
{
	if (!fine)
		stop(step, errno);
}

void done(const char *step)
{
	printf("{\"step\": \"%s\", \"ok\": true}\n", step);
}

uint64_t pattern(size_t page, size_t word)
{
	return 0x9e3779b97f4a7c15ULL * (page + 1 + 1000003ULL * generation) + word;
}

static void pattern_page(uint64_t *at, size_t page)
{
	for (size_t word = 0; word < WORDS; word++)
		at[word] = pattern(page, word);
}

static size_t mismatches(const uint64_t *at, size_t page)
{
	size_t wrong = 0;

	for (size_t word = 0; word < WORDS; word++)
		wrong += at[word] != pattern(page, word);
	return wrong;
}

/* FIRST-LAST, or all pages. */
static void parse_span(const char *step, const char *value, size_t *first, size_t *last)
{
	*first = 0;
	*last = now.pages - 1;
	if (value && sscanf(value, "%zu-%zu", first, last) != 2)
		*last = *first;
	if (!now.pages || *first > *last || *last >= now.pages)
		stop(step, EINVAL);
}

static void run_on(const char *step, const char *value)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(atoi(value), &cpus);
	need(step, !sched_setaffinity(0, sizeof(cpus), &cpus));
	done(step);
}

static void open_file(const char *step, const char *path, int flags)
{
	/* Not only its pages, but the policy of an earlier one (shmem) is to be gone. */
	if (flags & O_CREAT)
		unlink(path);
	now.fd = open(path, flags | O_CLOEXEC, 0700);
	need(step, now.fd >= 0);
	done(step);
}

static void write_pages(const char *step, const char *value)
{
	uint64_t page_of[WORDS];
	size_t first, last;

	parse_span(step, value, &first, &last);
	for (size_t page = first; page <= last; page++) {
		pattern_page(page_of, page);
		if (pwrite(now.fd, page_of, page_size, page * page_size) != (ssize_t)page_size)
			stop(step, errno);
	}
	done(step);
}

static void read_pages(const char *step)
{
	uint64_t page_of[WORDS];
	size_t wrong = 0;

	for (size_t page = 0; page < now.pages; page++) {
		if (pread(now.fd, page_of, page_size, page * page_size) != (ssize_t)page_size)
			stop(step, errno);
		wrong += mismatches(page_of, page);
	}
	printf("{\"step\": \"%s\", \"ok\": true, \"mismatches\": %zu}\n", step, wrong);
}

static void drop(const char *step, bool sync_only)
{
	/* EINVAL: a file system for reading only, which has nothing to write. */
	need(step, !fsync(now.fd) || errno == EINVAL);
	if (!sync_only) {
		int error = posix_fadvise(now.fd, 0, 0, POSIX_FADV_DONTNEED);

		if (error)
			stop(step, error);
	}
	done(step);
}

/* At a multiple of 2 MB, so that a window of fault-around, and a huge page, starts where the area does. */
static char *aligned(const char *step, size_t length)
{
	char *room = mmap(NULL, length + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	need(step, room != MAP_FAILED);
	return (char *)(((uintptr_t)room + HUGE - 1) & ~(HUGE - 1));
}

static void map(const char *step, const char *how)
{
	size_t length = now.pages * page_size;
	int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED, fd = now.fd;

	if (!strcmp(how, "private")) {
		flags = MAP_PRIVATE;
	} else if (!strcmp(how, "exec")) {
		protection = PROT_READ | PROT_EXEC;
		flags = MAP_PRIVATE;
	} else if (!strcmp(how, "ro")) {
		protection = PROT_READ;
	} else if (!strcmp(how, "anon")) {
		flags = MAP_SHARED | MAP_ANONYMOUS;
		fd = -1;
	} else if (strcmp(how, "shared") && strcmp(how, "sysv")) {
		stop(step, EINVAL);
	}
	now.area = aligned(step, length);
	if (!strcmp(how, "sysv")) {
		segment = shmget(IPC_PRIVATE, length, 0600);
		need(step, segment >= 0);
		need(step, shmat(segment, now.area, SHM_REMAP) == now.area);
		need(step, !shmctl(segment, IPC_RMID, NULL)); /* once it is detached */
	} else {
		need(step, mmap(now.area, length, protection, flags | MAP_FIXED, fd, 0) == now.area);
	}
	last_protection = protection;
	last_flags = flags;
	printf("{\"step\": \"%s\", \"ok\": true, \"start\": %lu, \"end\": %lu}\n", step, (unsigned long)now.area,
	       (unsigned long)now.area + length);
}

static long faults(void)
{
	struct rusage used;

	/* Twice: after a fork, the first one copies the stack's page, which is a fault as well. */
	getrusage(RUSAGE_THREAD, &used);
	getrusage(RUSAGE_THREAD, &used);
	return used.ru_minflt + used.ru_majflt;
}

static void touch(const char *step, const char *value)
{
	size_t first, last, wrong = 0;
	long before;

	parse_span(step, value, &first, &last);
	before = faults();
	for (size_t page = first; page <= last; page++)
		(void)*(volatile uint64_t *)(now.area + page * page_size);
	before = faults() - before;
	for (size_t page = first; page <= last; page++)
		wrong += mismatches((uint64_t *)(now.area + page * page_size), page);
	printf("{\"step\": \"%s\", \"ok\": true, \"mismatches\": %zu, \"faults\": %ld}\n", step, wrong, before);
}

static void dirty(const char *step, const char *value)
{
	size_t first, last;
	long before;

	parse_span(step, value, &first, &last);
	/* Part of the pages: they take the pattern that the others have already. */
	if (!value)
		generation++;
	before = faults();
	for (size_t page = first; page <= last; page++)
		pattern_page((uint64_t *)(now.area + page * page_size), page);
	before = faults() - before;
	printf("{\"step\": \"%s\", \"ok\": true, \"faults\": %ld}\n", step, before);
}

static void hold(const char *step, const char *how)
{
	size_t length = now.pages * page_size;
	char *area = now.area;
	int ready[2];
	char word = 0;

	need(step, !pipe(ready));
	switch (fork()) {
	case -1:
		stop(step, errno);
		break;
	case 0:
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* Nobody may wait for the end of an output that a child keeps open. */
		close(STDOUT_FILENO);
		if (now.fd >= 0 && !(last_flags & MAP_ANONYMOUS))
			area = mmap(NULL, length, last_protection, last_flags, now.fd, 0);
		for (size_t page = 0; area != MAP_FAILED && !strcmp(how, "touch") && page < now.pages; page++)
			(void)*(volatile uint64_t *)(area + page * page_size);
		if (area != MAP_FAILED && write(ready[1], "y", 1) == 1)
			for (;;)
				pause();
		_exit(1);
	}
	close(ready[1]);
	if (read(ready[0], &word, 1) != 1)
		stop(step, ECHILD);
	close(ready[0]);
	done(step);
}

static void take(char *step)
{
	char *value = strchr(step, '=');

	if (value)
		*value++ = '\0';
	if (!strcmp(step, "node") && value) {
		task_policy(step, value, POLICY_BIND);
	} else if (!strcmp(step, "interleave") && value) {
		task_policy(step, value, POLICY_INTERLEAVE);
	} else if (!strcmp(step, "cpu") && value) {
		run_on(step, value);
	} else if (!strcmp(step, "open") && value) {
		open_file(step, value, O_RDWR | O_CREAT | O_EXCL);
	} else if (!strcmp(step, "openro") && value) {
		open_file(step, value, O_RDONLY);
	} else if (!strcmp(step, "pages") && value) {
		now.pages = strtoul(value, NULL, 0);
		done(step);
	} else if (!strcmp(step, "write")) {
		write_pages(step, value);
	} else if (!strcmp(step, "read")) {
		read_pages(step);
	} else if (!strcmp(step, "sync") || !strcmp(step, "drop")) {
		drop(step, !strcmp(step, "sync"));
	} else if (!strcmp(step, "drain")) {
		drain(step);
	} else if (!strcmp(step, "map") && value) {
		map(step, value);
	} else if (!strcmp(step, "unmap")) {
		need(step, !munmap(now.area, now.pages * page_size));
		now.area = NULL;
		done(step);
	} else if (!strcmp(step, "zap")) {
		need(step, !madvise(now.area, now.pages * page_size, MADV_DONTNEED));
		done(step);
	} else if (!strcmp(step, "lock")) {
		need(step, !mlock(now.area, now.pages * page_size));
		done(step);
	} else if (!strcmp(step, "shmlock")) {
		need(step, !shmctl(segment, SHM_LOCK, NULL));
		done(step);
	} else if (!strcmp(step, "mbind") && value) {
		area_policy(step, value);
	} else if (!strcmp(step, "touch")) {
		touch(step, value);
	} else if (!strcmp(step, "dirty")) {
		dirty(step, value);
	} else if (!strcmp(step, "where")) {
		where(step);
	} else if (!strcmp(step, "present")) {
		present(step);
	} else if (!strcmp(step, "huge")) {
		huge(step);
	} else if (!strcmp(step, "hold") && value) {
		hold(step, value);
	} else if (!strcmp(step, "race") && value) {
		race(step, value);
	} else {
		stop(step, EINVAL);
	}
}

int main(int count, char **argument)
{
	/* The program's own pages are mapped before there is a policy that could move them, which would be counted. */
	need("start", !mlockall(MCL_CURRENT) && !munlockall());
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int n = 1; n < count; n++)
		take(argument[n]);
	return 0;
}
