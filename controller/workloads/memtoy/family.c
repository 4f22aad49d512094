// SPDX-License-Identifier: GPL-2.0-only
/* The commands about children: child, /NAME COMMAND, kick, wait. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "children.h"

void do_child(struct command *c, struct outcome *o)
{
	const char *name = take(c);
	struct child *k;

	if (!name || !isalpha((unsigned char)*name) || strchr(name, '/') || strlen(name) >= sizeof(k->name)) {
		wrong(o, "needs a name for the child: a letter first, no /, below 64 characters");
		return;
	}
	if (!nothing_left(c, o))
		return;
	for (k = children; k; k = k->next) {
		if (!strcmp(k->name, name)) {
			failed(o, EEXIST, "child '%s'", name);
			return;
		}
	}
	if (strlen(child_path) + strlen(name) + 2 > sizeof(child_path)) {
		failed(o, ENAMETOOLONG, "%s/%s", child_path, name);
		return;
	}
	k = new_child(o, name);
	if (!k)
		return;
	put_string(o, "name", name);
	put(o, "pid", "%d", (int)k->pid);
	say(o, "child %s has pid %d\n", name, (int)k->pid);
}

static void put_child(struct outcome *o, const struct child *k)
{
	const char *state = !k->gone ? k->answered < k->sent ? "busy" : "idle"
				     : WIFSIGNALED(k->wait_status) ? "killed" : "exited";
	int status = !k->gone ? 0 : WIFSIGNALED(k->wait_status) ? WTERMSIG(k->wait_status) : WEXITSTATUS(k->wait_status);

	text_add(&o->result, "{\"name\": ");
	text_add_quoted(&o->result, k->name);
	text_add(&o->result, ", \"pid\": %d, \"state\": \"%s\", \"status\": %d, \"failures\": %u}", (int)k->pid, state, status,
		 k->failures);
	say(o, "%-16s pid %-7d %s", k->name, (int)k->pid, state);
	say(o, k->gone ? " (%d)\n" : "\n", status);
}

static void put_children(struct outcome *o, const struct child *only)
{
	const char *comma = "";

	put(o, "children", "[");
	for (struct child *k = children; k; k = k->next) {
		if (only && only != k)
			continue;
		text_add(&o->result, "%s", comma);
		put_child(o, k);
		comma = ", ";
	}
	text_add(&o->result, "]");
}

void do_forward(struct command *c, struct outcome *o)
{
	const char *path = c->word[0] + 1, *rest = c->text + strcspn(c->text, " \t");
	size_t length = strcspn(path, "/");
	struct child *k;
	struct text text = { 0 };

	if (!*path && c->count == 1) {
		for (k = children; k; k = k->next)
			while (!k->gone && hear(k, 0))
				;
		put_children(o, NULL);
		if (!children)
			say(o, "no children\n");
		return;
	}
	rest += strspn(rest, " \t");
	if (!length || !*rest) {
		wrong(o, length ? "the command for '%s' is missing" : "the name of a child is missing: %s", c->word[0]);
		return;
	}
	k = find_child(o, path, length);
	if (!k)
		return;
	text_reset(&text);
	text_add(&text, path[length] ? "%s %s" : "%s%s", path + length, rest);
	if (!tell_child(k, c->line, text.at))
		failed(o, EPIPE, "child '%s' is gone", k->name);
	free(text.at);
}

void do_kick(struct command *c, struct outcome *o)
{
	const char *name = take(c), *word = take(c);
	int number = word ? signal_number(word) : SIGUSR1;
	struct child *k;

	if (!name || !nothing_left(c, o)) {
		if (!name)
			wrong(o, "the name of a child is missing, or ? for a list of signals");
		return;
	}
	if (!strcmp(name, "?") && !word) {
		list_signals(o);
		return;
	}
	if (!number) {
		wrong(o, "'%s' is no signal (kick ? lists them)", word);
		return;
	}
	name += *name == '/';
	k = find_child(o, name, strlen(name));
	if (!k)
		return;
	if (k->gone || kill(k->pid, number)) {
		failed(o, ESRCH, "child '%s' is gone", k->name);
		return;
	}
	k->kicked = number;
	put_string(o, "name", k->name);
	put(o, "signal", "%d", number);
}

void do_wait(struct command *c, struct outcome *o)
{
	const char *name = peek(c) && !isdigit((unsigned char)*peek(c)) ? take(c) : NULL, *word = take(c);
	uint64_t deadline = FOREVER;
	struct child *only = NULL;
	double seconds;

	if (word && !parse_seconds(word, &seconds)) {
		wrong(o, "'%s' is no number of seconds", word);
		return;
	}
	if (!nothing_left(c, o))
		return;
	if (name) {
		name += *name == '/';
		only = find_child(o, name, strlen(name));
		if (!only)
			return;
	}
	timed_begin(o);
	if (word)
		deadline = o->start_ns + (uint64_t)(seconds * 1e9);
	for (struct child *k = children; k; k = k->next) {
		if (only && only != k)
			continue;
		if (!await(k, deadline)) {
			failed(o, ETIMEDOUT, "child '%s' is still busy", k->name);
			break;
		}
		if (k->worst == WRONG)
			failed(o, EINVAL, "child '%s' stopped at a command it could not understand", k->name);
		else if (lost(k))
			failed(o, ECHILD, "child '%s' was lost before it was done", k->name);
	}
	timed_end(o);
	put_children(o, only);
}
