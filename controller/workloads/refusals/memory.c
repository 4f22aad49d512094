// SPDX-License-Identifier: GPL-2.0-only
/* The target node has no memory to give, or the allocator says so. */
#define _GNU_SOURCE
#include <stdio.h>

#include "common.h"

#define MANY 8192		/* more than is free above the watermark once the huge pages have taken theirs */
#define EVERY 4			/* which allocation fails */
#define ATTEMPTS 64
#define MIN_FREE "/proc/sys/vm/min_free_kbytes"	/* the lowest watermark, of all nodes together: 100 MB with huge pages */
#define FAIL "/sys/kernel/debug/fail_page_alloc/"

static const char *huge_pages_of(int node)
{
	static char path[96];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/nr_hugepages", node);
	return path;
}

/* As many huge pages as the node gives. */
void node_fill(int node)
{
	set_number(huge_pages_of(node), 4096);
	step_number("filled", "huge_pages", read_number(huge_pages_of(node)));
}

void node_empty(int node)
{
	set_number(huge_pages_of(node), 0);
}

void case_watermark(void)
{
	long usual = read_number(MIN_FREE);
	struct area rest, area;

	swap_in_memory(MANY * PAGE * 2, false);
	rest = area_on(FROM, MANY, PAGE);
	area = area_on(FROM, PAGES, PAGE);
	/* Something is left above the usual watermark, however reclaim, at work to find huge pages, stands. */
	set_number(MIN_FREE, usual / 4 * 5);
	node_fill(TO);
	set_number(MIN_FREE, usual);
	trace_pause();
	lazy("rest_lazy", &rest, TO, 0);
	touch("rest_touch", &rest);
	check("rest_check", &rest);
	trace_go_on();
	look("before", &area);
	lazy("lazy", &area, TO, 0);
	/* More than huge pages leave, so that it is all the same what kswapd has freed meanwhile. */
	set_number(MIN_FREE, usual * 3);
	touch_and_use(&area);
	set_number(MIN_FREE, usual);
	area_drop(&rest);
	node_empty(TO);
	finish(&area, TO);
}

/*
 * Ours is the only allocation of the task that neither reclaims nor sleeps while it touches, and so the only one to fail:
 * "ignore-gfp-wait" spares the others.
 */
void case_failing(void)
{
	struct area area;

	swap_in_memory(0, false);
	area = area_on(FROM, ATTEMPTS, PAGE);
	set(FAIL "ignore-gfp-wait", "Y");
	set(FAIL "ignore-gfp-highmem", "N");
	set(FAIL "min-order", "0");
	set(FAIL "verbose", "0");
	set(FAIL "task-filter", "Y");
	set_number(FAIL "interval", EVERY);
	set_number(FAIL "times", -1);
	set_number(FAIL "probability", 100);
	look("before", &area);
	lazy("lazy", &area, TO, 0);
	need("make-it-fail", !write_file("/proc/self/make-it-fail", "1"));
	touch("touch", &area);
	need("make-it-fail", !write_file("/proc/self/make-it-fail", "0"));
	set_number(FAIL "probability", 0);
	drain();
	look("after", &area);
	use(&area);
	finish(&area, OTHER);
}
