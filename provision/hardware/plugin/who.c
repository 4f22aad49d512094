// SPDX-License-Identifier: GPL-2.0-only
/* Who accesses: which CPU, and of which process. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "memctl.h"

/*
 * From 10.0 on QEMU tells, with all CPUs in one thread, not the CPU that runs translated code but the one that had it
 * translated (gen_cpu_index() in accel/tcg/plugin-gen.c: "Optimize when we run with a single vcpu"), and they share such code.
 * QEMU's own variable is right; NULL where it cannot be found.
 */
struct cpu_state **current;
struct cpu_state *last;
unsigned int last_number;
static struct cpu_state *state[MAX_CPUS];

/* Where another CPU runs than the last time that was asked. */
unsigned int running_anew(unsigned int told)
{
	if (!current)
		return told;
	last = *current;
	for (last_number = 0; last_number < cpus && state[last_number] != last; last_number++)
		;
	if (last_number < cpus)
		return last_number;
	last = NULL;
	return told;
}

/* Without it, whoever had the code translated would be counted. */
bool cpus_told_apart(void)
{
	return MEMCTL_API < 4 || cpus == 1 || current;
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
struct process *at_work(struct cpu *this)
{
	if (this->table_era != this->era) {
		this->process = process_of(page_table(this));
		this->table_era = this->era;
	}
	return this->process;
}

/* Which register has the page table: asked of each CPU once, in its own thread. */
void starts(plugin_id id, unsigned int number)
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

