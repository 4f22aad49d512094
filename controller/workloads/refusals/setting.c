// SPDX-License-Identifier: GPL-2.0-only
/* Files of /proc and /sys that the cases write, and a control group. The guard puts all of it back. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

#define MOST 32

/* Shared: the guard reads it when the case has ended, however that happened. */
static struct {
	int count;
	struct {
		char path[128], value[64];
	} was[MOST];
	char controllers[128];	/* that the root's children had not, each with its minus sign */
} *saved;

void settings_begin(void)
{
	saved = mmap(NULL, sizeof(*saved), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	need("settings", saved != MAP_FAILED);
}

int write_file(const char *path, const char *value)
{
	int file = open(path, O_WRONLY | O_CLOEXEC), error = 0;

	if (file < 0)
		return -errno;
	if (write(file, value, strlen(value)) < 0)
		error = -errno;
	close(file);
	errno = -error;
	return error;
}

bool read_text(const char *path, char *text, size_t room)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = -1;

	if (file >= 0) {
		got = read(file, text, room - 1);
		close(file);
	}
	text[got > 0 ? got : 0] = '\0';
	return got >= 0;
}

long read_number(const char *path)
{
	char text[64];

	need(path, read_text(path, text, sizeof(text)));
	return atol(text);
}

static bool is_remembered(const char *path)
{
	for (int n = 0; n < saved->count; n++)
		if (!strcmp(saved->was[n].path, path))
			return true;
	return false;
}

void set(const char *path, const char *value)
{
	if (!is_remembered(path)) {
		need(path, saved->count < MOST);
		need(path, read_text(path, saved->was[saved->count].value, sizeof(saved->was->value)));
		snprintf(saved->was[saved->count].path, sizeof(saved->was->path), "%s", path);
		saved->count++;
	}
	need(path, !write_file(path, value));
}

void set_number(const char *path, long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", value);
	set(path, text);
}

void group_make(const char *controllers)
{
	char had[256], list[128], *rest = list, *one;

	need("controllers", read_text(CGROUPS "/cgroup.subtree_control", had, sizeof(had)));
	snprintf(list, sizeof(list), "%s", controllers);
	while ((one = strsep(&rest, " ")))
		if (!strstr(had, one + 1))
			snprintf(saved->controllers + strlen(saved->controllers),
				 sizeof(saved->controllers) - strlen(saved->controllers), "-%s ", one + 1);
	need(controllers, !write_file(CGROUPS "/cgroup.subtree_control", controllers));
	need(GROUP, !mkdir(GROUP, 0755));
}

void group_join(void)
{
	need("joining the group", !write_file(GROUP "/cgroup.procs", "0"));
}

static void group_remove(void)
{
	/* Who has just been waited for may be counted for a moment still. */
	for (int tries = 0; rmdir(GROUP) && errno == EBUSY && tries < 500; tries++)
		usleep(10000);
	if (*saved->controllers)
		write_file(CGROUPS "/cgroup.subtree_control", saved->controllers);
}

void settings_restore(void)
{
	while (saved->count--)
		if (write_file(saved->was[saved->count].path, saved->was[saved->count].value))
			fprintf(stderr, "%s could not be put back: %s\n", saved->was[saved->count].path, strerror(errno));
	group_remove();
}
