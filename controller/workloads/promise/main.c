/*
 * promise: what single patches of the series promise, shown from user space.
 *
 *   promise flag                   does mbind() take MPOL_MF_LAZY, alone and with MPOL_MF_MOVE?
 *   promise cached FROM TO PAGES   touch pages that wait in the swap cache on node FROM, under a policy for node TO
 *
 * Prints one JSON object on standard output.  Status 0 when it could do what it was to do, whatever the kernel made of
 * it; 1 when it could not, with the reason on standard error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* include/uapi/linux/mempolicy.h; the C library has neither the calls nor, in every version, these. */
enum { POL_PREFERRED = 1, POL_BIND = 2 };
enum { MF_MOVE = 1 << 1, MF_LAZY = 1 << 3 };

enum { MOST_PAGES = 64, MOST_NODES = 64 };

/* Documentation/admin-guide/mm/pagemap.rst */
static const uint64_t PRESENT = 1ull << 63, SWAPPED = 1ull << 62;

/* An idle machine needs a few milliseconds for what is waited for; an emulated one on a busy host a second. */
static const int WAIT_SECONDS = 60;

static size_t page_size;

__attribute__((noreturn, format(printf, 1, 2))) static void give_up(const char *format, ...)
{
	int wrong = errno;
	va_list values;

	va_start(values, format);
	fputs("promise: ", stderr);
	vfprintf(stderr, format, values);
	va_end(values);
	if (wrong)
		fprintf(stderr, ": %s", strerror(wrong));
	fputc('\n', stderr);
	exit(1);
}

/* 0 or the errno. */
static int bind_to(void *start, size_t length, int mode, int node, unsigned int flags)
{
	unsigned long mask = 1ul << node;

	return syscall(SYS_mbind, start, length, mode, &mask, MOST_NODES + 1ul, flags) ? errno : 0;
}

static void *mapped(size_t length)
{
	void *start = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (start == MAP_FAILED)
		give_up("mmap");
	return start;
}

/* A huge page would be one page to the policy; EINVAL says that the kernel has none. */
static void no_huge_pages(void *start, size_t length)
{
	if (madvise(start, length, MADV_NOHUGEPAGE) && errno != EINVAL)
		give_up("madvise(MADV_NOHUGEPAGE)");
	errno = 0;
}

static uint64_t word(unsigned int page)
{
	return 0x9e3779b97f4a7c15ull * (page + 1);
}

static bool intact(const volatile char *start, unsigned int pages)
{
	bool same = true;

	for (unsigned int i = 0; i < pages; i++)
		same &= *(const volatile uint64_t *)(start + i * page_size) == word(i);
	return same;
}

/* Where pages are, without touching them: nodes, or minus the errno. */
static void locate(char *start, unsigned int pages, int *nodes)
{
	void *addresses[MOST_PAGES];

	for (unsigned int i = 0; i < pages; i++)
		addresses[i] = start + i * page_size;
	if (syscall(SYS_move_pages, 0, (unsigned long)pages, addresses, NULL, nodes, 0))
		give_up("move_pages");
}

static unsigned int swapped(char *start, unsigned int pages)
{
	uint64_t entries[MOST_PAGES];
	unsigned int count = 0;
	int file = open("/proc/self/pagemap", O_RDONLY);
	ssize_t size = (ssize_t)(pages * sizeof(*entries));

	if (file < 0 || pread(file, entries, size, (uintptr_t)start / page_size * sizeof(*entries)) != size)
		give_up("/proc/self/pagemap");
	close(file);
	for (unsigned int i = 0; i < pages; i++)
		count += (entries[i] & SWAPPED) && !(entries[i] & PRESENT);
	return count;
}

/* A counter of /proc/vmstat with what the CPUs had kept for themselves; give_up() when there is none. */
static long counter(const char *name)
{
	static const char REFRESH[] = "/proc/sys/vm/stat_refresh";
	char line[128], found[64];
	long value, result = -1;
	FILE *file = fopen(REFRESH, "w");

	if (!file || fputs("1", file) < 0 || fclose(file))
		give_up(REFRESH);
	file = fopen("/proc/vmstat", "r");
	if (!file)
		give_up("/proc/vmstat");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "%63s %ld", found, &value) == 2 && !strcmp(found, name))
			result = value;
	fclose(file);
	errno = 0;
	if (result < 0)
		give_up("/proc/vmstat has no %s", name);
	return result;
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL);
}

