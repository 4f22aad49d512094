// SPDX-License-Identifier: GPL-2.0-only
/* memtoy: defines, places, touches, moves and locates memory, by script. See common.h for what is where. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

bool json_output, verbose, mark_accesses;
static unsigned int settle_ms;
const char *script_name = "<stdin>";

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

/* What the calling thread has run for: on a clock that counts instructions, how many of them were its own. */
static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

/*
 * Whatever the last command has left to be done (freeing after a grace period, say) is not this one's. The kernel's
 * periodic work comes at round times (ticks; vmstat's every second): beginning half way between two multiples of the
 * period, each command meets it at the same distance; and 2.5 ms later, which is between two ticks at 100, 250 and 1000 Hz,
 * since a tick that coincides with the beginning may be counted or not.
 */
#define OFF_TICK_NS 2500000ULL
static void settle(void)
{
	uint64_t period = settle_ms * 1000000ULL, half = period / 2, at;
	struct timespec until;

	if (!settle_ms)
		return;
	at = (now_ns() + period - 1) / period * period + half + OFF_TICK_NS;
	until.tv_sec = (time_t)(at / 1000000000ULL);
	until.tv_nsec = (long)(at % 1000000000ULL);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

void timed_begin(struct outcome *o)
{
	settle();
	o->cpu_ns = cpu_ns();
	o->start_ns = now_ns();
}

void timed_end(struct outcome *o)
{
	/* Keeps errno: it stands between a system call and the look at its result. */
	int err = errno;

	o->end_ns = now_ns();
	o->cpu_ns = cpu_ns() - o->cpu_ns;
	errno = err;
}

/* Without comment and outer blanks; NULL when nothing is left. The caller frees it. */
static char *bare_line(const char *text)
{
	size_t length = 0;
	char *bare;

	text += strspn(text, " \t\r\n\v\f");
	/* A # inside a word (a file's name, say) is part of it. */
	while (text[length] && text[length] != '\n' &&
	       !(text[length] == '#' && (!length || strchr(" \t", text[length - 1]))))
		length++;
	while (length && strchr(" \t\r\v\f", text[length - 1]))
		length--;
	if (!length)
		return NULL;
	bare = strndup(text, length);
	if (!bare) {
		complain(0, "out of memory");
		_exit(1);
	}
	return bare;
}

enum status run_line(int line, const char *text)
{
	static struct outcome o;	/* its buffers stay, grown and faulted in, from command to command */
	struct command c = { .line = line };
	char *bare = bare_line(text);
	const char *name = "";
	uint64_t start;

	if (!bare)
		return DONE;
	c.text = bare;
	c.storage = strdup(bare);
	if (!c.storage) {
		complain(0, "out of memory");
		_exit(1);
	}
	outcome_reset(&o);
	start = now_ns();
	if (verbose && !json_output)
		say(&o, "%s:%d: %s\n", script_name, line, bare);
	if (split_words(&c, &o)) {
		if (c.word[0][0] == '/') {
			name = "/";
			do_forward(&c, &o);
		} else {
			const struct verb *v = find_verb(c.word[0], &o);

			if (v) {
				name = v->alias_of ? v->alias_of : v->name;
				v->run(&c, &o);
			}
		}
	}
	if (!o.start_ns)
		o.start_ns = start;
	if (!o.end_ns)
		o.end_ns = now_ns();
	/* What was forwarded is told by the child that does it. */
	if (!(name[0] == '/' && o.status == DONE && c.count > 1))
		emit(&c, name, &o);
	free(c.storage);
	free(bare);
	return o.status;
}

static void usage(bool commands)
{
	struct text t = { 0 };

	text_add(&t,
		 "memtoy " VERSION ": defines, places, touches, moves and locates memory, by script.\n\n"
		 "  memtoy [-a] [-v] [-j] [-s MS] [SCRIPT]   run a script, or standard input\n"
		 "  -v  show each command before its result      -V  the version\n"
		 "  -j  one JSON object a line for each command  -h, -x  this help\n"
		 "  -a  mark what `touch` accesses for the memory-controller plugin\n"
		 "  -s  before each command that is timed, sleep half of so many milliseconds at least\n\n");
	if (commands)
		print_help(&t);
	write_out(t.at, t.used);
	free(t.at);
}

static int run_script(FILE *script, bool interactive)
{
	enum status status = DONE, worst = DONE, below;
	char *text = NULL;
	size_t room = 0;
	int line = 0;

	while (status != QUIT && !(status == WRONG && !interactive)) {
		if (interactive)
			write_out("memtoy> ", 8);
		if (getline(&text, &room, script) < 0)
			break;
		status = run_line(++line, text);
		if (status == WRONG || (status == FAILED && worst == DONE))
			worst = status;
	}
	free(text);
	below = children_end();
	if (below == WRONG || worst == DONE)
		worst = below;
	return worst == DONE || worst == QUIT ? 0 : worst == WRONG ? 2 : 1;
}

static bool parse_settle(const char *text)
{
	char *end;
	unsigned long ms = strtoul(text, &end, 10);

	settle_ms = (unsigned int)ms;
	return *text >= '0' && *text <= '9' && !*end && ms <= 60000;
}

int main(int argc, char **argv)
{
	FILE *script = stdin;
	int option, status;

	while ((option = getopt(argc, argv, "avVhxjs:")) != -1) {
		switch (option) {
		case 'a': mark_accesses = true; break;
		case 'v': verbose = true; break;
		case 'j': json_output = true; break;
		case 's':
			if (!parse_settle(optarg)) {
				complain(0, "-s wants milliseconds, 0 to 60000");
				return 2;
			}
			break;
		case 'V': write_out("memtoy " VERSION "\n", strlen("memtoy " VERSION "\n")); return 0;
		case 'h':
		case 'x': usage(true); return 0;
		default: complain(0, "usage: memtoy [-a] [-v] [-V] [-j] [-s MS] [-h|-x] [SCRIPT]"); return 2;
		}
	}
	if (argc - optind > 1) {
		complain(0, "one script at a time (memtoy -h shows the usage)");
		return 2;
	}
	if (optind < argc) {
		script_name = argv[optind];
		script = fopen(script_name, "re");
		if (!script) {
			fprintf(stderr, "memtoy: %s: %s\n", script_name, strerror(errno));
			return 2;
		}
	}
	page_size = (size_t)sysconf(_SC_PAGESIZE);
	catch_faults();
	signals_start();
	output_start();
	/*
	 * Faults in all that memtoy has, its code above all, and lets go of it again: between a command's start and end
	 * there shall be no faults but those that the command is about. Without the right to lock so much, there are a few.
	 */
	if (!mlockall(MCL_CURRENT))
		munlockall();
	status = run_script(script, optind == argc && isatty(STDIN_FILENO) && !json_output);
	mems_end();
	segments_end();
	if (script != stdin)
		fclose(script);
	return status;
}
