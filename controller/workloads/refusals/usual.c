// SPDX-License-Identifier: GPL-2.0-only
/* The steps that most cases have in common, by the names that whoever reads the report expects of them. */
#define _GNU_SOURCE
#include <errno.h>

#include "common.h"

struct area usual_area(void)
{
	swap_in_memory(0, false);
	return area_on(FROM, PAGES, PAGE);
}

void use(struct area *area)
{
	check("check", area);
	rewrite("rewrite", area);
}

void touch_and_use(struct area *area)
{
	touch("touch", area);
	look("after", area);
	use(area);
}

void insist(struct area *area)
{
	look("before", area);
	lazy("lazy", area, TO, 0);
	look("after", area);
	lazy("strict", area, TO, MF_STRICT);
	touch("touch", area);
	look("after_strict", area);
	use(area);
}

void finish(struct area *area, int node)
{
	again("again", area, node);
	area_drop(area);
}

void ask(const char *name, const struct area *area, int mode, int node, int flags)
{
	step_begin(name);
	put_number("errno", set_policy(area, mode, node, flags) ? errno : 0);
	put_counters();
	step_end();
}

/* ---- writeback ---- */

static unsigned long frames[PAGES];
static int count;

static bool are_written(void)
{
	for (int n = 0; n < count; n++)
		if (frame_flags(frames[n]) >> FLAG_WRITEBACK & 1)
			return false;
	return true;
}

void remember_frames(const struct area *area)
{
	need("frames", area->units <= PAGES);
	count = area->units;
	for (int n = 0; n < count; n++)
		frames[n] = frame_of(area->at + n * PAGE);
}

void wait_until_written(void)
{
	wait_until("the end of writeback", are_written);
}
