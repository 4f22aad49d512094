// SPDX-License-Identifier: GPL-2.0-only
/* Somebody else has a reference to the page, or writes it to swap. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common.h"

static struct area area;

/* ---- writeback ---- */

/* Nothing is written as long as the file system below the swap device is frozen. */
void case_writeback(void)
{
	swap_freezable();
	area = area_on(FROM, PAGES, PAGE);
	look("before", &area);
	remember_frames(&area);
	swap_freeze();
	need("MADV_PAGEOUT", !madvise(area.at, area.units * PAGE, MADV_PAGEOUT));
	drain();
	need("set_policy", !set_policy(&area, POLICY_BIND, TO, 0));
	look("out", &area);
	step_done("pageout", &area);
	touch_and_use(&area);
	swap_thaw();
	wait_until_written();
	look("written", &area);
	check("check_written", &area);
	finish(&area, TO);
}

/* ---- vmsplice ---- */

static long mismatches_in_pipe(int from)
{
	char *copy = malloc(area.units * PAGE);
	long wrong = 0;
	ssize_t got;

	need("malloc", copy);
	for (int used = 0; used < area.units * (int)PAGE; used += got) {
		got = read(from, copy + used, area.units * PAGE - used);
		need("reading the pipe", got > 0);
	}
	for (size_t n = 0; n < area.units * PAGE; n++)
		wrong += copy[n] != area.at[n];
	free(copy);
	return wrong;
}

void case_spliced(void)
{
	struct iovec all;
	int ends[2];

	area = usual_area();
	all = (struct iovec){ area.at, area.units * PAGE };
	need("pipe", !pipe(ends));
	need("vmsplice", vmsplice(ends[1], &all, 1, 0) == (ssize_t)all.iov_len);
	look("before", &area);
	lazy("lazy", &area, TO, MF_STRICT);
	look("out", &area);
	touch("touch", &area);
	look("after", &area);
	check("check", &area);
	/* The pipe has the page itself: what is written later is to be seen there. */
	rewrite("rewrite", &area);
	step_number("pipe", "mismatches", mismatches_in_pipe(ends[0]));
	finish(&area, TO);
}

/* ---- io_uring's registered buffers ---- */

struct ring {
	int fd;
	struct io_uring_params about;
	char *submissions, *completions;
	struct io_uring_sqe *entries;
};

static struct ring ring_make(void)
{
	struct ring ring = {0};
	const struct io_uring_params *about = &ring.about;

	ring.fd = syscall(SYS_io_uring_setup, 2, &ring.about);
	need("io_uring_setup", ring.fd >= 0);
	ring.submissions = mmap(NULL, about->sq_off.array + about->sq_entries * sizeof(uint32_t), PROT_READ | PROT_WRITE,
				MAP_SHARED, ring.fd, IORING_OFF_SQ_RING);
	ring.completions = mmap(NULL, about->cq_off.cqes + about->cq_entries * sizeof(struct io_uring_cqe),
				PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_CQ_RING);
	ring.entries = mmap(NULL, about->sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED,
			    ring.fd, IORING_OFF_SQES);
	need("io_uring's rings", ring.submissions != MAP_FAILED && ring.completions != MAP_FAILED &&
	     (void *)ring.entries != MAP_FAILED);
	return ring;
}

/* Read from a file into the registered buffer; the bytes read, or -errno. */
static int ring_read(struct ring *ring, int from, void *into, size_t length)
{
	const struct io_uring_params *about = &ring->about;
	uint32_t *tail = (uint32_t *)(ring->submissions + about->sq_off.tail);
	uint32_t *done = (uint32_t *)(ring->completions + about->cq_off.head);
	uint32_t mask = *(uint32_t *)(ring->submissions + about->sq_off.ring_mask);
	uint32_t done_mask = *(uint32_t *)(ring->completions + about->cq_off.ring_mask);
	struct io_uring_sqe *entry = &ring->entries[*tail & mask];
	struct io_uring_cqe *answer;

	memset(entry, 0, sizeof(*entry));
	entry->opcode = IORING_OP_READ_FIXED;
	entry->fd = from;
	entry->addr = (uintptr_t)into;
	entry->len = length;
	((uint32_t *)(ring->submissions + about->sq_off.array))[*tail & mask] = *tail & mask;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	need("io_uring_enter", syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1);
	answer = (struct io_uring_cqe *)(ring->completions + about->cq_off.cqes) + (*done & done_mask);
	__atomic_store_n(done, *done + 1, __ATOMIC_RELEASE);
	return answer->res;
}

