// SPDX-License-Identifier: GPL-2.0-only
/* The guest's code as it is translated: what is called in it, and when. */
#include <string.h>

#include "memctl.h"

#define MARK_SIZE 7

/* nopl D(%rax) with a displacement of four bytes: "mof", and what is to be done. */
static const unsigned char mark_bytes[] = { 0x0f, 0x1f, 0x80 };
#define MARK(code) (0x666f6d00u | (code))
enum { NO_MARK = -1, MARK_OFF, MARK_ON, MARK_LAP };

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

void translate(plugin_id id, struct qemu_plugin_tb *tb)
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

