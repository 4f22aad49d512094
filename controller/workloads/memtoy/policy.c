// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory policy: mbind(2), set_mempolicy(2), migrate_pages(2), by their bare numbers. The numbers are those of today's
 * include/uapi/linux/mempolicy.h; other versions of the language had others for +shared, +lazy and noop.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

#define MPOL_DEFAULT		0
#define MPOL_PREFERRED		1
#define MPOL_BIND		2
#define MPOL_INTERLEAVE		3
#define MPOL_LOCAL		4
#define MPOL_MODE_FLAGS		(7 << 13)	/* static, relative, numa balancing */

#define MPOL_F_MEMS_ALLOWED	(1 << 2)	/* get_mempolicy */

#define MPOL_MF_STRICT		(1 << 0)	/* mbind */
#define MPOL_MF_MOVE		(1 << 1)
#define MPOL_MF_MOVE_ALL	(1 << 2)
#define MPOL_MF_LAZY		(1 << 3)	/* EINVAL since v6.7 on a kernel without the series */

/* The kernel takes one off: "maxnode" is one more than the bits it reads. */
#define MAXNODE (MAX_NODES + 1)

bool allowed_nodes(struct set *s)
{
	memset(s, 0, sizeof(*s));
	return !syscall(SYS_get_mempolicy, NULL, s->bits, MAXNODE, NULL, MPOL_F_MEMS_ALLOWED);
}

/* Mode and nodes as the kernel wants them; false (and told) when it has no such thing. */
static bool kernel_policy(struct outcome *o, struct policy *p, int *mode)
{
	static const int modes[] = { MPOL_DEFAULT, MPOL_PREFERRED, MPOL_BIND, MPOL_INTERLEAVE };

	if (p->mode == P_NOOP) {
		failed(o, EINVAL, "this kernel has no policy noop (4, its number once, means local today)");
		return false;
	}
	*mode = modes[p->mode];
	/* preferred without nodes is local: an empty mask means that to the kernel too. */
	if (p->any_nodes && p->mode != P_PREFERRED && !allowed_nodes(&p->nodes))
		return failed(o, errno, "get_mempolicy");
	return true;
}

static void put_flags(struct outcome *o, unsigned int flags)
{
	static const char *const words[] = { "shared", "strict", "move", "all", "lazy" };
	const char *comma = "";

	put(o, "flags", "[");
	for (int i = 0; i < 5; i++) {
		if (!(flags & 1U << i))
			continue;
		text_add(&o->result, "%s\"%s\"", comma, words[i]);
		comma = ", ";
	}
	text_add(&o->result, "]");
}

static bool take_policy(struct command *c, struct outcome *o, struct policy *p)
{
	const char *word = take(c);

	if (!word)
		return wrong(o, "the policy is missing: default, preferred, bind, interleaved or noop");
	return parse_policy(word, o, p) && take_policy_nodes(c, o, p) && nothing_left(c, o);
}

static const char *why_not(int err, unsigned int flags)
{
	if (err == EINVAL && flags & F_LAZY)
		return " (lazy migration, which this kernel may lack, or a node without memory)";
	if (err == EINVAL)
		return " (a node that has no memory or may not be used?)";
	if (err == EIO && flags & F_STRICT)
		return " (strict: some pages are not where the policy wants them)";
	if (err == EPERM && flags & F_ALL)
		return " (+all needs CAP_SYS_NICE)";
	return "";
}

