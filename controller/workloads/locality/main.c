// SPDX-License-Identifier: GPL-2.0-only
/*
 * locality: four kinds of work by which it shows where memory is.
 *
 *   locality chase  --bytes B --steps S
 *   locality stream --bytes B
 *   locality update --bytes B --steps S
 *   locality parts  --bytes B --workers CPU,... --placement first-touch|direct|lazy|ideal [--percent P] [--writes]
 *
 * and with each of them
 *
 *   --rounds N     so many of them
 *   --cpu C        where it runs; of parts, the thread that initialises
 *   --node N       where its memory is (not of parts)
 *   --mark         with marks for the memory-controller plugin
 *   --settle MS    rest before the first phase
 *
 * Prints a JSON object a phase and one at the end. Exit status: 0 the result is correct, 1 it is not, or a system call failed,
 * 2 usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const struct kind {
	const char *name;
	bool (*run)(const struct options *o, struct whereabouts *w);
	bool steps, parts;
} kinds[] = {
	{ "chase", chase, true, false },
	{ "stream", stream, false, false },
	{ "update", update, true, false },
	{ "parts", parts, false, true },
};

static struct options options = { .rounds = 1, .cpu = -1, .node = -1, .placement = PLACEMENTS, .percent = 100 };

void wrong(const char *format, ...)
{
	va_list values;

	va_start(values, format);
	fputs("locality: ", stderr);
	vfprintf(stderr, format, values);
	fputs("\n", stderr);
	va_end(values);
}

void failed(const char *what)
{
	wrong("%s: %s", what, strerror(errno));
	exit(1);
}

uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static _Noreturn void misused(const char *why)
{
	wrong("%s", why);
	exit(2);
}

/* Moves on to what comes after the number. */
static unsigned long number(const char **text, unsigned long most)
{
	char *rest;
	unsigned long value = strtoul(*text, &rest, 10);

	if (**text < '0' || **text > '9' || value > most)
		misused("a number is missing, or too large");
	*text = rest;
	return value;
}

static unsigned long only(const char *text, unsigned long most)
{
	unsigned long value = number(&text, most);

	if (*text)
		misused("a number ends in something else");
	return value;
}

static void take_workers(const char *text)
{
	options.n_workers = 0;
	do {
		if (options.n_workers == MAX_WORKERS)
			misused("too many workers");
		options.workers[options.n_workers++] = (int)number(&text, CPU_SETSIZE - 1);
	} while (*text++ == ',');
	if (text[-1])
		misused("--workers wants CPUs, with commas between them");
}

static void take_placement(const char *text)
{
	options.placement = FIRST_TOUCH;
	while (options.placement < PLACEMENTS && strcmp(text, placement_names[options.placement]))
		options.placement++;
	if (options.placement == PLACEMENTS)
		misused("--placement is first-touch, direct, lazy or ideal");
}

static void parse(int argc, char **argv)
{
	static const struct option known[] = {
		{ "bytes", required_argument, NULL, 'b' },     { "steps", required_argument, NULL, 's' },
		{ "rounds", required_argument, NULL, 'r' },    { "cpu", required_argument, NULL, 'c' },
		{ "node", required_argument, NULL, 'n' },      { "workers", required_argument, NULL, 'w' },
		{ "placement", required_argument, NULL, 'p' }, { "percent", required_argument, NULL, '%' },
		{ "writes", no_argument, NULL, 'W' },	       { "mark", no_argument, NULL, 'm' },
		{ "settle", required_argument, NULL, 'S' },    { NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) >= 0) {
		switch (option) {
		case 'b': options.bytes = only(optarg, 1UL << 40); break;
		case 's': options.steps = only(optarg, 1UL << 40); break;
		case 'r': options.rounds = (unsigned int)only(optarg, MAX_ROUNDS); break;
		case 'c': options.cpu = (int)only(optarg, CPU_SETSIZE - 1); break;
		case 'n': options.node = (int)only(optarg, MAX_NODES - 1); break;
		case 'w': take_workers(optarg); break;
		case 'p': take_placement(optarg); break;
		case '%': options.percent = (unsigned int)only(optarg, 100); break;
		case 'W': options.writes = true; break;
		case 'm': options.mark = true; break;
		case 'S': options.settle_ms = (unsigned int)only(optarg, 60000); break;
		default: exit(2);
		}
	}
	if (optind != argc)
		misused("one kind of work, and then its options");
}

static void check(const struct kind *kind)
{
	size_t bytes = options.bytes;

	if (!bytes || bytes % PAGE)
		misused("--bytes wants whole pages");
	if (!options.rounds || !options.percent)
		misused("--rounds and --percent are at least 1");
	if (kind->steps != (options.steps > 0))
		misused("--steps is for chase and update, which need it");
	if (kind->parts != (options.n_workers > 0 && options.placement < PLACEMENTS))
		misused("--workers and --placement are for parts, which needs both");
	if (kind->parts && (options.node >= 0 || bytes / PAGE < (size_t)options.n_workers))
		misused("parts takes no --node, and a page for each worker");
	if (kind->run == update && bytes & (bytes - 1))
		misused("--bytes of update is a power of two");
}

static void report(bool correct, const struct whereabouts *w)
{
	const char *between = "";

	print_phases();
	printf("{\"result\": \"%s\", \"pages\": {", correct ? "correct" : "wrong");
	for (int node = 0; node < MAX_NODES; node++) {
		if (!w->on[node])
			continue;
		printf("%s\"%d\": %lu", between, node, w->on[node]);
		between = ", ";
	}
	printf("}, \"absent\": %lu}\n", w->absent);
}

int main(int argc, char **argv)
{
	const struct kind *kind = kinds, *last = kinds + sizeof(kinds) / sizeof(*kinds);
	struct whereabouts where;
	bool correct;

	while (kind < last && (argc < 2 || strcmp(argv[1], kind->name)))
		kind++;
	if (kind == last)
		misused("the first word is chase, stream, update or parts");
	parse(argc - 1, argv + 1);
	check(kind);
	if (options.cpu >= 0)
		run_on(options.cpu);
	correct = kind->run(&options, &where);
	report(correct, &where);
	return correct ? 0 : 1;
}
