// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin for QEMU's TCG that sits where a memory controller sits: it counts what memory is really read and written, and on request
 * has each access take its time.
 *
 *   -plugin file=memctl.so,socket=PATH,cpu=NODE,...,memory=START+SIZE=NODE,...,direct=START+SIZE
 *           [,price=INITIATOR:TARGET=NS,...,cache=KB/WAYS]
 *
 * `cpu` comes once for each CPU, in their order, with its node; `memory` once for each piece of the guest's physical memory, by
 * rising address; `direct` tells where the guest's kernel maps all of it. These numbers are hexadecimal, others are not. Prices are
 * for every pair of a node with CPUs and one with memory (price.c).
 *
 * Counting goes on and off by marks, instructions that do nothing (nopl with one of three displacements) in a program of the
 * guest, and by words on the socket. While it is off, translated code has nothing of ours but for the marks themselves. The
 * third mark notes how far each CPU has come.
 *
 * What a process accesses is counted by CPU and node, and for each page by node, of the last time that counting was on and the
 * page was accessed; processes are told apart by the address of their page table. What the kernel accesses is counted by CPU
 * and node. An access of several bytes counts once, where it begins.
 *
 * All CPUs run in one thread (thread=single), so that what they count needs no lock; the socket's thread looks only while
 * nothing is counted.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "memctl.h"

#define EXPORT __attribute__((visibility("default")))

#define MARK_SIZE 7
#define SETTLE_SECONDS 20

/* nopl D(%rax) with a displacement of four bytes: "mof", and what is to be done. */
static const unsigned char mark_bytes[] = { 0x0f, 0x1f, 0x80 };
#define MARK(code) (0x666f6d00u | (code))
enum { NO_MARK = -1, MARK_OFF, MARK_ON, MARK_LAP };

unsigned int cpus, period;
struct cpu cpu[MAX_CPUS];
bool counting;
static plugin_id self;
static unsigned int placed_cpus;
static unsigned long switched; /* how often counting went on or off */
static unsigned long applied;  /* `switched` as of when translated code came to be so */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change_applied = PTHREAD_COND_INITIALIZER;

/* Which CPU. */

/*
 * From 10.0 on QEMU tells, with all CPUs in one thread, not the CPU that runs translated code but the one that had it
 * translated (gen_cpu_index() in accel/tcg/plugin-gen.c: "Optimize when we run with a single vcpu"), and they share such code.
 * QEMU's own variable is right; NULL where it cannot be found.
 */
static struct cpu_state **current;
static struct cpu_state *state[MAX_CPUS];

static inline unsigned int running(unsigned int told)
{
	static struct cpu_state *last;
	static unsigned int number;

	if (unlikely(!current))
		return told;
	if (unlikely(*current != last)) {
		last = *current;
		for (number = 0; number < cpus && state[number] != last; number++)
			;
		if (number == cpus) {
			last = NULL;
			return told;
		}
	}
	return number;
}

