// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin for QEMU's TCG that sits where a memory controller sits, and counts what memory is really read and written.
 *
 *   -plugin file=memctl.so,socket=PATH,cpu=NODE,...,memory=START+SIZE=NODE,...,direct=START+SIZE
 *
 * `cpu` comes once for each CPU, in their order, with its node; `memory` once for each piece of the guest's physical memory;
 * `direct` tells where the guest's kernel maps all of it. Numbers are hexadecimal, but for nodes.
 *
 * Counting goes on and off by marks, instructions that do nothing (nopl with one of two displacements) in a program of the
 * guest, and by words on the socket. While it is off, translated code has nothing of ours but for the marks themselves.
 *
 * What a process accesses is counted by CPU and node, and for each page by node, of the last time that counting was on and the
 * page was accessed; processes are told apart by the address of their page table. What the kernel accesses is counted by CPU
 * and node. An access of several bytes counts once, where it begins.
 *
 * All CPUs run in one thread (thread=single), so that what they count needs no lock; the socket's thread looks only while
 * nothing is counted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "qemu.h"

#define EXPORT __attribute__((visibility("default")))
#define unlikely(x) __builtin_expect(!!(x), 0)

#define MAX_PIECES 130
#define MAX_NODES 64
#define NOWHERE MAX_NODES /* devices, and what could not be told */
#define MAX_CPUS 64
#define MAX_PROCESSES 64
#define MAX_PAGES (1u << 22)
#define SLOTS 64 /* of each CPU's memory of where pages are */
#define MARK_SIZE 7
#define SETTLE_SECONDS 20
#define NO_PAGE UINT64_MAX

/* The series has a sample every so many accesses of a process: of twice as many whenever there is no more room. */
#define MAX_SAMPLES 2048
#define FIRST_WINDOW (1u << 12)

/* nopl D(%rax) with a displacement of four bytes: "mof", and what is to be done. */
static const unsigned char mark_bytes[] = { 0x0f, 0x1f, 0x80 };
#define MARK(code) (0x666f6d00u | (code))
enum { MARK_OFF = 0, MARK_ON = 1 };

struct piece {
	uint64_t start, size;
	unsigned int node;
};

struct count {
	uint64_t reads, writes;
};

/* Local: of the node of the CPU that accesses. */
struct share {
	uint64_t local, remote;
};

struct sample {
	int64_t ns; /* of the guest's clock, -1 where that are instructions */
	struct share share;
};

struct process {
	uint64_t table; /* physical address of its page table, 0: unknown */
	struct count of[MAX_CPUS][MAX_NODES + 1];
	struct share share;
	uint32_t window, left;
	unsigned int samples;
	struct sample sample[MAX_SAMPLES];
};

struct page {
	uint64_t number;
	struct process *process; /* NULL: there is none here */
	struct count *of;	 /* by node, since counting last went on and the page was accessed */
	unsigned int period;
};

struct slot {
	uint64_t page;
	unsigned long era;
	struct process *process;
	struct count *count, *of_page;
	uint64_t *share;
};

struct cpu {
	struct slot slots[SLOTS];
	unsigned long era; /* goes on whenever the kernel has run: it may have mapped something else */
	unsigned int node;
	void *table_register;
	struct array *bytes;
	struct count kernel[MAX_NODES + 1];
};

static plugin_id self;
static unsigned int cpus, placed_cpus, nodes, pieces, processes;
static struct piece memory[MAX_PIECES];
static uint64_t size_of[MAX_NODES];
static struct cpu cpu[MAX_CPUS];
static struct process *process[MAX_PROCESSES];
static struct page *pages; /* a hash table: what is there is where its hash says, or in the next free places */
static unsigned int places, pages_used;
static uint64_t overflow; /* accesses for which there was no room */
static uint64_t direct_start, direct_size;
static bool counting;
static unsigned long switched; /* how often counting went on or off */
static unsigned int period;    /* how often it went on */
static unsigned long applied;  /* `switched` as of when translated code came to be so */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change_applied = PTHREAD_COND_INITIALIZER;

/* Where. */

static unsigned int node_of(uint64_t physical)
{
	for (unsigned int i = 0; i < pieces; i++)
		if (physical - memory[i].start < memory[i].size)
			return memory[i].node;
	return NOWHERE;
}

/*
 * QEMU 7.2 adds up, for what it calls the physical address, where a node's memory begins among all blocks of memory and where
 * among all nodes, which is the same, and the offset in the node.
 */
