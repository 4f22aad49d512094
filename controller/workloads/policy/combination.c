// SPDX-License-Identifier: GPL-2.0-only
/* Reading a combination: `ID WORD=VALUE ...`; what is not given is 0, or none. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const char *const modes[] = { "default", "preferred", "bind", "interleave", "local", "preferred-many",
				     "weighted-interleave" };

int mode_of(const char *word)
{
	for (size_t n = 0; n < sizeof(modes) / sizeof(*modes); n++)
		if (!strcmp(word, modes[n]))
			return n;
	errno = EINVAL;
	stop("reading a mode");
}

static long number(const char *text)
{
	char *end;
	long found = strtol(text, &end, 0);

	if (end == text || *end) {
		errno = EINVAL;
		stop("reading a number");
	}
	return found;
}

/* "3,1,1": those of node 0 and up. */
static void read_weights(char *text, struct combination *c)
{
	for (int node = 0; text && node < MOST_NODES; node++)
		c->weights[node] = number(strsep(&text, ","));
}

static void read_word(const char *name, char *value, struct combination *c)
{
	if (!strcmp(name, "mode"))
		c->mode = mode_of(value);
	else if (!strcmp(name, "flags"))
		c->flags = number(value);
	else if (!strcmp(name, "task"))
		c->task = number(value);
	else if (!strcmp(name, "nodes"))
		c->nodes = number(value);
	else if (!strcmp(name, "rival"))
		c->rival = number(value);
	else if (!strcmp(name, "home"))
		c->home = number(value);
	else if (!strcmp(name, "cpu"))
		c->cpu = number(value);
	else if (!strcmp(name, "enter"))
		c->enter = number(value);
	else if (!strcmp(name, "then"))
		c->then = number(value);
	else if (!strcmp(name, "weights"))
		read_weights(value, c);
	else if (!strcmp(name, "sysctl"))
		c->sysctl = number(value);
	else if (!strcmp(name, "units"))
		c->units = number(value);
	else if (!strcmp(name, "rotate"))
		c->rotate = number(value);
	else if (!strcmp(name, "shift"))
		c->shift = number(value);
	else if (!strcmp(name, "huge"))
		c->huge = number(value);
	else if (!strcmp(name, "write"))
		c->write = number(value);
	else if (!strcmp(name, "direct"))
		c->direct = number(value);
	else {
		errno = EINVAL;
		stop(name);
	}
}

void read_combination(char *line, struct combination *c)
{
	char *word = strsep(&line, " ");

	*c = (struct combination){ .id = number(word), .home = -1, .sysctl = 1 };
	while ((word = strsep(&line, " "))) {
		char *value = strchr(word, '=');

		if (!value) {
			errno = EINVAL;
			stop(word);
		}
		*value++ = '\0';
		read_word(word, value, c);
	}
	if (c->units < 1 || c->units > MOST_UNITS) {
		errno = EINVAL;
		stop("units");
	}
}
