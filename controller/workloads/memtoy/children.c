// SPDX-License-Identifier: GPL-2.0-only
/*
 * Children: processes that take commands from a pipe and answer each with a byte on another, by which `wait` knows that
 * it is done. What they have to tell they write themselves, to the standard output they share with memtoy.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "children.h"

struct message {
	enum { COMMAND, WAIT } kind;
	int line;
	unsigned int length;	/* of the text that follows */
};

char child_path[1024];

struct child *children;
int my_commands = -1;
static int my_answers = -1;

static bool read_all(int fd, void *at, size_t length)
{
	while (length) {
		ssize_t n = read(fd, at, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		at = (char *)at + n;
		length -= (size_t)n;
	}
	return true;
}

static bool write_all(int fd, const void *at, size_t length)
{
	while (length) {
		ssize_t n = write(fd, at, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		at = (const char *)at + n;
		length -= (size_t)n;
	}
	return true;
}

static void reap(struct child *k)
{
	pid_t pid;

	if (k->gone)
		return;
	do
		pid = waitpid(k->pid, &k->wait_status, 0);
	while (pid < 0 && errno == EINTR);
	k->gone = true;
	if (k->command_fd >= 0)
		close(k->command_fd);
	close(k->answer_fd);
	k->command_fd = k->answer_fd = -1;
}

bool hear(struct child *k, uint64_t deadline_ns)
{
	while (!k->gone) {
		struct pollfd polled = { .fd = k->answer_fd, .events = POLLIN };
		uint64_t now = now_ns(), left = deadline_ns > now ? (deadline_ns - now + 999999) / 1000000 : 0;
		int timeout = deadline_ns == FOREVER ? -1 : left > 1000000 ? 1000000 : (int)left, n;
		unsigned char answer[256];
		ssize_t got;

		n = poll(&polled, 1, timeout);
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0) {
			if (left)
				continue;
			return false;
		}
		got = read(k->answer_fd, answer, sizeof(answer));
		if (got <= 0) {
			reap(k);
			return true;
		}
		for (ssize_t i = 0; i < got; i++) {
			k->answered++;
			k->failures += answer[i] != DONE && answer[i] != QUIT;
			if (answer[i] == WRONG || (answer[i] == FAILED && k->worst != WRONG))
				k->worst = (enum status)answer[i];
		}
		return true;
	}
	return true;
}

static bool tell(struct child *k, int kind, int line, const char *text)
{
	struct message m = { .kind = kind, .line = line, .length = (unsigned int)strlen(text) };

	/* The answers so far, so that their pipe never fills. */
	while (!k->gone && k->answered < k->sent && hear(k, 0))
		;
	if (k->gone)
		return false;
	if (!write_all(k->command_fd, &m, sizeof(m)) || !write_all(k->command_fd, text, m.length)) {
		/* Nobody reads any more: it is ending, and its last answers come before the end. */
		while (!k->gone)
			hear(k, FOREVER);
		return false;
	}
	k->sent++;
	if (kind == COMMAND)
		k->last_command = k->sent;
	return true;
}

bool tell_child(struct child *k, int line, const char *command)
{
	return tell(k, COMMAND, line, command);
}

bool await(struct child *k, uint64_t deadline_ns)
{
	tell(k, WAIT, 0, "");
	while (!k->gone && k->answered < k->sent)
		if (!hear(k, deadline_ns))
			return false;
	return true;
}

struct child *find_child(struct outcome *o, const char *name, size_t length)
{
	for (struct child *k = children; k; k = k->next)
		if (strlen(k->name) == length && !memcmp(k->name, name, length))
			return k;
	failed(o, ESRCH, "no child '%.*s'", (int)length, name);
	return NULL;
}

bool lost(const struct child *k)
{
	if (!k->gone)
		return false;
	if (WIFSIGNALED(k->wait_status))
		return WTERMSIG(k->wait_status) != k->kicked;
	/* It may have quit as told; commands that came after that were never done. */
	return k->answered < k->last_command;
}

enum status children_end(void)
{
	enum status worst = DONE;

	/* No more commands: each ends after those it has. One that was stopped has to go on for that. */
	for (struct child *k = children; k; k = k->next) {
		if (k->gone)
			continue;
		close(k->command_fd);
		k->command_fd = -1;
		kill(k->pid, SIGCONT);
	}
	while (children) {
		struct child *k = children;

		while (!k->gone)
			hear(k, FOREVER);
		if (lost(k) && k->worst == DONE)
			k->worst = FAILED;
		if (WIFEXITED(k->wait_status) && WEXITSTATUS(k->wait_status) && k->worst == DONE)
			k->worst = WEXITSTATUS(k->wait_status) == 2 ? WRONG : FAILED;
		if (k->worst == WRONG || worst == DONE)
			worst = k->worst;
		children = k->next;
		free(k);
	}
	return worst;
}

/* What a child does all its life. */
static void __attribute__((noreturn)) serve(int commands, int answers)
{
	enum status status = DONE, worst = DONE, below;
	struct message m;

	my_commands = commands;
	my_answers = answers;
	while (status != QUIT && read_all(commands, &m, sizeof(m))) {
		char *text = malloc(m.length + 1);
		unsigned char answer;

		if (!text || !read_all(commands, text, m.length))
			_exit(1);
		text[m.length] = '\0';
		status = DONE;
		if (m.kind == WAIT)
			for (struct child *k = children; k; k = k->next)
				await(k, FOREVER);
		else
			status = run_line(m.line, text);
		free(text);
		if (status == WRONG || (status == FAILED && worst == DONE))
			worst = status;
		answer = (unsigned char)status;
		if (!write_all(answers, &answer, 1) || status == WRONG)
			break;
	}
	below = children_end();
	if (below == WRONG || worst == DONE)
		worst = below;
	mems_end();
	segments_end();
	/* Not exit(): it would move the script's file position, which is shared with memtoy. */
	_exit(worst == DONE ? 0 : worst == WRONG ? 2 : 1);
}

static void __attribute__((noreturn)) become_child(const char *name, int commands, int answers, pid_t parent)
{
	size_t used = strlen(child_path);
	sigset_t set;

	/* Else a sibling's pipe would stay open when memtoy closes it. */
	while (children) {
		struct child *k = children;

		if (!k->gone) {
			close(k->command_fd);
			close(k->answer_fd);
		}
		children = k->next;
		free(k);
	}
	if (my_commands >= 0) {
		close(my_commands);
		close(my_answers);
	}
	snprintf(child_path + used, sizeof(child_path) - used, "/%s", name);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	serve(commands, answers);
}

/* Both ends of both pipes, or none. */
static bool two_pipes(int command_pipe[2], int answer_pipe[2])
{
	if (pipe(command_pipe))
		return false;
	if (!pipe(answer_pipe))
		return true;
	close(command_pipe[0]);
	close(command_pipe[1]);
	return false;
}

struct child *new_child(struct outcome *o, const char *name)
{
	int command_pipe[2], answer_pipe[2];
	struct child *k, **end = &children;
	pid_t self = getpid();

	while (*end)
		end = &(*end)->next;
	k = calloc(1, sizeof(*k));
	if (!k || !two_pipes(command_pipe, answer_pipe)) {
		failed(o, errno, "child '%s'", name);
		free(k);
		return NULL;
	}
	output_shared();
	timed_begin(o);
	k->pid = fork();
	if (k->pid == 0) {
		free(k);
		close(command_pipe[1]);
		close(answer_pipe[0]);
		become_child(name, command_pipe[0], answer_pipe[1], self);
	}
	timed_end(o);
	close(command_pipe[0]);
	close(answer_pipe[1]);
	k->command_fd = command_pipe[1];
	k->answer_fd = answer_pipe[0];
	if (k->pid < 0) {
		failed(o, errno, "fork");
		close(k->command_fd);
		close(k->answer_fd);
		free(k);
		return NULL;
	}
	strcpy(k->name, name);
	*end = k;
	return k;
}