static unsigned int node_at(uint64_t told)
{
	uint64_t start = 0;

	if (MEMCTL_API >= 2)
		return node_of(told);
	for (unsigned int n = 0; n < nodes; start += size_of[n++])
		if (told - 2 * start < size_of[n])
			return n;
	return NOWHERE;
}

static unsigned int translated(meminfo info, uint64_t address)
{
	struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, address);

	if (!where || qemu_plugin_hwaddr_is_io(where))
		return NOWHERE;
	return node_at(qemu_plugin_hwaddr_phys_addr(where));
}

/* Whose. */

/* The register is read where it can have changed, after the kernel has run, and not with every access. */
static uint64_t page_table(struct cpu *this)
{
	uint64_t value = 0;

	if (!this->table_register)
		return 0;
	g_byte_array_set_size(this->bytes, 0);
	if (qemu_plugin_read_register(this->table_register, this->bytes) < (int)sizeof(value))
		return 0;
	memcpy(&value, this->bytes->data, sizeof(value));
	/* The low twelve bits and the highest tell of translations that are kept (PCID), not of the table. */
	return value & 0x7ffffffffffff000;
}

static struct process *process_of(uint64_t table)
{
	struct process *new;

	for (unsigned int i = 0; i < processes; i++)
		if (process[i]->table == table)
			return process[i];
	if (processes == MAX_PROCESSES)
		return NULL;
	new = calloc(1, sizeof(*new));
	if (!new)
		return NULL;
	new->table = table;
	new->window = new->left = FIRST_WINDOW;
	process[processes] = new;
	__atomic_store_n(&processes, processes + 1, __ATOMIC_RELEASE);
	return new;
}

static unsigned int place_of(const struct process *of, uint64_t number)
{
	uint64_t hash = (number ^ of->table) * 0x9e3779b97f4a7c15u;
	unsigned int i = (hash >> 32) & (places - 1);

	while (pages[i].process && (pages[i].process != of || pages[i].number != number))
		i = (i + 1) & (places - 1);
	return i;
}

static bool grow(void)
{
	struct page *old = pages;
	unsigned int had = places;

	if (places >= 2 * MAX_PAGES)
		return false;
	places = places ? 2 * places : 1u << 12;
	pages = calloc(places, sizeof(*pages));
	if (!pages) {
		pages = old;
		places = had;
		return false;
	}
	for (unsigned int i = 0; i < had; i++)
		if (old[i].process)
			pages[place_of(old[i].process, old[i].number)] = old[i];
	free(old);
	return true;
}

static struct count *page_of(struct process *of, uint64_t number)
{
	unsigned int i;

	if (2 * pages_used >= places && !grow())
		return NULL;
	i = place_of(of, number);
	if (!pages[i].process) {
		struct count *counts = calloc(nodes + 1, sizeof(*counts));

		if (!counts)
			return NULL;
		pages[i] = (struct page){ number, of, counts, period };
		pages_used++;
	}
	if (pages[i].period != period) {
		memset(pages[i].of, 0, (nodes + 1) * sizeof(*pages[i].of));
		pages[i].period = period;
	}
	return pages[i].of;
}

/* Counting. */

static int64_t now(void)
{
	return &use_icount && use_icount ? -1 : qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
}

static void take_sample(struct process *of)
{
	if (of->samples == MAX_SAMPLES) {
		for (unsigned int i = 1; i < MAX_SAMPLES; i += 2)
			of->sample[i / 2] = of->sample[i];
		of->samples = MAX_SAMPLES / 2;
		of->window *= 2;
	}
	of->sample[of->samples] = (struct sample){ now(), of->share };
	__atomic_store_n(&of->samples, of->samples + 1, __ATOMIC_RELEASE);
	of->left = of->window;
}

static struct slot *look_up(unsigned int number, struct slot *slot, meminfo info, uint64_t address)
{
	static struct count nobody[2];
	static struct process none = { .left = 1 };
	struct cpu *this = &cpu[number];
	struct process *of = process_of(page_table(this));
	unsigned int node = translated(info, address);
	struct count *of_page = of ? page_of(of, address >> 12) : NULL;

	slot->page = address >> 12;
	slot->era = this->era;
	if (!of_page) {
		overflow++;
		slot->page = NO_PAGE; /* the next one is to be counted as lost, too */
		slot->process = &none;
		none.left = 2;
		slot->count = &nobody[0];
		slot->of_page = &nobody[1];
		slot->share = &none.share.local;
		return slot;
	}
	slot->process = of;
	slot->count = &of->of[number][node];
	slot->of_page = &of_page[node < nodes ? node : nodes];
	slot->share = node == this->node ? &of->share.local : &of->share.remote;
	return slot;
}

