// SPDX-License-Identifier: GPL-2.0-only
/* No room in swap, or none any more. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "common.h"

#define TINY (64 * PAGE)

/* Pages that cannot be put into swap stay mapped: by the plain call, and by that which insists. */
static void refused(struct area *area)
{
	look("before", area);
	lazy("lazy", area, TO, 0);
	look("after", area);
	touch("touch", area);
	lazy("strict", area, TO, MF_STRICT);
	look("after_strict", area);
	use(area);
}

void case_no_swap(void)
{
	struct area area = area_on(FROM, PAGES, PAGE);

	refused(&area);
	swap_in_memory(0, false);
	finish(&area, TO);
}

void case_swap_full(void)
{
	struct area area, hog;

	swap_in_memory(TINY, false);
	area = area_on(FROM, PAGES, PAGE);
	hog = area_on(OTHER, TINY / PAGE * 2, PAGE);
	need("MADV_PAGEOUT", !madvise(hog.at, hog.units * PAGE, MADV_PAGEOUT));
	step_number("swap", "free_kb", swap_free_kb());
	refused(&area);
	check("check_hog", &hog);
	area_drop(&hog);
	finish(&area, TO);
}

void case_swap_limit(void)
{
	struct area area;

	swap_in_memory(0, false);
	group_make("+memory");
	need("memory.swap.max", !write_file(GROUP "/memory.swap.max", "0"));
	group_join();
	area = area_on(FROM, PAGES, PAGE);
	refused(&area);
	need("memory.swap.max", !write_file(GROUP "/memory.swap.max", "max"));
	finish(&area, TO);
}

void case_swapoff(void)
{
	struct area area;

	area = usual_area();
	look("before", &area);
	lazy("lazy", &area, TO, 0);
	look("out", &area);
	need("swapoff", !swap_off());
	step_done("swapoff", &area);
	look("after", &area);
	touch("touch", &area);
	use(&area);
	swap_in_memory(0, false);
	finish(&area, TO);
}