/* The batches of folios that are on their way to the LRU lists are one a CPU: keep to one. */
static void stay_on_this_cpu(void)
{
	cpu_set_t here;
	int cpu = sched_getcpu();

	CPU_ZERO(&here);
	CPU_SET(cpu, &here);
	if (cpu < 0 || sched_setaffinity(0, sizeof(here), &here))
		give_up("sched_setaffinity");
}

/*
 * Leave all pages in the swap cache, on the node where they are, with no page table that maps them, clean, and with a
 * slot each.
 *
 * MADV_PAGEOUT writes them and may or may not leave them in the cache.  A child that reads them then has them there for
 * certain, since the parent's swap entries keep the slots from being freed, and the child's end unmaps them.
 */
static void put_into_swap_cache(char *start, unsigned int pages)
{
	time_t end = time(NULL) + WAIT_SECONDS;
	int status;
	pid_t child;

	while (swapped(start, pages) < pages) {
		if (time(NULL) > end)
			give_up("only %u of %u pages can be paged out", swapped(start, pages), pages);
		if (madvise(start, pages * page_size, MADV_PAGEOUT))
			give_up("madvise(MADV_PAGEOUT)");
		nap();
	}
	child = fork();
	if (child < 0)
		give_up("fork");
	if (!child)
		_exit(intact(start, pages) ? 0 : 1);
	if (waitpid(child, &status, 0) != child)
		give_up("waitpid");
	errno = 0;
	if (status)
		give_up("a child does not find what was paged out");
	while (counter("nr_writeback") > 0) {
		if (time(NULL) > end)
			give_up("writing to swap does not end");
		nap();
	}
}

static void show(const char *name, const int *nodes, unsigned int pages)
{
	printf("\"%s\": [", name);
	for (unsigned int i = 0; i < pages; i++)
		printf("%s%d", i ? ", " : "", nodes[i]);
	printf("], ");
}

static void cached(int from, int to, unsigned int pages)
{
	size_t length = pages * page_size;
	char *start = mapped(length);
	int before[MOST_PAGES], waiting[MOST_PAGES], after[MOST_PAGES];
	unsigned int out;
	bool same;
	long read;

	stay_on_this_cpu();
	no_huge_pages(start, length);
	if ((errno = bind_to(start, length, POL_BIND, from, 0)))
		give_up("mbind to node %d", from);
	for (unsigned int i = 0; i < pages; i++)
		*(uint64_t *)(start + i * page_size) = word(i);
	locate(start, pages, before);
	put_into_swap_cache(start, pages);
	if ((errno = bind_to(start, length, POL_BIND, to, 0)))
		give_up("mbind to node %d", to);
	out = swapped(start, pages);
	locate(start, pages, waiting);

	/* Nothing else pages in while this runs; a page that is read from the device was not in the cache. */
	read = counter("pswpin");
	same = intact(start, pages);
	read = counter("pswpin") - read;
	locate(start, pages, after);

	printf("{\"pages\": %u, \"swapped\": %u, \"read_from_swap\": %ld, \"intact\": %s, ", pages, out, read,
	       same ? "true" : "false");
	show("before", before, pages);
	show("waiting", waiting, pages);
	show("after", after, pages);
	printf("\"from\": %d, \"to\": %d}\n", from, to);
}

static void flag(void)
{
	char *page = mapped(page_size);

	*page = 1;
	printf("{\"move\": %d, \"lazy\": %d, \"move_lazy\": %d}\n", bind_to(page, page_size, POL_BIND, 0, MF_MOVE),
	       bind_to(page, page_size, POL_BIND, 0, MF_LAZY), bind_to(page, page_size, POL_BIND, 0, MF_MOVE | MF_LAZY));
}

int main(int count, char **arguments)
{
	page_size = (size_t)sysconf(_SC_PAGESIZE);
	if (count == 2 && !strcmp(arguments[1], "flag")) {
		flag();
		return 0;
	}
	if (count == 5 && !strcmp(arguments[1], "cached")) {
		int from = atoi(arguments[2]), to = atoi(arguments[3]), pages = atoi(arguments[4]);

		if (from >= 0 && from < MOST_NODES && to >= 0 && to < MOST_NODES && pages > 0 && pages <= MOST_PAGES) {
			cached(from, to, (unsigned int)pages);
			return 0;
		}
	}
	fputs("usage: promise flag | promise cached FROM TO PAGES (nodes 0 to 63, 1 to 64 pages)\n", stderr);
	return 2;
}