void do_mbind(struct command *c, struct outcome *o)
{
	unsigned int flags = 0;
	struct policy p;
	struct span span;
	struct range r;
	int mode;
	long result;

	if (!take_span(c, o, &span, &r) || !take_policy(c, o, &p) || !place_span(o, &r, &span))
		return;
	put_string(o, "seg", span.seg->name);
	put(o, "start", "\"%p\"", (void *)span.at);
	put(o, "length", "%llu", (unsigned long long)span.length);
	put_string(o, "policy", policy_words[p.mode]);
	put_flags(o, p.flags);
	if (kernel_policy(o, &p, &mode) && p.flags & F_SHARED)
		failed(o, EOPNOTSUPP, "this kernel has no flag for +shared: a mapping shares its policy, or does not, by its kind");
	put_set(o, "nodes", &p.nodes);
	if (o->status == DONE) {
		if (p.flags & F_STRICT)
			flags |= MPOL_MF_STRICT;
		if (p.flags & F_MOVE)
			flags |= p.flags & F_ALL ? MPOL_MF_MOVE_ALL : MPOL_MF_MOVE;
		if (p.flags & F_LAZY)
			flags |= MPOL_MF_LAZY;
		timed_begin(o);
		result = syscall(SYS_mbind, span.at, span.length, mode, set_empty(&p.nodes) ? NULL : p.nodes.bits,
				 set_empty(&p.nodes) ? 0 : MAXNODE, flags);
		timed_end(o);
		if (result)
			failed(o, errno, "mbind%s", why_not(errno, p.flags));
	}
	put(o, "ns", "%llu", (unsigned long long)(o->end_ns - o->start_ns));
	if (o->status == DONE)
		say(o, "mbind of %llu pages in %.6f secs\n", (unsigned long long)span.pages,
		    (double)(o->end_ns - o->start_ns) / 1e9);
}

static void show_policy(struct outcome *o)
{
	static const char *const words[] = { "default", "preferred", "bind", "interleaved", "local", "preferred-many",
					     "weighted-interleave" };
	struct set nodes = { 0 };
	int mode = 0;

	if (syscall(SYS_get_mempolicy, &mode, nodes.bits, MAXNODE, NULL, 0)) {
		failed(o, errno, "get_mempolicy");
		return;
	}
	mode &= ~MPOL_MODE_FLAGS;
	put_string(o, "policy", mode >= 0 && mode < 7 ? words[mode] : "unknown");
	put_set(o, "nodes", &nodes);
	say(o, "policy %s", mode >= 0 && mode < 7 ? words[mode] : "unknown");
	if (!json_output && !set_empty(&nodes)) {
		text_add(&o->human, ", nodes ");
		set_print(&nodes, &o->human);
	}
	say(o, "\n");
}

void do_mpol(struct command *c, struct outcome *o)
{
	struct policy p;
	int mode;
	long result;

	if (!peek(c)) {
		show_policy(o);
		return;
	}
	if (!take_policy(c, o, &p))
		return;
	if (p.flags) {
		wrong(o, "a task's policy takes no + flags");
		return;
	}
	if (!kernel_policy(o, &p, &mode))
		return;
	timed_begin(o);
	result = syscall(SYS_set_mempolicy, mode, set_empty(&p.nodes) ? NULL : p.nodes.bits,
			 set_empty(&p.nodes) ? 0 : MAXNODE);
	timed_end(o);
	if (result) {
		failed(o, errno, "set_mempolicy%s", why_not(errno, 0));
		return;
	}
	put_string(o, "policy", policy_words[p.mode]);
	put_set(o, "nodes", &p.nodes);
}

void do_migrate(struct command *c, struct outcome *o)
{
	const char *word = take(c);
	struct set to, from;
	long result;
	double secs;

	if (!word) {
		wrong(o, "the nodes to migrate to are missing");
		return;
	}
	if (!parse_set(word, "nodes", MAX_NODES, o, &to))
		return;
	word = take(c);
	if (word && !parse_set(word, "nodes", MAX_NODES, o, &from))
		return;
	if (!nothing_left(c, o))
		return;
	if (!word && !allowed_nodes(&from)) {
		failed(o, errno, "get_mempolicy");
		return;
	}
	timed_begin(o);
	result = syscall(SYS_migrate_pages, 0, MAXNODE, from.bits, to.bits);
	timed_end(o);
	if (result < 0)
		failed(o, errno, "migrate_pages%s", why_not(errno, 0));
	secs = (double)(o->end_ns - o->start_ns) / 1e9;
	put(o, "not_migrated", "%ld", result);
	put_set(o, "to", &to);
	put_set(o, "from", &from);
	put(o, "ns", "%llu", (unsigned long long)(o->end_ns - o->start_ns));
	if (result >= 0)
		say(o, "migrated in %.6f secs, %ld pages not migrated\n", secs, result);
}
