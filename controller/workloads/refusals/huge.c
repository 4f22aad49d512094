// SPDX-License-Identifier: GPL-2.0-only
/* Huge pages, which a swap device takes whole or not at all, and for which there may be no place. */
#define _GNU_SOURCE
#include "common.h"

#define UNITS 2
#define SWAP ((size_t)64 << 20)

static struct area huge_area(bool rotational)
{
	struct area area;

	swap_in_memory(SWAP, rotational);
	area = area_on(FROM, UNITS, HUGE);
	look("before", &area);
	return area;
}

void case_huge_whole(void)
{
	struct area area = huge_area(false);

	lazy("lazy", &area, TO, MF_STRICT);
	look("out", &area);
	touch_and_use(&area);
	finish(&area, OTHER);
}

/* A rotational device has no clusters of slots. */
void case_huge_rotational(void)
{
	struct area area = huge_area(true);

	lazy("lazy", &area, TO, MF_STRICT);
	look("after", &area);
	touch("touch", &area);
	use(&area);
	look("rewritten", &area);
	area_drop(&area);
}

void case_huge_no_memory(void)
{
	struct area area = huge_area(false);

	lazy("lazy", &area, TO, 0);
	node_fill(TO);
	touch_and_use(&area);
	node_empty(TO);
	finish(&area, TO);
}