/* A variable of each thread: looked up in the one that runs the CPUs. */
static void find_current(unsigned int number)
{
	struct cpu_state **found = dlsym(RTLD_DEFAULT, "current_cpu");

	if (!found || *found != qemu_get_cpu((int)number))
		return;
	current = found;
	state[number] = *found;
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

/* NULL: there is no room for one more. */
static struct process *at_work(struct cpu *this)
{
	if (this->table_era != this->era) {
		this->process = process_of(page_table(this));
		this->table_era = this->era;
	}
	return this->process;
}

/* Accesses. */

static struct slot *look_up(unsigned int number, struct slot *slot, meminfo info, uint64_t address)
{
	static struct count nobody[2];
	static struct process none;
	static uint64_t lost;
	struct cpu *this = &cpu[number];
	struct process *of = at_work(this);
	struct count *of_page = of ? page_of(of, address >> PAGE_BITS) : NULL;
	uint64_t physical;
	unsigned int node = translated(info, address, &physical);
	uint64_t *share;

	slot->node = node;
	slot->frame = physical - (physical & ((1u << PAGE_BITS) - 1));
	if (!of_page) {
		overflow++;
		slot->page = NO_PAGE; /* the next one is to be counted as lost, too */
		none.left = 2;
		slot->process = &none;
		slot->count = &nobody[0];
		slot->of_page = &nobody[1];
		slot->share = &lost;
		return slot;
	}
	/* Last what may say that nothing is known any more: it is not of this page. */
	share = range_of(of, address, node == this->node);
	slot->page = address >> PAGE_BITS;
	slot->era = this->era;
	slot->process = of;
	slot->count = &of->of[number][node];
	slot->of_page = &of_page[node < nodes ? node : nodes];
	slot->share = share;
	return slot;
}

static inline struct slot *user_slot(unsigned int number, meminfo info, uint64_t address)
{
	struct cpu *this = &cpu[number];
	uint64_t page = address >> PAGE_BITS;
	struct slot *slot = &this->slots[page % SLOTS];

	if (unlikely(slot->page != page || slot->era != this->era))
		slot = look_up(number, slot, info, address);
	++*slot->share;
	if (unlikely(!--slot->process->left))
		end_row(slot->process);
	return slot;
}

static inline void user_access(unsigned int told, meminfo info, uint64_t address, bool store, bool pays)
{
	unsigned int number = running(told);
	struct slot *slot = user_slot(number, info, address);

	if (store) {
		slot->count->writes++;
		slot->of_page->writes++;
	} else {
		slot->count->reads++;
		slot->of_page->reads++;
	}
	if (pays) {
		cpu[number].busy = true;
		pay(number, slot->node, slot->frame + (address & ((1u << PAGE_BITS) - 1)), store);
	}
}

static inline void kernel_access(unsigned int told, meminfo info, uint64_t address, bool store, bool pays)
{
	unsigned int number = running(told);
	uint64_t physical;
	unsigned int node = in_direct_map(address, &physical) ? node_of(physical) : translated(info, address, &physical);

	if (store)
		cpu[number].kernel[node].writes++;
	else
		cpu[number].kernel[node].reads++;
	if (pays)
		pay(number, node, physical, store);
}

#if MEMCTL_API < 2
/*
 * QEMU 7.2 leaves an instruction's list of calls at the first that is not for this kind of access: there is one call for all
 * kinds, which asks. And it forgets to forget the calls of an instruction that accesses memory in a helper and then leaves
 * the translated block (mended in 8.0, "plugin: clear plugin_mem_cbs before TB exit"): what the processor itself pushes for
 * an interrupt is then told as an access of that instruction, and known by its address. Were the calls gone,
 * it would call what is no more: once counting has been on, they stay, and do nothing while it is off.
 */
static void any_access(unsigned int number, meminfo info, uint64_t address, void *kernel)
{
	bool store = qemu_plugin_mem_is_store(info);

	if (!counting)
		return;
	if (kernel || address >> 63)
		kernel_access(number, info, address, store, priced);
	else
		user_access(number, info, address, store, priced);
}

static void instrument(struct qemu_plugin_insn *insn, bool kernel)
{
	qemu_plugin_register_vcpu_mem_cb(insn, any_access, NO_REGISTERS, READS | WRITES, (void *)(uintptr_t)kernel);
}
#else
#define ACCESS(name, whose, store, pays)                                                             \
	static void name(unsigned int number, meminfo info, uint64_t address, void *data)            \
	{                                                                                            \
		(void)data;                                                                          \
		whose##_access(number, info, address, store, pays);                                  \
	}
ACCESS(user_reads, user, false, false)
ACCESS(user_writes, user, true, false)
ACCESS(user_pays_reading, user, false, true)
ACCESS(user_pays_writing, user, true, true)
ACCESS(kernel_reads, kernel, false, false)
ACCESS(kernel_writes, kernel, true, false)
ACCESS(kernel_pays_reading, kernel, false, true)
ACCESS(kernel_pays_writing, kernel, true, true)

static void instrument(struct qemu_plugin_insn *insn, bool kernel)
{
	static const access_cb of[2][2][2] = {
		{ { user_reads, user_writes }, { user_pays_reading, user_pays_writing } },
		{ { kernel_reads, kernel_writes }, { kernel_pays_reading, kernel_pays_writing } },
	};
	/* Whose page table it is, is asked for accesses of processes only. */
	enum registers flags = kernel ? NO_REGISTERS : READ_REGISTERS;

	qemu_plugin_register_vcpu_mem_cb(insn, of[kernel][priced][0], flags, READS, NULL);
	qemu_plugin_register_vcpu_mem_cb(insn, of[kernel][priced][1], flags, WRITES, NULL);
}
#endif

/* Instructions. */

/* On 7.2 calls stay when counting goes off. */
static inline bool counts(void)
{
	return MEMCTL_API >= 2 || counting;
}

/* At the beginning of a block of the kernel's code, of so many instructions. */
static void kernel_runs(unsigned int told, void *instructions)
{
	struct cpu *this = &cpu[running(told)];

	this->era++;
	if (this->busy && counts())
		this->instructions += (uintptr_t)instructions;
}

static void process_runs(unsigned int told, void *instructions)
{
	if (counts())
		cpu[running(told)].instructions += (uintptr_t)instructions;
}

static void halted(unsigned int told, void *data)
{
	(void)data;
	cpu[running(told)].busy = false;
}

/* A process that has slept in the kernel goes on there. If it is the idle task, that will halt. */
static void switches(unsigned int told, void *data)
{
	(void)data;
	cpu[running(told)].busy = true;
}

static void bytes_of(const struct qemu_plugin_insn *insn, unsigned char *to, size_t size)
{
#if MEMCTL_API < 3
	memcpy(to, qemu_plugin_insn_data(insn), size);
#else
	qemu_plugin_insn_data(insn, to, size);
#endif
}

/* What of the kernel's instructions tells whether a CPU has work; NULL for all others. */
static execute_cb telling(const struct qemu_plugin_insn *insn)
{
	static const unsigned char hlt[] = { 0xf4 }, mwait[] = { 0x0f, 0x01, 0xc9 };
	/* mov D(%rsi),%rsp with a displacement of four bytes: the next task's stack, in __switch_to_asm (arch/x86/entry). */
	static const unsigned char next_stack[] = { 0x48, 0x8b, 0xa6 };
	unsigned char bytes[7] = { 0 };
	size_t size = qemu_plugin_insn_size(insn);

	if (size != sizeof(hlt) && size != sizeof(mwait) && size != sizeof(bytes))
		return NULL;
	bytes_of(insn, bytes, size);
	if (size == sizeof(bytes))
		return memcmp(bytes, next_stack, sizeof(next_stack)) ? NULL : switches;
	return memcmp(bytes, size == sizeof(hlt) ? hlt : mwait, size) ? NULL : halted;
}

static int mark_in(const struct qemu_plugin_insn *insn)
{
	unsigned char bytes[MARK_SIZE];
	uint32_t what;

	if (qemu_plugin_insn_size(insn) != MARK_SIZE)
		return NO_MARK;
	bytes_of(insn, bytes, MARK_SIZE);
	if (memcmp(bytes, mark_bytes, sizeof(mark_bytes)))
		return NO_MARK;
	memcpy(&what, bytes + sizeof(mark_bytes), sizeof(what));
	return what >= MARK(MARK_OFF) && what <= MARK(MARK_LAP) ? (int)(what - MARK(0)) : NO_MARK;
}

static void marked(unsigned int number, void *data)
{
	(void)number;
	if ((uintptr_t)data == MARK_LAP)
		take_lap();
	else
		count((uintptr_t)data == MARK_ON);
}

static void translate(plugin_id id, struct qemu_plugin_tb *tb)
{
	bool kernel = qemu_plugin_tb_vaddr(tb) >> 63;
	bool on = MEMCTL_API >= 2 ? counting : switched;
	size_t n = qemu_plugin_tb_n_insns(tb);

	(void)id;
	if (on && (kernel || priced))
		qemu_plugin_register_vcpu_tb_exec_cb(tb, kernel ? kernel_runs : process_runs, NO_REGISTERS, (void *)n);
	for (size_t i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		int mark = kernel ? NO_MARK : mark_in(insn);

		if (mark != NO_MARK)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, NO_REGISTERS, (void *)(uintptr_t)mark);
		if (on && priced && kernel && telling(insn))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, telling(insn), NO_REGISTERS, NULL);
		if (on)
			instrument(insn, kernel);
	}
}