static inline struct slot *user_slot(unsigned int number, meminfo info, uint64_t address)
{
	struct cpu *this = &cpu[number];
	uint64_t page = address >> 12;
	struct slot *slot = &this->slots[page % SLOTS];

	if (unlikely(slot->page != page || slot->era != this->era))
		slot = look_up(number, slot, info, address);
	++*slot->share;
	if (unlikely(!--slot->process->left))
		take_sample(slot->process);
	return slot;
}

static inline struct count *kernel_count(unsigned int number, meminfo info, uint64_t address)
{
	uint64_t offset = address - direct_start;

	return &cpu[number].kernel[offset < direct_size ? node_of(offset) : translated(info, address)];
}

static inline void user_read(unsigned int number, meminfo info, uint64_t address, void *data)
{
	struct slot *slot = user_slot(number, info, address);

	(void)data;
	slot->count->reads++;
	slot->of_page->reads++;
}

static inline void user_write(unsigned int number, meminfo info, uint64_t address, void *data)
{
	struct slot *slot = user_slot(number, info, address);

	(void)data;
	slot->count->writes++;
	slot->of_page->writes++;
}

static inline void kernel_read(unsigned int number, meminfo info, uint64_t address, void *data)
{
	(void)data;
	kernel_count(number, info, address)->reads++;
}

static inline void kernel_write(unsigned int number, meminfo info, uint64_t address, void *data)
{
	(void)data;
	kernel_count(number, info, address)->writes++;
}

static void kernel_runs(unsigned int number, void *data)
{
	(void)data;
	cpu[number].era++;
}

#if MEMCTL_API < 2
/*
 * QEMU 7.2 leaves an instruction's list of calls at the first that is not for this kind of access: there is one call for all
 * kinds, which asks. And it forgets to forget the calls of an instruction that accesses memory in a helper and then leaves
 * the translated block (mended in 8.0, "plugin: clear plugin_mem_cbs before TB exit"): what the processor itself pushes for
 * an interrupt is then told as an access of that instruction, and known by its address. Were the calls gone,
 * it would call what is no more: once counting has been on, they stay, and do nothing while it is off.
 */
static void any_access(unsigned int number, meminfo info, uint64_t address, void *data)
{
	bool store = qemu_plugin_mem_is_store(info);

	if (!counting)
		return;
	if (data || address >> 63)
		(store ? kernel_write : kernel_read)(number, info, address, data);
	else
		(store ? user_write : user_read)(number, info, address, data);
}
#endif

static void translate(plugin_id id, struct qemu_plugin_tb *tb);

/* No CPU runs, and nothing that was translated is left. */
static void again(plugin_id id)
{
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	pthread_mutex_lock(&lock);
	applied = switched;
	pthread_cond_broadcast(&change_applied);
	pthread_mutex_unlock(&lock);
}

/* Everything is translated anew, with our calls in it or without. */
static void count(bool on)
{
	bool change, anew;

	pthread_mutex_lock(&lock);
	change = counting != on;
	anew = change && (MEMCTL_API >= 2 || !switched);
	counting = on;
	switched += change;
	if (change && on) {
		period++;
		for (unsigned int c = 0; c < cpus; c++)
			cpu[c].era++;
	} else if (change) {
		for (unsigned int p = 0; p < processes; p++)
			if (process[p]->left != process[p]->window)
				take_sample(process[p]);
	}
	if (change && !anew)
		applied = switched;
	pthread_cond_broadcast(&change_applied);
	pthread_mutex_unlock(&lock);
	if (anew)
		qemu_plugin_reset(self, again);
}

static void marked(unsigned int number, void *data)
{
	(void)number;
	count((uintptr_t)data == MARK_ON);
}

static int mark_in(const struct qemu_plugin_insn *insn)
{
	unsigned char bytes[MARK_SIZE];
	uint32_t what;

	if (qemu_plugin_insn_size(insn) != MARK_SIZE)
		return -1;
#if MEMCTL_API < 3
	memcpy(bytes, qemu_plugin_insn_data(insn), MARK_SIZE);
#else
	if (qemu_plugin_insn_data(insn, bytes, MARK_SIZE) != MARK_SIZE)
		return -1;
#endif
	if (memcmp(bytes, mark_bytes, sizeof(mark_bytes)))
		return -1;
	memcpy(&what, bytes + sizeof(mark_bytes), sizeof(what));
	if (what == MARK(MARK_ON))
		return MARK_ON;
	return what == MARK(MARK_OFF) ? MARK_OFF : -1;
}

