// SPDX-License-Identifier: GPL-2.0-only
/* Memory that is to stay where it is, and memory of which writes are watched. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

static struct area area;

static size_t length(void)
{
	return area.units * PAGE;
}

void case_mlocked(void)
{
	area = usual_area();
	need("mlock", !mlock(area.at, length()));
	insist(&area);
	need("munlock", !munlock(area.at, length()));
	finish(&area, TO);
}

static void locked_when_out(int flags)
{
	area = usual_area();
	look("before", &area);
	lazy("lazy", &area, TO, 0);
	need("mlock2", !mlock2(area.at, length(), flags));
	/* Without MLOCK_ONFAULT, that call has touched it. */
	if (flags)
		touch("touch", &area);
	else
		step_done("touch", &area);
	look("after", &area);
	use(&area);
	lazy("strict", &area, TO, MF_STRICT);
	look("after_strict", &area);
	need("munlock", !munlock(area.at, length()));
	finish(&area, TO);
}

void case_mlocked_on_fault(void)
{
	locked_when_out(MLOCK_ONFAULT);
}

void case_mlocked_later(void)
{
	locked_when_out(0);
}

/* ---- userfaultfd ---- */

static int watch_fd;
static long protected_writes, other_events;

static int protect(char *at, size_t size, bool on)
{
	struct uffdio_writeprotect how = {
		.range = { .start = (uintptr_t)at, .len = size },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(watch_fd, UFFDIO_WRITEPROTECT, &how);
}

/* Lets each write go on that it is told of. Until there was one a page, or nothing comes any more: then lets all go on. */
static void *let_writes(void *unused)
{
	struct uffd_msg message;
	struct pollfd ready = { .fd = watch_fd, .events = POLLIN };

	while (protected_writes < area.units && poll(&ready, 1, PATIENCE * 1000) == 1 &&
	       read(watch_fd, &message, sizeof(message)) == sizeof(message)) {
		char *page = (char *)(uintptr_t)(message.arg.pagefault.address & ~(PAGE - 1));

		if (message.event == UFFD_EVENT_PAGEFAULT && message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)
			protected_writes++;
		else
			other_events++;
		protect(page, PAGE, false);
	}
	protect(area.at, length(), false);
	return unused;
}

static void watch(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	struct uffdio_register about = {
		.range = { .start = (uintptr_t)area.at, .len = length() },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	watch_fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	need("userfaultfd", watch_fd >= 0 && !ioctl(watch_fd, UFFDIO_API, &api));
	need("UFFDIO_REGISTER", !ioctl(watch_fd, UFFDIO_REGISTER, &about));
	need("UFFDIO_WRITEPROTECT", !protect(area.at, length(), true));
}

static void put_protected(const char *name)
{
	long protections[PAGES];

	for (int n = 0; n < area.units; n++)
		protections[n] = is_write_protected(area.at + n * PAGE);
	step_begin(name);
	put_numbers("pages", protections, area.units);
	step_end();
}

void case_write_protected(void)
{
	pthread_t watcher;

	area = usual_area();
	watch();
	look("before", &area);
	put_protected("protected_before");
	lazy("lazy", &area, TO, 0);
	put_protected("protected_out");
	touch("touch", &area);
	look("after", &area);
	check("check", &area);
	put_protected("protected_after");
	need("pthread_create", !pthread_create(&watcher, NULL, let_writes, NULL));
	rewrite("rewrite", &area);
	pthread_join(watcher, NULL);
	step_begin("watched");
	put_number("writes", protected_writes);
	put_number("others", other_events);
	step_end();
	put_protected("protected_written");
	close(watch_fd);
	finish(&area, OTHER);
}
