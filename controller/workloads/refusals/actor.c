// SPDX-License-Identifier: GPL-2.0-only
/*
 * Other processes. They are forked without exec, so that the address of a function, and what its file knows, is the same
 * there; a request is such an address and a number.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

struct request {
	long (*what)(long);
	long argument;
};

static _Noreturn void serve(int requests, int answers)
{
	struct request request;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(requests, &request, sizeof(request)) == sizeof(request)) {
		long answer = request.what(request.argument);

		if (write(answers, &answer, sizeof(answer)) != sizeof(answer))
			break;
	}
	_exit(0);
}

struct actor actor_start(void)
{
	struct actor actor;
	int requests[2], answers[2];

	need("pipe", !pipe2(requests, 0) && !pipe2(answers, 0));
	actor.pid = fork();
	need("fork", actor.pid >= 0);
	if (!actor.pid) {
		close(requests[1]);
		close(answers[0]);
		serve(requests[0], answers[1]);
	}
	close(requests[0]);
	close(answers[1]);
	actor.ask = requests[1];
	actor.answer = answers[0];
	return actor;
}

long actor_do(const struct actor *actor, long (*what)(long), long argument)
{
	struct request request = { what, argument };
	long answer;

	need("asking a process", write(actor->ask, &request, sizeof(request)) == sizeof(request));
	if (read(actor->answer, &answer, sizeof(answer)) != sizeof(answer)) {
		errno = ECHILD;
		stop("a process's answer");
	}
	return answer;
}

void actor_end(struct actor *actor)
{
	close(actor->ask);
	close(actor->answer);
	waitpid(actor->pid, NULL, 0);
}
