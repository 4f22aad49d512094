// SPDX-License-Identifier: GPL-2.0-only
/*
 * Asks the kernel, for combinations of memory policy, cpuset and CPU, two things: where it moves pages that are touched
 * after they were unmapped lazily, and where it takes fresh pages from.
 *
 *   policy <LINES        a combination a line (combination.c); prints an object of JSON for each
 *   policy call <LINES   a call of mbind() a line (call.c)
 *
 * Needs root, cgroup2 and tracefs where systemd has them, and swap. An object with "wrong" says what could not be done.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

const size_t page_size = 4096;

long doing_id = -1;

void stop(const char *doing)
{
	int error = errno;

	printf("{\"id\": %ld, \"wrong\": \"%s: %s\"}\n", doing_id, doing, strerror(error));
	fflush(stdout);
	_exit(1);
}

void need(const char *doing, bool fine)
{
	if (!fine)
		stop(doing);
}

static void in_a_child(const struct combination *c)
{
	int status = 0;
	pid_t child;

	fflush(stdout);
	child = fork();
	need("fork", child >= 0);
	if (!child) {
		try_combination(c);
		fflush(stdout);
		_exit(0);
	}
	need("waitpid", waitpid(child, &status, 0) == child);
	if (WIFSIGNALED(status))
		printf("{\"id\": %ld, \"wrong\": \"ended by signal %d\"}\n", c->id, WTERMSIG(status));
}

static void try_combinations(void)
{
	static struct combination all[4096];
	size_t count = 0, room = 0;
	char *line = NULL;

	while (count < sizeof(all) / sizeof(*all) && getline(&line, &room, stdin) > 0) {
		line[strcspn(line, "\n")] = '\0';
		read_combination(line, &all[count++]);
	}
	settings_begin();
	trace_begin();
	for (size_t n = 0; n < count; n++) {
		doing_id = all[n].id;
		settings_for(&all[n]);
		in_a_child(&all[n]);
	}
	doing_id = -1;
	trace_end();
	settings_end();
}

int main(int count, char **argument)
{
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	if (count == 2 && !strcmp(argument[1], "call")) {
		try_calls();
	} else if (count == 1) {
		try_combinations();
	} else {
		fprintf(stderr, "policy: takes nothing, or call\n");
		return 2;
	}
	return fflush(stdout) ? 1 : 0;
}
