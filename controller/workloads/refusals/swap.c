// SPDX-License-Identifier: GPL-2.0-only
/* Swap devices: those that the machine has are out of use while a case runs, and in use again afterwards. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

#define MOST 8
#define ZRAM "/dev/zram0"
#define ZRAM_ATTRIBUTE "/sys/block/zram0/"
/* An empty ext4 that whoever starts this program puts there; the file system in it, and a file in that. */
#define IMAGE "/run/refusals.ext4"
#define FOLDER "/run/refusals-mount"
#define FILE_IN_IT FOLDER "/swap"
#define LOOP_OF_IMAGE "/dev/loop6"
#define LOOP_OF_FILE "/dev/loop7"
/* So few slots that no CPU takes some in advance or gives them back later: see settle(). */
#define SMALL ((size_t)2 << 20)

static char found[MOST][64];
static int count;
static long free_kb;		/* when the last device was taken into use */

static void in_use(char names[MOST][64], int *number)
{
	FILE *list = fopen("/proc/swaps", "re");
	char line[256];

	need("/proc/swaps", list);
	*number = 0;
	while (*number < MOST && fgets(line, sizeof(line), list))
		if (*line == '/' && sscanf(line, "%63s", names[*number]) == 1)
			(*number)++;
	fclose(list);
}

void swap_begin(void)
{
	in_use(found, &count);
	for (int n = 0; n < count; n++)
		need(found[n], !swapoff(found[n]));
}

int swap_off(void)
{
	char names[MOST][64];
	int number;

	in_use(names, &number);
	for (int n = 0; n < number; n++)
		if (swapoff(names[n]))
			return errno;
	return 0;
}

long swap_free_kb(void)
{
	FILE *memory = fopen("/proc/meminfo", "re");
	char line[128];
	long free = -1;

	need("/proc/meminfo", memory);
	while (free < 0 && fgets(line, sizeof(line), memory))
		sscanf(line, "SwapFree: %ld", &free);
	fclose(memory);
	return free;
}

/* The header that swapon(2) wants (union swap_header, linux/swap.h), and into use. */
static void swap_on(const char *device, size_t size)
{
	static char header[PAGE];
	uint32_t about[3] = { 1, size / PAGE - 1, 0 };	/* version, last page, bad pages */
	int file = open(device, O_WRONLY | O_CLOEXEC);

	memcpy(header + 1024, about, sizeof(about));
	memcpy(header + PAGE - 10, "SWAPSPACE2", 10);
	need(device, file >= 0);
	need(device, pwrite(file, header, PAGE, 0) == (ssize_t)PAGE && !fsync(file));
	close(file);
	need(device, !swapon(device, 0));
	free_kb = swap_free_kb();
}

static const char *scratch;

static bool is_written(void)
{
	return !(frame_flags(frame_of(scratch)) >> FLAG_WRITEBACK & 1);
}

/*
 * Slots that a CPU has to give back later look used. It ceases to keep any as soon as one is asked for, by reclaim, while
 * there are less than 128 for each CPU (check_cache_active(), mm/swap_slots.c): so ask.
 */
static void settle(void)
{
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	need("mmap", page != MAP_FAILED);
	*(volatile char *)page = 1;
	drain();
	need("MADV_PAGEOUT", !madvise(page, PAGE, MADV_PAGEOUT));
	*(volatile char *)page = 2;
	scratch = page;
	wait_until("the end of writeback", is_written);
	need("munmap", !munmap(page, PAGE));
}

long swap_used_kb(void)
{
	settle();
	return free_kb - swap_free_kb();
}

void swap_in_memory(size_t size, bool rotational)
{
	char text[32];

	if (!size)
		size = SMALL;
	snprintf(text, sizeof(text), "%zu", size);
	need("reset", !write_file(ZRAM_ATTRIBUTE "reset", "1"));
	need("disksize", !write_file(ZRAM_ATTRIBUTE "disksize", text));
	set_number(ZRAM_ATTRIBUTE "queue/rotational", rotational);
	swap_on(ZRAM, size);
}

static void loop_over(const char *device, const char *path)
{
	int loop = open(device, O_RDWR | O_CLOEXEC), file = open(path, O_RDWR | O_CLOEXEC);

	need(device, loop >= 0);
	need(path, file >= 0);
	need(device, !ioctl(loop, LOOP_SET_FD, file));
	close(file);
	close(loop);
}

void swap_freezable(void)
{
	static const char zeros[PAGE];
	int file;

	loop_over(LOOP_OF_IMAGE, IMAGE);
	need(FOLDER, !mkdir(FOLDER, 0700) || errno == EEXIST);
	need(FOLDER, !mount(LOOP_OF_IMAGE, FOLDER, "ext4", 0, ""));
	file = open(FILE_IN_IT, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	need(FILE_IN_IT, file >= 0);
	for (size_t at = 0; at < SMALL; at += PAGE)
		need(FILE_IN_IT, write(file, zeros, PAGE) == (ssize_t)PAGE);
	need(FILE_IN_IT, !fsync(file));
	close(file);
	loop_over(LOOP_OF_FILE, FILE_IN_IT);
	swap_on(LOOP_OF_FILE, SMALL);
}

static int freeze_or_thaw(unsigned long request)
{
	int folder = open(FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int answer = folder < 0 ? -1 : ioctl(folder, request, 0);

	if (folder >= 0)
		close(folder);
	return answer;
}

void swap_freeze(void)
{
	need("freezing", !freeze_or_thaw(FIFREEZE));
}

void swap_thaw(void)
{
	need("thawing", !freeze_or_thaw(FITHAW));
}

static void loop_over_nothing(const char *device)
{
	int loop = open(device, O_RDWR | O_CLOEXEC);

	if (loop >= 0) {
		ioctl(loop, LOOP_CLR_FD);
		close(loop);
	}
}

/* A slot that nobody gives back makes swapoff(2) search for ever, until a signal comes. */
static bool off_in_time(void)
{
	int status = -1;
	pid_t child = fork();

	need("fork", child >= 0);
	if (!child) {
		alarm(PATIENCE);
		_exit(swap_off() != 0);
	}
	waitpid(child, &status, 0);
	return !status;
}

bool swap_end(void)
{
	bool fine;

	freeze_or_thaw(FITHAW);		/* fails when it is not frozen */
	fine = off_in_time();
	write_file(ZRAM_ATTRIBUTE "reset", "1");
	loop_over_nothing(LOOP_OF_FILE);
	umount(FOLDER);
	rmdir(FOLDER);
	loop_over_nothing(LOOP_OF_IMAGE);
	for (int n = 0; n < count; n++)
		if (swapon(found[n], 0))
			fine = false;
	return fine;
}
