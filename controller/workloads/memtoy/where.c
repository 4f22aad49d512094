// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where pages are. By get_mempolicy(2), which faults in what is not mapped and so completes a lazy migration; or by
 * move_pages(2) with no nodes given, which looks and touches nothing: a page that is not mapped answers -ENOENT.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

#define MPOL_F_NODE	(1 << 0)
#define MPOL_F_ADDR	(1 << 1)

#define SHOWN		64	/* pages, unless told otherwise */
#define ROW		16

static void locate_faulting(const struct span *span, uint64_t pages, int *nodes)
{
	for (uint64_t n = 0; n < pages; n++)
		if (syscall(SYS_get_mempolicy, &nodes[n], NULL, 0, span->at + n * span->seg->page, MPOL_F_NODE | MPOL_F_ADDR))
			nodes[n] = -errno;
}

static bool locate_looking(uint64_t pages, void **address, int *nodes)
{
	/* Answers the number of pages only when something goes wrong half way; statuses tell the rest. */
	return syscall(SYS_move_pages, 0, (unsigned long)pages, address, NULL, nodes, 0) >= 0;
}

static void show_grid(struct outcome *o, uint64_t first, uint64_t pages, const int *nodes)
{
	int other = 0;

	say(o, "%8s", "page");
	for (int n = 0; n < ROW && (uint64_t)n < pages; n++)
		say(o, " %+3d", n);
	for (uint64_t n = 0; n < pages; n++) {
		if (n % ROW == 0)
			say(o, "\n%8llu", (unsigned long long)(first + n));
		if (nodes[n] >= 0) {
			say(o, " %3d", nodes[n]);
		} else {
			say(o, " %3s", nodes[n] == -ENOENT ? "-" : "?");
			other = nodes[n] == -ENOENT ? other : -nodes[n];
		}
	}
	say(o, "\n");
	if (other)
		say(o, "?: %s\n", strerror(other));
}

static void tell(struct outcome *o, const struct span *span, uint64_t pages, const int *nodes, bool faulting)
{
	put_string(o, "seg", span->seg->name);
	put(o, "start", "\"%p\"", (void *)span->at);
	put(o, "page_size", "%zu", span->seg->page);
	put(o, "nodes", "[");
	for (uint64_t n = 0; n < pages; n++)
		text_add(&o->result, n ? ", %d" : "%d", nodes[n]);
	text_add(&o->result, "]");
	put_string(o, "method", faulting ? "get_mempolicy" : "move_pages");
	if (!json_output)
		show_grid(o, (uint64_t)(span->at - span->seg->at) / span->seg->page, pages, nodes);
}

static void where(struct outcome *o, const struct span *span, uint64_t pages, bool faulting)
{
	int *nodes = calloc(pages, sizeof(*nodes));
	void **address = calloc(faulting ? 1 : pages, sizeof(*address));
	bool ok = true;

	if (!nodes || !address) {
		failed(o, ENOMEM, "a list of %llu pages", (unsigned long long)pages);
		free(nodes);
		free(address);
		return;
	}
	/* Written before the clock starts, so that none of our own pages is faulted in after. */
	memset(nodes, 0xff, pages * sizeof(*nodes));
	for (uint64_t n = 0; !faulting && n < pages; n++)
		address[n] = span->at + n * span->seg->page;
	timed_begin(o);
	if (faulting)
		locate_faulting(span, pages, nodes);
	else
		ok = locate_looking(pages, address, nodes);
	timed_end(o);
	if (ok)
		tell(o, span, pages, nodes, faulting);
	else
		failed(o, errno, "move_pages");
	/* Not to be located at all is a failure; not to be mapped is an answer. */
	if (ok && faulting && nodes[0] < 0)
		failed(o, -nodes[0], "get_mempolicy at %p", (void *)span->at);
	free(nodes);
	free(address);
}

void do_where(struct command *c, struct outcome *o)
{
	bool faulting = true;
	struct span span;
	struct range r;
	const char *word;
	uint64_t pages;

	if (!take_span(c, o, &span, &r))
		return;
	word = take(c);
	if (word) {
		if (strncmp("nofault", word, strlen(word))) {
			wrong(o, "'%s' is not nofault, the only word that may follow", word);
			return;
		}
		faulting = false;
	}
	if (!nothing_left(c, o) || !place_span(o, &r, &span))
		return;
	/*
	 * What faults pages in must do the same whatever the output looks like; what only looks may list all where
	 * nobody has to read them.
	 */
	pages = span.pages;
	if (!r.given && pages > SHOWN && (faulting || !json_output))
		pages = SHOWN;
	where(o, &span, pages, faulting);
}
