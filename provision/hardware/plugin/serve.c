// SPDX-License-Identifier: GPL-2.0-only
/* The host's side: a socket, and a thread that answers there. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "memctl.h"

static void count_there(struct cpu_state *cpu, union cpu_data data)
{
	(void)cpu;
	count(data.value);
}

/* Only while nothing is counted, which the lock keeps so: a mark waits for it. */
static void answer_of(const char *line, bool quiet, FILE *to)
{
	if (!quiet) {
		fprintf(to, "{\"error\": \"not while it counts\"}\n");
	} else if (!cpus_told_apart()) {
		fprintf(to, "{\"error\": \"this QEMU does not tell which CPU runs\"}\n");
	} else if (!strcmp(line, "read")) {
		tell_all(to);
	} else if (!strcmp(line, "pages")) {
		fprintf(to, "{");
		tell_pages(to);
		fprintf(to, "}\n");
	} else if (!strcmp(line, "model")) {
		only_model = true;
		fprintf(to, "{}\n");
	} else if (!strcmp(line, "clear")) {
		forget();
		fprintf(to, "{}\n");
	} else {
		fprintf(to, "{\"error\": \"not understood\"}\n");
	}
}

/* One word a line, one line of JSON for an answer, put together before it is sent: who reads slowly stops nobody. */
static void answer(const char *line, FILE *to)
{
	char *text = NULL;
	size_t size = 0;
	FILE *kept;

	if (!strcmp(line, "on") || !strcmp(line, "off")) {
		bool on = line[1] == 'n';

		async_run_on_cpu(qemu_get_cpu(0), count_there, (union cpu_data){ .value = on });
		fprintf(to, settled(on) ? "{}\n" : "{\"error\": \"no CPU took notice\"}\n");
		fflush(to);
		return;
	}
	applied_now();
	kept = open_memstream(&text, &size);
	if (kept) {
		answer_of(line, lock_while_quiet(), kept);
		unlock();
		fclose(kept);
		fwrite(text, 1, size, to);
		free(text);
	} else {
		fprintf(to, "{\"error\": \"no memory\"}\n");
	}
	fflush(to);
}

static void *serve(void *data)
{
	int listening = (int)(intptr_t)data;
	char line[64];

	for (;;) {
		int one = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
		FILE *from = one >= 0 ? fdopen(one, "r") : NULL, *to = from ? fdopen(dup(one), "w") : NULL;

		if (!to) {
			if (from)
				fclose(from);
			else if (one >= 0)
				close(one);
			else if (errno != EINTR && errno != ECONNABORTED)
				return NULL;
			continue;
		}
		while (fgets(line, sizeof(line), from)) {
			line[strcspn(line, "\r\n")] = '\0';
			answer(line, to);
		}
		fclose(to);
		fclose(from);
	}
}

int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	pthread_t thread;
	int listening;

	if (strlen(path) >= sizeof(address.sun_path))
		return -1;
	strcpy(address.sun_path, path);
	listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listening < 0 || bind(listening, (struct sockaddr *)&address, sizeof(address)) || listen(listening, 4))
		return -1;
	return pthread_create(&thread, NULL, serve, (void *)(intptr_t)listening) ? -1 : 0;
}