/* On and off. */

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
void count(bool on)
{
	bool change, anew;

	pthread_mutex_lock(&lock);
	change = counting != on;
	anew = change && (MEMCTL_API >= 2 || !switched);
	counting = on;
	switched += change;
	if (change && on) {
		period++;
		cold();
		for (unsigned int c = 0; c < cpus; c++) {
			cpu[c].era++;
			cpu[c].busy = false;
		}
	} else if (change) {
		end_rows();
	}
	if (change && !anew)
		applied = switched;
	pthread_cond_broadcast(&change_applied);
	pthread_mutex_unlock(&lock);
	if (anew)
		qemu_plugin_reset(self, again);
}

/* Whether the last change has come into effect; after a while also when it has not. */
bool settled(bool on)
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
void applied_now(void)
{
	bool on;

	pthread_mutex_lock(&lock);
	on = counting;
	pthread_mutex_unlock(&lock);
	settled(on);
}

/* Nothing is counted, nor comes to be until unlock(): a mark waits for it. */
bool lock_while_quiet(void)
{
	pthread_mutex_lock(&lock);
	return !counting && applied == switched;
}

void unlock(void)
{
	pthread_mutex_unlock(&lock);
}

/* What is told of one run has nothing of an earlier one. Only between lock_while_quiet() and unlock(). */
void forget(void)
{
	for (unsigned int c = 0; c < MAX_CPUS; c++) {
		cpu[c].era++;
		memset(cpu[c].kernel, 0, sizeof(cpu[c].kernel));
	}
	forget_tally();
	forget_prices();
	period = 0;
}

