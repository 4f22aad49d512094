// SPDX-License-Identifier: GPL-2.0-only
/*
 * mixed: a load that leaves nothing behind, if the kernel does not.
 *
 * Starts processes, kills them at random, starts others in their place, and counts. All of it ends when the asked time
 * has passed and the kernel has counted the asked number of migrations.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

#define MOST_WORKERS 64
#define GRACE_SECONDS 60.0
/* Between two looks at the clock and the counters: reading those is work for every CPU. */
#define LOOK_SECONDS 1.0

struct shared *shared;

static struct options {
	double seconds, limit;
	long migrations;
	uint64_t seed;
	int workers;
} options = { .seconds = 10, .limit = 3600, .workers = 6 };

static struct {
	pid_t pid;		/* 0: none */
	bool killed;		/* by us */
} workers[MOST_WORKERS];

static unsigned long started, killed, crashed, lost, broken;
static int last_signal;

void refused(void)
{
	atomic_store(&shared->refused_errno, errno);
	atomic_fetch_add(&shared->refused, 1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void start(int index)
{
	uint64_t seed = options.seed * 1000003 + started;
	pid_t pid = fork();

	if (pid < 0) {
		refused();
		return;
	}
	if (!pid) {
		setpgid(0, 0);
		worker(seed);
	}
	setpgid(pid, pid);
	workers[index].pid = pid;
	workers[index].killed = false;
	started++;
}

static void account(pid_t pid, int status)
{
	int index = 0;

	while (index < options.workers && workers[index].pid != pid)
		index++;
	if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) {
		crashed++;
		last_signal = WTERMSIG(status);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status))
		broken++;
	if (index == options.workers)
		return; /* a child of a worker, left to us by its death */
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && !workers[index].killed)
		lost++;
	/* What it had forked goes as well: most of it in the middle of something. */
	if (workers[index].killed)
		kill(-pid, SIGKILL);
	workers[index].pid = 0;
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		account(pid, status);
}

static void kill_one(struct random *r)
{
	int index = (int)below(r, (unsigned long)options.workers);

	if (!workers[index].pid || workers[index].killed)
		return;
	workers[index].killed = true;
	if (!kill(-workers[index].pid, SIGKILL))
		killed++;
}

static void rest(struct random *r)
{
	struct timespec t = { .tv_nsec = (long)below(r, 20 * 1000 * 1000) };

	nanosleep(&t, NULL);
}

/* Returns when all that was started has ended; false when something does not, even when killed. */
static bool end_all(void)
{
	double until = now() + GRACE_SECONDS;
	struct random random = { .state = 1 };
	int status;
	pid_t pid;

	atomic_store(&shared->stop, true);
	while ((pid = waitpid(-1, &status, WNOHANG)) >= 0 && now() < until) {
		if (pid > 0)
			account(pid, status);
		else
			rest(&random);
	}
	if (pid < 0)
		return true;
	for (int i = 0; i < options.workers; i++)
		if (workers[i].pid) {
			workers[i].killed = true;
			kill(-workers[i].pid, SIGKILL);
		}
	for (until = now() + GRACE_SECONDS; now() < until; rest(&random)) {
		reap();
		if (waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD)
			return true;
	}
	return false;
}

static double number(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (*end || end == text || value < 0) {
		fprintf(stderr, "mixed: '%s' is not a number from 0 up\n", text);
		exit(2);
	}
	return value;
}

static void parse(int argc, char **argv)
{
	static const struct option known[] = {
		{ "seconds", required_argument, NULL, 's' },   { "migrations", required_argument, NULL, 'm' },
		{ "seed", required_argument, NULL, 'r' },      { "processes", required_argument, NULL, 'p' },
		{ "limit", required_argument, NULL, 'l' },     { NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) >= 0) {
		if (option == 's')
			options.seconds = number(optarg);
		else if (option == 'm')
			options.migrations = (long)number(optarg);
		else if (option == 'r')
			options.seed = (uint64_t)number(optarg);
		else if (option == 'p')
			options.workers = (int)number(optarg);
		else if (option == 'l')
			options.limit = number(optarg);
		else
			exit(2);
	}
	if (optind < argc || options.workers < 1 || options.workers > MOST_WORKERS) {
		fprintf(stderr, "usage: mixed [--seconds N] [--migrations M] [--seed S] [--processes 1-%d] [--limit SECONDS]\n",
			MOST_WORKERS);
		exit(2);
	}
}

static void report(double seconds, long migrations, bool enough, bool ended)
{
	struct rusage used = { 0 };

	getrusage(RUSAGE_CHILDREN, &used);
	printf("{\"seconds\": %.1f, \"seed\": %lu, \"enough\": %s, \"all_ended\": %s, ", seconds,
	       (unsigned long)options.seed, enough ? "true" : "false", ended ? "true" : "false");
	printf("\"migrations\": %ld, \"processes\": %lu, \"killed\": %lu, \"early_exits\": %lu, ", migrations,
	       started + atomic_load(&shared->forks), killed, atomic_load(&shared->early_exits));
	printf("\"faults\": %ld, \"major_faults\": %ld, ", used.ru_minflt + used.ru_majflt, used.ru_majflt);
	printf("\"lazy\": %lu, \"direct\": %lu, \"pageouts\": %lu, \"remaps\": %lu, \"locks\": %lu, ",
	       atomic_load(&shared->lazy), atomic_load(&shared->direct), atomic_load(&shared->pageouts),
	       atomic_load(&shared->remaps), atomic_load(&shared->locks));
	printf("\"checked\": %lu, \"written\": %lu, \"crashed\": %lu, \"signal\": %d, \"lost\": %lu, \"broken\": %lu, ",
	       atomic_load(&shared->checked), atomic_load(&shared->written), crashed, last_signal, lost, broken);
	printf("\"refused\": %lu, \"errno\": %d, \"mismatches\": %lu", atomic_load(&shared->refused),
	       atomic_load(&shared->refused_errno), atomic_load(&shared->mismatches));
	if (atomic_load(&shared->first_taken))
		printf(", \"first\": {\"area\": \"%s\", \"page\": %lu, \"word\": %lu, \"expected\": %lu, \"found\": %lu}",
		       kind_names[shared->first.kind], (unsigned long)shared->first.page,
		       (unsigned long)shared->first.word, (unsigned long)shared->first.expected,
		       (unsigned long)shared->first.found);
	printf("}\n");
}

int main(int argc, char **argv)
{
	static const char counter[] = "pgmigrate_on_fault";
	struct random random;
	double begun, looked;
	long before, migrations = 0;
	bool enough = false, ended;

	parse(argc, argv);
	learn_machine();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		perror("mixed: mmap");
		return 2;
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	random.state = mix(options.seed);
	before = vmstat(counter);
	begun = looked = now();
	while (!enough && now() - begun < options.limit) {
		for (int i = 0; i < options.workers; i++)
			if (!workers[i].pid)
				start(i);
		rest(&random);
		reap();
		if (!below(&random, 16))
			kill_one(&random);
		if (now() - looked < LOOK_SECONDS)
			continue;
		looked = now();
		migrations = vmstat(counter) - before;
		enough = looked - begun >= options.seconds && migrations >= options.migrations;
	}
	ended = end_all();
	migrations = vmstat(counter) - before;
	report(now() - begun, migrations, enough, ended);
	return !(enough && ended && !atomic_load(&shared->mismatches) && !crashed && !broken);
}
