// SPDX-License-Identifier: GPL-2.0-only
/* What is done at each access to memory. */
#include "memctl.h"

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

void instrument(struct qemu_plugin_insn *insn, bool kernel)
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

void instrument(struct qemu_plugin_insn *insn, bool kernel)
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