/* Of the whole area, read by way of the registered buffer from a file that has the next contents. */
static void read_into(struct ring *ring)
{
	int file = memfd_create("contents", MFD_CLOEXEC);
	struct area next = area_empty(area.units, area.unit);

	next.salt = area.salt;
	next.generation = area.generation;
	area_fill(&next);
	need("memfd", file >= 0 && pwrite(file, next.at, next.units * PAGE, 0) == (ssize_t)(next.units * PAGE));
	need("READ_FIXED", ring_read(ring, file, area.at, area.units * PAGE) == area.units * (int)PAGE);
	area.generation = next.generation;
	close(file);
	area_drop(&next);
}

void case_pinned(void)
{
	struct iovec all;
	struct ring ring;

	area = usual_area();
	all = (struct iovec){ area.at, area.units * PAGE };
	ring = ring_make();
	need("registering", !syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &all, 1));
	insist(&area);
	read_into(&ring);
	check("check_read", &area);
	need("unregistering", !syscall(SYS_io_uring_register, ring.fd, IORING_UNREGISTER_BUFFERS, NULL, 0));
	close(ring.fd);
	finish(&area, TO);
}

/* ---- another CPU's batch of pages on their way to or on the LRU ---- */

#define BATCH_CPU 1	/* whose batch it is */
#define OTHER_CPU 2	/* from where it is unmapped there: that drains the batches of the CPU that does it */
#define TRIES 20

static long page_in(long cpu)
{
	run_on(cpu);
	return mismatches(&area);
}

/*
 * By reading it twice through a system call: the second marks the page active, which waits in a batch. Not by one that
 * pins, as process_vm_readv(2) does: of a page that others have, too, that makes a copy first.
 */
static long activate(long cpu)
{
	static char copy[PAGES * PAGE];
	int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	long wrong = page_in(cpu);

	for (int n = 0; n < 2; n++)
		if (pread(memory, copy, sizeof(copy), (uintptr_t)area.at) != (ssize_t)sizeof(copy))
			wrong++;
	close(memory);
	return wrong;
}

static long let_go(long cpu)
{
	run_on(cpu);
	return munmap(area.at, area.units * PAGE);
}

static void out_of_memory_then_shared(struct actor *sibling)
{
	need("MADV_PAGEOUT", !madvise(area.at, area.units * PAGE, MADV_PAGEOUT));
	*sibling = actor_start();
	need("policy", !set_policy(&area, POLICY_BIND, TO, 0));
	step_done("out", &area);
}

static void shared_then_unmapped(struct actor *sibling)
{
	*sibling = actor_start();
	lazy("out", &area, TO, MF_MOVE_ALL);
}

/*
 * A sibling, on another CPU, has the pages mapped for a while, so that they end up in that CPU's batch, and lets go of
 * them from a third one. Somebody else may have emptied the batch in between: again, then.
 */
static void through_batch(void (*put_out)(struct actor *), long (*get_in)(long))
{
	struct actor sibling;
	long start = report_place();
	int tries = 1;

	for (;; tries++) {
		area = area_on(FROM, PAGES, PAGE);
		put_out(&sibling);
		need("a sibling's look", !actor_do(&sibling, get_in, BATCH_CPU));
		step_done("sibling", &area);
		need("a sibling's munmap", !actor_do(&sibling, let_go, OTHER_CPU));
		touch("touch", &area);
		if (area_node(&area) == FROM || tries == TRIES)
			break;
		actor_end(&sibling);
		area_drop(&area);
		report_return(start);
	}
	look("after", &area);
	use(&area);
	actor_end(&sibling);
	finish(&area, TO);
	step_number("batch", "tries", tries);
}

/* Just read from swap: not on the LRU yet. */
void case_batch_new(void)
{
	swap_in_memory(0, false);
	through_batch(out_of_memory_then_shared, page_in);
}

/* On the LRU, and waiting to be made active: one reference more. */
void case_batch_activated(void)
{
	swap_in_memory(0, false);
	through_batch(shared_then_unmapped, activate);
}
