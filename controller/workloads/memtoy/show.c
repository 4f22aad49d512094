// SPDX-License-Identifier: GPL-2.0-only
/* Showing segments, and the process' map. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common.h"

static void show_segment(struct outcome *o, const struct segment *s, const char *comma)
{
	bool shared = s->at ? s->mapped_shared : s->shared;

	text_add(&o->result, "%s{\"seg\": ", comma);
	text_add_quoted(&o->result, s->name);
	text_add(&o->result, ", \"kind\": \"%s\", \"length\": %llu, \"page_size\": %zu, \"shared\": %s, \"address\": ",
		 kind_words[s->kind], (unsigned long long)s->length, s->page, shared ? "true" : "false");
	text_add(&o->result, s->at ? "\"%p\"" : "null", (void *)s->at);
	text_add(&o->result, ", \"mapped\": %llu}", (unsigned long long)s->mapped);
	say(o, "%-16s %-5s %10llu kB  %s", s->name, kind_words[s->kind], (unsigned long long)(s->length >> 10),
	    shared ? "shared " : "private");
	if (s->at)
		say(o, "  %p-%p\n", (void *)s->at, (void *)(s->at + s->mapped));
	else
		say(o, "  not mapped\n");
}

static void show_maps(struct outcome *o)
{
	FILE *f = fopen("/proc/self/maps", "re");
	const char *comma = "";
	char line[4352];

	if (!f) {
		failed(o, errno, "/proc/self/maps");
		return;
	}
	put(o, "maps", "[");
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		text_add(&o->result, "%s", comma);
		text_add_quoted(&o->result, line);
		comma = ", ";
		say(o, "%s\n", line);
	}
	text_add(&o->result, "]");
	fclose(f);
}

void do_show(struct command *c, struct outcome *o)
{
	struct segment *only = NULL;
	const char *comma = "";

	if (peek(c) && !strcmp(peek(c), "+")) {
		take(c);
		if (nothing_left(c, o))
			show_maps(o);
		return;
	}
	if (peek(c)) {
		only = take_segment(c, o);
		if (!only || !nothing_left(c, o))
			return;
	}
	put(o, "segments", "[");
	for (struct segment *s = segments; s; s = s->next) {
		if (only && only != s)
			continue;
		show_segment(o, s, comma);
		comma = ", ";
	}
	text_add(&o->result, "]");
	if (!segments)
		say(o, "no segments\n");
}
