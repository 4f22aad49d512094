// SPDX-License-Identifier: GPL-2.0-only
/* Another process maps the page, looks at it, or has the same page in its swap entry. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

static struct area area;

static long compare(long unused)
{
	(void)unused;
	return mismatches(&area);
}

static long bind_area(long node)
{
	return set_policy(&area, POLICY_BIND, node, 0);
}

static long fill(long unused)
{
	(void)unused;
	area_fill(&area);
	return mismatches(&area);
}

static long node_there(long unused)
{
	(void)unused;
	return area_node(&area);
}

static void put_answer(const char *name, const struct actor *actor, long (*what)(long))
{
	step_number(name, "answer", actor_do(actor, what, 0));
}

/* The other process touches first. Its policy has the pages where they are, so that it maps them there. */
void case_mapped(void)
{
	struct actor sibling;

	area = usual_area();
	sibling = actor_start();
	need("a sibling's policy", !actor_do(&sibling, bind_area, FROM));
	look("before", &area);
	lazy("shared", &area, TO, 0);
	lazy("shared_strict", &area, TO, MF_STRICT);
	step_number("moved_strict", "errno", set_policy(&area, POLICY_BIND, TO, MF_MOVE | MF_STRICT) ? errno : 0);
	look("still", &area);
	lazy("lazy", &area, TO, MF_MOVE_ALL);
	put_answer("sibling", &sibling, compare);
	step_done("sibling_touch", &area);
	touch("touch", &area);
	look("after", &area);
	check("check", &area);
	/* What this process writes is a copy of its own. */
	rewrite("rewrite", &area);
	look("copied", &area);
	put_answer("sibling_after", &sibling, compare);
	put_answer("sibling_node", &sibling, node_there);
	put_answer("sibling_write", &sibling, fill);
	check("check_after", &area);
	actor_end(&sibling);
	finish(&area, FROM);
}

/* ---- on behalf of another process ---- */

static pid_t looked_at;

static long bind_task(long node)
{
	unsigned long nodes = 1UL << node;

	return syscall(SYS_set_mempolicy, POLICY_BIND, &nodes, 65UL);
}

static long look_by_readv(long unused)
{
	static char copy[PAGES * PAGE];
	struct iovec local = { copy, sizeof(copy) }, remote = { area.at, sizeof(copy) };

	(void)unused;
	return process_vm_readv(looked_at, &local, 1, &remote, 1, 0) == (ssize_t)sizeof(copy) ? 0 : errno;
}

static long look_by_mem(long unused)
{
	static char copy[PAGES * PAGE];
	char path[32];
	ssize_t got;
	int file;

	(void)unused;
	snprintf(path, sizeof(path), "/proc/%d/mem", looked_at);
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return errno;
	got = pread(file, copy, sizeof(copy), (uintptr_t)area.at);
	close(file);
	return got == (ssize_t)sizeof(copy) ? 0 : EIO;
}

static long look_by_ptrace(long unused)
{
	long wrong = 0;

	(void)unused;
	if (ptrace(PTRACE_ATTACH, looked_at, 0, 0) || waitpid(looked_at, NULL, __WALL) != looked_at)
		return errno;
	for (int n = 0; n < PAGES; n++) {
		errno = 0;
		ptrace(PTRACE_PEEKDATA, looked_at, area.at + n * PAGE, 0);
		wrong += errno != 0;
	}
	ptrace(PTRACE_DETACH, looked_at, 0, 0);
	return wrong;
}

/* The area has no policy, so that the task's counts; the other process has one, for another node. */
static void foreign(long (*look_there)(long))
{
	struct actor debugger;

	swap_in_memory(0, false);
	set_number("/proc/sys/vm/migrate_on_fault", 2);
	looked_at = getpid();
	area = area_empty(PAGES, PAGE);
	debugger = actor_start();
	need("a debugger's policy", !actor_do(&debugger, bind_task, OTHER));
	/* Filled only now: the debugger has none of these pages. */
	area_fill(&area);
	area_put(&area, FROM);
	look("before", &area);
	step_number("debugger", "pid", debugger.pid);
	ask("lazy", &area, POLICY_DEFAULT, 0, MF_MOVE | MF_LAZY);
	put_answer("looked", &debugger, look_there);
	step_done("touch", &area);
	look("after", &area);
	use(&area);
	actor_end(&debugger);
	finish(&area, TO);
}

void case_foreign_read(void)
{
	foreign(look_by_readv);
}

void case_foreign_mem(void)
{
	foreign(look_by_mem);
}

void case_foreign_ptrace(void)
{
	foreign(look_by_ptrace);
}

/* ---- fork between unmapping and touching ---- */

void case_forked(void)
{
	struct actor child;

	area = usual_area();
	look("before", &area);
	lazy("lazy", &area, TO, 0);
	child = actor_start();
	need("the child's policy", !actor_do(&child, bind_area, OTHER));
	put_answer("child", &child, compare);
	step_done("child_touch", &area);
	put_answer("child_node", &child, node_there);
	touch_and_use(&area);
	look("copied", &area);
	put_answer("child_after", &child, compare);
	put_answer("child_write", &child, fill);
	put_answer("child_node_after", &child, node_there);
	check("check_after", &area);
	actor_end(&child);
	finish(&area, FROM);
}
