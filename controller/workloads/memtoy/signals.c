// SPDX-License-Identifier: GPL-2.0-only
/* Signals: waiting for one, and their names. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "children.h"

void signals_start(void)
{
	sigset_t set;

	/* Kept pending until `pause` takes them: a kick that comes before the pause is not lost. */
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

void do_pause(struct command *c, struct outcome *o)
{
	struct signalfd_siginfo info = { 0 };
	struct pollfd polled[2];
	sigset_t set, before;
	int fd, n;

	if (!nothing_left(c, o))
		return;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, &before);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0) {
		failed(o, errno, "signalfd");
	} else {
		/* A child stops waiting when nobody is left who could kick it: its pipe hangs up. */
		polled[0] = (struct pollfd){ .fd = fd, .events = POLLIN };
		polled[1] = (struct pollfd){ .fd = my_commands, .events = 0 };
		timed_begin(o);
		do
			n = poll(polled, 2, -1);
		while (n < 0 && errno == EINTR);
		timed_end(o);
		if (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
			info.ssi_signo = 0;
		close(fd);
		put(o, "signal", "%u", info.ssi_signo);
		say(o, info.ssi_signo ? "pause ended by SIG%s\n" : "pause ended\n",
		    info.ssi_signo ? sigabbrev_np((int)info.ssi_signo) : "");
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
}

int signal_number(const char *word)
{
	uint64_t n;

	if (parse_number(word, false, &n))
		return n > 0 && n < 32 ? (int)n : 0;
	if (!strncasecmp(word, "SIG", 3))
		word += 3;
	for (int s = 1; s < 32; s++)
		if (sigabbrev_np(s) && !strcasecmp(sigabbrev_np(s), word))
			return s;
	return 0;
}

void list_signals(struct outcome *o)
{
	put(o, "signals", "[");
	for (int s = 1; s < 32; s++) {
		const char *name = sigabbrev_np(s) ? sigabbrev_np(s) : "";

		text_add(&o->result, s > 1 ? ", \"%s\"" : "\"%s\"", name);
		say(o, "%2d %-8s%s", s, name, s % 8 && s < 31 ? "" : "\n");
	}
	text_add(&o->result, "]");
}