static void instrument(struct qemu_plugin_insn *insn, bool kernel)
{
#if MEMCTL_API < 2
	qemu_plugin_register_vcpu_mem_cb(insn, any_access, NO_REGISTERS, READS | WRITES, (void *)(uintptr_t)kernel);
#else
	qemu_plugin_register_vcpu_mem_cb(insn, kernel ? kernel_read : user_read, READ_REGISTERS, READS, NULL);
	qemu_plugin_register_vcpu_mem_cb(insn, kernel ? kernel_write : user_write, READ_REGISTERS, WRITES, NULL);
#endif
}

static void translate(plugin_id id, struct qemu_plugin_tb *tb)
{
	bool kernel = qemu_plugin_tb_vaddr(tb) >> 63;
	bool on = MEMCTL_API >= 2 ? counting : switched;

	(void)id;
	if (on && kernel)
		qemu_plugin_register_vcpu_tb_exec_cb(tb, kernel_runs, NO_REGISTERS, NULL);
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		int mark = kernel ? -1 : mark_in(insn);

		if (mark >= 0)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, NO_REGISTERS, (void *)(uintptr_t)mark);
		if (on)
			instrument(insn, kernel);
	}
}

/* Which register has the page table: asked of each CPU once, in its own thread. */
static void starts(plugin_id id, unsigned int number)
{
	struct array *all;

	(void)id;
	if (number >= MAX_CPUS || !qemu_plugin_get_registers || !qemu_plugin_read_register || !g_byte_array_new ||
	    !g_byte_array_set_size)
		return;
	all = qemu_plugin_get_registers();
	for (unsigned int i = 0; all && i < all->length; i++) {
		struct qemu_register *one = (struct qemu_register *)all->data + i;

		if (one->name && !strcmp(one->name, "cr3")) {
			cpu[number].bytes = g_byte_array_new();
			cpu[number].table_register = one->handle;
		}
	}
}

/* Telling. */

static int shown(unsigned int node)
{
	return node < nodes ? (int)node : -1;
}

static void tell_counts(FILE *to)
{
	const char *comma = "";

	fprintf(to, "\"user\": [");
	for (unsigned int p = 0; p < processes; p++)
		for (unsigned int c = 0; c < cpus; c++)
			for (unsigned int n = 0; n <= MAX_NODES; n++) {
				const struct count *one = &process[p]->of[c][n];

				if (!one->reads && !one->writes)
					continue;
				fprintf(to, "%s[%" PRIu64 ", %u, %d, %" PRIu64 ", %" PRIu64 "]", comma, process[p]->table, c,
					shown(n), one->reads, one->writes);
				comma = ", ";
			}
	comma = "";
	fprintf(to, "], \"kernel\": [");
	for (unsigned int c = 0; c < cpus; c++)
		for (unsigned int n = 0; n <= MAX_NODES; n++) {
			const struct count *one = &cpu[c].kernel[n];

			if (!one->reads && !one->writes)
				continue;
			fprintf(to, "%s[%u, %d, %" PRIu64 ", %" PRIu64 "]", comma, c, shown(n), one->reads, one->writes);
			comma = ", ";
		}
	fprintf(to, "]");
}

static void tell_pages(FILE *to)
{
	const char *comma = "";

	fprintf(to, "\"pages\": [");
	for (unsigned int i = 0; i < places; i++)
		for (unsigned int n = 0; pages[i].process && n <= nodes; n++) {
			const struct count *one = &pages[i].of[n];

			if (!one->reads && !one->writes)
				continue;
			fprintf(to, "%s[%" PRIu64 ", %" PRIu64 ", %d, %" PRIu64 ", %" PRIu64 ", %u]", comma,
				pages[i].process->table, pages[i].number << 12, shown(n), one->reads, one->writes,
				pages[i].period);
			comma = ", ";
		}
	fprintf(to, "]");
}