/* Beginning. */

/* Which register has the page table: asked of each CPU once, in its own thread. */
static void starts(plugin_id id, unsigned int number)
{
	struct array *all;

	(void)id;
	if (number >= MAX_CPUS)
		return;
	find_current(number);
	if (!qemu_plugin_get_registers || !qemu_plugin_read_register || !g_byte_array_new || !g_byte_array_set_size)
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

static int option(const char *text)
{
	unsigned int node;
	int done;

	if (!strncmp(text, "socket=", 7))
		return listen_at(text + 7);
	if (sscanf(text, "cpu=%u", &node) == 1) {
		if (placed_cpus == MAX_CPUS || node >= MAX_NODES)
			return -1;
		cpu[placed_cpus++].node = node;
		return 0;
	}
	done = memory_option(text);
	if (!done)
		done = price_option(text);
	return done == 1 ? 0 : -1;
}

EXPORT int qemu_plugin_version = MEMCTL_API;

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv)
{
	const char *problem;

	self = id;
	cpus = info->system_emulation ? (unsigned int)info->system.max_vcpus : 0;
	for (unsigned int c = 0; c < MAX_CPUS; c++)
		cpu[c].era = 1;
	for (int i = 0; i < argc; i++)
		if (option(argv[i])) {
			fprintf(stderr, "memctl: %s: not understood, or not possible\n", argv[i]);
			return -1;
		}
	if (cpus != placed_cpus) {
		fprintf(stderr, "memctl: the guest has %u CPUs, and %u were told of\n", cpus, placed_cpus);
		return -1;
	}
	if (MEMCTL_API >= 4 && cpus > 1 && !dlsym(RTLD_DEFAULT, "current_cpu")) {
		fprintf(stderr, "memctl: this QEMU does not tell which CPU runs: it does not export current_cpu\n");
		return -1;
	}
	problem = price_problem();
	if (problem) {
		fprintf(stderr, "memctl: %s\n", problem);
		return -1;
	}
	qemu_plugin_register_vcpu_init_cb(id, starts);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	return 0;
}
