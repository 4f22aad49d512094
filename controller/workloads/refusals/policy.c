// SPDX-License-Identifier: GPL-2.0-only
/* Nobody asks for another node, or not in a way that counts. */
#define _GNU_SOURCE
#include <unistd.h>

#include "common.h"

#define MEMS GROUP "/cpuset.mems"
#define ALL_NODES "0-3"
#define ALLOWED "0-1"		/* TO is not among them */
#define SWITCH "/proc/sys/vm/migrate_on_fault"

/* The policy is made while the cpuset still has its node. Static nodes: the kernel does not choose another instead. */
static void forbidden(int mode, int from)
{
	struct area area;

	swap_in_memory(0, false);
	group_make("+cpuset");
	/* Who joins has its pages moved to where the cpuset allows. So there is nothing to be moved when this is so again. */
	need("cpuset.mems", !write_file(MEMS, ALLOWED));
	group_join();
	need("cpuset.mems", !write_file(MEMS, ALL_NODES));
	area = area_on(from, PAGES, PAGE);
	look("before", &area);
	ask("lazy", &area, mode | STATIC_NODES, TO, MF_MOVE | MF_LAZY);
	need("cpuset.mems", !write_file(MEMS, ALLOWED));
	touch_and_use(&area);
	need("cpuset.mems", !write_file(MEMS, ALL_NODES));
	finish(&area, TO);
}

void case_cpuset(void)
{
	forbidden(POLICY_BIND, FROM);
}

/* The nearest that is allowed is another one than where it is: there, and no further, it goes. */
void case_cpuset_nearest(void)
{
	forbidden(POLICY_PREFERRED, 0);
}

void case_switched_off(void)
{
	struct area area;

	area = usual_area();
	look("before", &area);
	set_number(SWITCH, 0);
	lazy("lazy", &area, TO, 0);
	touch_and_use(&area);
	set_number(SWITCH, 1);
	check("check_on", &area);
	look("after_on", &area);
	finish(&area, TO);
}

/* This process runs on node 0, which is where local allocation would have the pages. */
void case_default_policy(void)
{
	struct area area;

	area = usual_area();
	look("before", &area);
	for (int mode = 1; mode <= 2; mode++) {
		set_number(SWITCH, mode);
		ask(mode == 1 ? "lazy" : "lazy_all", &area, POLICY_DEFAULT, 0, MF_MOVE | MF_LAZY);
		touch(mode == 1 ? "touch" : "touch_all", &area);
		look(mode == 1 ? "after" : "after_all", &area);
		check(mode == 1 ? "check" : "check_all", &area);
		rewrite(mode == 1 ? "rewrite" : "rewrite_all", &area);
	}
	finish(&area, TO);
}