static void tell_series(FILE *to)
{
	const char *comma = "";

	fprintf(to, "\"series\": [");
	for (unsigned int p = 0; p < processes; p++) {
		fprintf(to, "%s{\"table\": %" PRIu64 ", \"window\": %u, \"samples\": [", comma, process[p]->table,
			process[p]->window);
		for (unsigned int i = 0; i < process[p]->samples; i++) {
			const struct sample *one = &process[p]->sample[i];

			fprintf(to, "%s[%" PRId64 ", %" PRIu64 ", %" PRIu64 "]", i ? ", " : "", one->ns, one->share.local,
				one->share.remote);
		}
		fprintf(to, "]}");
		comma = ", ";
	}
	fprintf(to, "]");
}

/* What it takes of one run has nothing of an earlier one. */
static void forget(void)
{
	for (unsigned int c = 0; c < MAX_CPUS; c++) {
		cpu[c].era++;
		memset(cpu[c].kernel, 0, sizeof(cpu[c].kernel));
	}
	for (unsigned int i = 0; i < places; i++)
		free(pages[i].of);
	free(pages);
	pages = NULL;
	places = pages_used = 0;
	while (processes)
		free(process[--processes]);
	overflow = 0;
	period = 0;
}

static void count_there(struct cpu_state *cpu, union cpu_data data)
{
	(void)cpu;
	count(data.value);
}

/* Whether the last change has come into effect; after a while also when it has not. */
static bool settled(bool on)
{
	struct timespec until;
	bool done;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += SETTLE_SECONDS;
	pthread_mutex_lock(&lock);
	while ((counting != on || applied != switched) && !pthread_cond_timedwait(&change_applied, &lock, &until))
		;
	done = counting == on && applied == switched;
	pthread_mutex_unlock(&lock);
	return done;
}

/* A mark has come, but what it asks for not yet into effect: that takes no time to speak of. */
static void applied_now(void)
{
	bool on;

	pthread_mutex_lock(&lock);
	on = counting;
	pthread_mutex_unlock(&lock);
	settled(on);
}

/* Only while nothing is counted, which the lock keeps so: a mark waits for it. */
static void answer_of(const char *line, FILE *to)
{
	if (counting || applied != switched) {
		fprintf(to, "{\"error\": \"not while it counts\"}\n");
	} else if (!strcmp(line, "read")) {
		fprintf(to, "{\"version\": %d, \"periods\": %u, \"tables\": %s, \"overflow\": %" PRIu64 ", ", MEMCTL_API, period,
			cpu[0].table_register ? "true" : "false", overflow);
		tell_counts(to);
		fprintf(to, ", ");
		tell_series(to);
		fprintf(to, "}\n");
	} else if (!strcmp(line, "pages")) {
		fprintf(to, "{");
		tell_pages(to);
		fprintf(to, "}\n");
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
		pthread_mutex_lock(&lock);
		answer_of(line, kept);
		pthread_mutex_unlock(&lock);
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

static int listen_at(const char *path)
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

static int option(const char *text)
{
	struct piece *next = &memory[pieces];
	unsigned int node;

	if (!strncmp(text, "socket=", 7))
		return listen_at(text + 7);
	if (sscanf(text, "direct=%" SCNx64 "+%" SCNx64, &direct_start, &direct_size) == 2)
		return 0;
	if (placed_cpus < MAX_CPUS && sscanf(text, "cpu=%u", &node) == 1 && node < MAX_NODES) {
		cpu[placed_cpus++].node = node;
		return 0;
	}
	if (pieces < MAX_PIECES &&
	    sscanf(text, "memory=%" SCNx64 "+%" SCNx64 "=%u", &next->start, &next->size, &next->node) == 3 &&
	    next->node < MAX_NODES) {
		nodes = next->node >= nodes ? next->node + 1 : nodes;
		size_of[next->node] += next->size;
		pieces++;
		return 0;
	}
	return -1;
}

EXPORT int qemu_plugin_version = MEMCTL_API;

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv)
{
	self = id;
	cpus = info->system_emulation ? (unsigned int)info->system.max_vcpus : 0;
	for (unsigned int c = 0; c < MAX_CPUS; c++)
		for (unsigned int s = 0; s < SLOTS; s++)
			cpu[c].slots[s].page = NO_PAGE;
	for (int i = 0; i < argc; i++)
		if (option(argv[i])) {
			fprintf(stderr, "memctl: %s: not understood, or not possible\n", argv[i]);
			return -1;
		}
	if (cpus != placed_cpus) {
		fprintf(stderr, "memctl: the guest has %u CPUs, and %u were told of\n", cpus, placed_cpus);
		return -1;
	}
	qemu_plugin_register_vcpu_init_cb(id, starts);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	return 0;
}
