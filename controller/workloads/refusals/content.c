// SPDX-License-Identifier: GPL-2.0-only
/* Pages that are shared because they are equal, and pages that may be thrown away. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common.h"

#define KSM "/sys/kernel/mm/ksm/"
#define STOPPED "0"
#define RUNNING "1"

static struct area area, twin;

static bool are_merged(void)
{
	for (int n = 0; n < area.units; n++) {
		unsigned long frame = frame_of(area.at + n * PAGE);

		if (!frame || frame != frame_of(twin.at + n * PAGE) || !(frame_flags(frame) >> FLAG_KSM & 1))
			return false;
	}
	return true;
}

/* Two areas, each page of one equal to one of the other, made one by ksmd. */
static void merge(void)
{
	area = area_empty(PAGES, PAGE);
	twin = area_empty(PAGES, PAGE);
	twin.salt = area.salt;
	area_fill(&area);
	area_fill(&twin);
	area_put(&area, FROM);
	area_put(&twin, FROM);
	need("MADV_MERGEABLE", !madvise(area.at, area.units * PAGE, MADV_MERGEABLE));
	need("MADV_MERGEABLE", !madvise(twin.at, twin.units * PAGE, MADV_MERGEABLE));
	set(KSM "pages_to_scan", "100");
	set(KSM "sleep_millisecs", "10");
	set(KSM "run", RUNNING);
	wait_until("merged pages", are_merged);
	set(KSM "run", STOPPED);
}

/* What is written to one of them is not to be seen in the other. */
static void use_and_finish_both(int node)
{
	check("check", &area);
	check("check_twin", &twin);
	rewrite("rewrite", &area);
	check("check_twin_after", &twin);
	finish(&area, node);
	area_drop(&twin);
}

void case_ksm_shared(void)
{
	swap_in_memory(0, false);
	merge();
	look("before", &area);
	lazy("shared", &area, TO, 0);
	look("still", &area);
	lazy("lazy", &area, TO, MF_MOVE_ALL);
	look("after", &area);
	look("twin", &twin);
	use_and_finish_both(OTHER);
}

/* The twin is written, and so gets copies: each merged page has one mapping left, as one that suits LAZY has. */
void case_ksm_alone(void)
{
	swap_freezable();
	merge();
	rewrite("rewrite_twin", &twin);
	look("before", &area);
	lazy("lazy", &area, TO, 0);
	look("moved", &area);
	remember_frames(&area);
	/* By reclaim, it gets into the swap cache nevertheless. */
	need("MADV_PAGEOUT", !madvise(area.at, area.units * PAGE, MADV_PAGEOUT));
	wait_until_written();
	look("out", &area);
	need("policy", !set_policy(&area, POLICY_BIND, OTHER, 0));
	step_done("pageout", &area);
	touch_and_use(&area);
	check("check_twin", &twin);
	finish(&area, OTHER);
	area_drop(&twin);
}

static bool are_out(void)
{
	write_file(GROUP "/memory.reclaim", "4M");
	return area_is_out(&area) && area_is_out(&twin);
}

/*
 * Read from swap again, the page belongs to the area that is touched first; the other, with other neighbours, cannot use
 * it and gets a copy.
 */
void case_ksm_copy(void)
{
	swap_in_memory((size_t)32 << 20, false);
	group_make("+memory");
	group_join();
	merge();
	look("before", &area);
	wait_until("reclaim", are_out);
	need("policy", !set_policy(&area, POLICY_BIND, TO, 0) && !set_policy(&twin, POLICY_BIND, OTHER, 0));
	counters_begin();
	touch("touch", &area);
	look("after", &area);
	touch("touch_twin", &twin);
	look("twin", &twin);
	use_and_finish_both(FROM);
}

/* Clean, and so to be thrown away whenever it is unmapped. */
void case_freed(void)
{
	area = usual_area();
	need("MADV_FREE", !madvise(area.at, area.units * PAGE, MADV_FREE));
	look("before", &area);
	lazy("lazy", &area, TO, MF_STRICT);
	look("after", &area);
	touch("touch", &area);
	use(&area);
	finish(&area, OTHER);
}
