/* SPDX-License-Identifier: GPL-2.0-only */
/* Children, as children.c keeps them and family.c gives them commands. */
#ifndef MEMTOY_CHILDREN_H
#define MEMTOY_CHILDREN_H

#include "common.h"

#define FOREVER (~0ULL)

struct child {
	struct child *next;
	char name[64];
	pid_t pid;
	int command_fd, answer_fd;
	unsigned int sent, answered;	/* messages; */
	unsigned int last_command;	/* `sent` at the last that was a command */
	unsigned int failures;
	enum status worst;
	bool gone;		/* reaped, with */
	int wait_status;
	int kicked;		/* the last signal that `kick` sent, 0 none */
};

extern struct child *children;
extern int my_commands;		/* a child's own end of its pipe, -1 in memtoy itself */

struct child *find_child(struct outcome *o, const char *name, size_t length);
/* Forks; the child never comes back from it. NULL (and told) when it cannot. */
struct child *new_child(struct outcome *o, const char *name);
/* False when the child is gone. */
bool tell_child(struct child *k, int line, const char *command);
/* Take the answers that are there; wait for one until `deadline_ns`. False when time is up. */
bool hear(struct child *k, uint64_t deadline_ns);
/* Until it has done all it was told, its own children too. False when time is up. */
bool await(struct child *k, uint64_t deadline_ns);
/* Gone without having done all it was told, and not by a kick. */
bool lost(const struct child *k);

/* signals.c */
/* 0 when there is none of that name or number. */
int signal_number(const char *word);
void list_signals(struct outcome *o);

#endif
