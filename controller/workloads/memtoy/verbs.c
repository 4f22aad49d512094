// SPDX-License-Identifier: GPL-2.0-only
/* The commands: what they are called, what they take, what they do, who does it. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

static void do_help(struct command *c, struct outcome *o);

static void do_quit(struct command *c, struct outcome *o)
{
	if (nothing_left(c, o))
		o->status = QUIT;
}

static void do_pid(struct command *c, struct outcome *o)
{
	if (!nothing_left(c, o))
		return;
	put(o, "pid", "%d", (int)getpid());
	say(o, "pid %d\n", (int)getpid());
}

static void do_snooze(struct command *c, struct outcome *o)
{
	const char *word = take(c);
	struct timespec left;
	double seconds;

	if (!word || !parse_seconds(word, &seconds)) {
		wrong(o, word ? "'%s' is no number of seconds" : "the number of seconds is missing", word);
		return;
	}
	if (!nothing_left(c, o))
		return;
	left.tv_sec = (time_t)seconds;
	left.tv_nsec = (long)((seconds - (double)left.tv_sec) * 1e9);
	timed_begin(o);
	while (nanosleep(&left, &left) && errno == EINTR)
		;
	timed_end(o);
}

static void do_echo(struct command *c, struct outcome *o)
{
	const char *rest = c->text + strcspn(c->text, " \t");

	rest += strspn(rest, " \t");
	put_string(o, "text", rest);
	say(o, "%s\n", rest);
}

static const struct verb verbs[] = {
	{ "help", NULL, false, "[CMD]", "this list, or more on one command", do_help },
	{ "man", "help", false, "[CMD]", "the same", do_help },
	{ "quit", NULL, false, "", "end; children finish first what they were told", do_quit },
	{ "exit", "quit", false, "", "the same", do_quit },
	{ "pid", NULL, false, "", "the process id", do_pid },
	{ "pause", NULL, false, "", "wait for SIGUSR1, SIGUSR2 or SIGINT; one that came before counts", do_pause },
	{ "snooze", NULL, false, "SECONDS", "sleep; fractions are fine", do_snooze },
	{ "numa", NULL, false, "", "the nodes it may allocate from, with total and free memory", do_numa },
	{ "migrate", NULL, false, "TO[,TO] [FROM[,FROM]]",
	  "migrate_pages(2) on itself; FROM is all allowed nodes unless given", do_migrate },
	{ "show", NULL, false, "[SEG|+]", "segments; + shows the process' own map", do_show },
	{ "anon", NULL, false, "SEG SIZE [private|shared]", "define an anonymous segment (private)", do_anon },
	{ "file", NULL, false, "PATH [OFF LEN] [private|shared]",
	  "define a file segment (private), called by the base name", do_file },
	{ "shmem", NULL, false, "SEG SIZE [huge]", "define a System V shared memory segment", do_shmem },
	{ "shm", "shmem", false, "SEG SIZE [huge]", "the same", do_shmem },
	{ "remove", NULL, false, "SEG...", "unmap and forget segments", do_remove },
	{ "map", NULL, false, "SEG [OFF LEN|*] [private|shared]",
	  "map a segment or part of it; from then on offsets count from the start of what is mapped", do_map },
	{ "unmap", NULL, false, "SEG", "unmap a segment", do_unmap },
	{ "lock", NULL, false, "SEG [OFF LEN]", "mlock(2)", do_lock },
	{ "unlock", NULL, false, "SEG [OFF LEN]", "munlock(2)", do_unlock },
	{ "slock", NULL, false, "SEG", "SHM_LOCK", do_slock },
	{ "sunlock", NULL, false, "SEG", "SHM_UNLOCK", do_sunlock },
	{ "touch", NULL, false, "SEG [OFF LEN] [read|write][=PATTERN]",
	  "touch every page (read); a plain write keeps the contents; with =PATTERN, a number, write fills the pages and "
	  "read fails when one word differs", do_touch },
	{ "mbind", NULL, false, "SEG [OFF LEN] POLICY[+shared][+strict][+move[+all][+lazy]] [NODES|*]",
	  "mbind(2); POLICY: default, preferred, bind, interleaved, noop; * is local for preferred, else all allowed",
	  do_mbind },
	{ "where", NULL, false, "SEG [OFF LEN] [nofault]",
	  "the node of each page, of the first 64 unless told otherwise; this faults pages in. nofault only looks: - is a "
	  "page that is not mapped (with -j it lists the whole segment)", do_where },
	{ "mpol", NULL, false, "[POLICY [NODES|*]]", "the task's policy, shown or set", do_mpol },
	{ "cpus", NULL, false, "[MASK|LIST]", "CPUs it may run on, shown or set (0x6 or 1-2)", do_cpus },
	{ "mems", NULL, false, "[MASK|LIST]",
	  "nodes it may allocate from, shown or set by a cpuset of its own, into which the kernel migrates it", do_mems },
	{ "child", NULL, false, "NAME", "fork a child; /NAME[/NAME] COMMAND has it done there, / lists them", do_child },
	{ "kick", NULL, false, "CHILD [SIGNAL]", "signal a child (USR1, which ends a pause); kick ? lists signals", do_kick },
	{ "mprotect", NULL, true, "SEG [OFF LEN] none|read|write|exec", "mprotect(2); read+write+exec may be joined",
	  do_mprotect },
	{ "echo", NULL, true, "[TEXT]", "say TEXT", do_echo },
	{ "wait", NULL, true, "[CHILD] [SECONDS]",
	  "until the children have done what they were told; fails when SECONDS are over", do_wait },
};

static const int verb_count = sizeof(verbs) / sizeof(verbs[0]);

/* Words of the original come first in the table, so the count of them is where the additions start. */
const struct verb *find_verb(const char *word, struct outcome *o)
{
	const char *names[sizeof(verbs) / sizeof(verbs[0])];
	int original = 0, found;

	for (int i = 0; i < verb_count; i++) {
		names[i] = verbs[i].name;
		original += !verbs[i].added;
	}
	found = find_word(names, original, verb_count, word);
	if (found >= 0)
		return &verbs[found];
	if (found == -1) {
		wrong(o, "unknown command '%s' (help lists them)", word);
		return NULL;
	}
	wrong(o, "'%s' is short for several commands:", word);
	for (int i = 0; i < verb_count; i++)
		if (!strncmp(verbs[i].name, word, strlen(word)))
			text_add(&o->error, " %s", verbs[i].name);
	return NULL;
}

void print_help(struct text *t)
{
	text_add(t, "Commands, which may be abbreviated:\n");
	for (int i = 0; i < verb_count; i++)
		text_add(t, "  %s %s\n      %s\n", verbs[i].name, verbs[i].args, verbs[i].does);
	text_add(t,
		 "\n# starts a comment. Sizes, offsets and lengths are numbers (0x for hex), plain or with k, m, g or\n"
		 "p (pages). An offset needs a length after it; the length * is all that follows. Nodes and CPUs are\n"
		 "lists with ranges: 0-3,5. A command that fails is told of and the next one done; the exit status is\n"
		 "then 1. A command that cannot be understood ends a script, with status 2.\n");
}

static void do_help(struct command *c, struct outcome *o)
{
	const char *word = take(c);
	const struct verb *v;

	if (!nothing_left(c, o))
		return;
	if (!word) {
		if (!json_output)
			print_help(&o->human);
		return;
	}
	v = find_verb(word, o);
	if (!v)
		return;
	put_string(o, "name", v->name);
	put_string(o, "args", v->args);
	put_string(o, "does", v->does);
	say(o, "%s %s\n    %s\n", v->name, v->args, v->does);
}
