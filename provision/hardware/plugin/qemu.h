/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What we call of QEMU's interface for plugins, from QEMU 7.2 (version 1 of the interface) to 10 (version 4).
 *
 * The header is not packaged with QEMU. Names, order and types are those of include/qemu/qemu-plugin.h; what is not in every
 * version is weak, or chosen by MEMCTL_API, the version that it is compiled for.
 */
#ifndef MEMCTL_QEMU_H
#define MEMCTL_QEMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t plugin_id;
typedef uint32_t meminfo;

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_hwaddr;

struct qemu_info {
	const char *target_name;
	struct {
		int min;
		int cur;
	} version;
	bool system_emulation;
	struct {
		int smp_vcpus;
		int max_vcpus;
	} system;
};

enum registers { NO_REGISTERS, READ_REGISTERS };
enum accesses { READS = 1, WRITES = 2 };

typedef void (*simple_cb)(plugin_id id);
typedef void (*vcpu_cb)(plugin_id id, unsigned int cpu);
typedef void (*translate_cb)(plugin_id id, struct qemu_plugin_tb *tb);
typedef void (*execute_cb)(unsigned int cpu, void *data);
typedef void (*access_cb)(unsigned int cpu, meminfo info, uint64_t address, void *data);
typedef void (*exit_cb)(plugin_id id, void *data);

void qemu_plugin_reset(plugin_id id, simple_cb done);
void qemu_plugin_register_vcpu_init_cb(plugin_id id, vcpu_cb cb);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, translate_cb cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, execute_cb cb, enum registers flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, execute_cb cb, enum registers flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, access_cb cb, enum registers flags, enum accesses rw,
				      void *data);
void qemu_plugin_register_atexit_cb(plugin_id id, exit_cb cb, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(meminfo info, uint64_t address);
bool qemu_plugin_mem_is_store(meminfo info);
bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *address);
uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *address);

/* Up to version 2 the bytes of an instruction are handed out, from 3 on they are copied. */
#if MEMCTL_API < 3
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
#else
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t size);
#endif

/* QEMU's own, not of the interface, but exported since 7.2 at least: the guest's clock. */
enum { QEMU_CLOCK_VIRTUAL = 1 };
int64_t qemu_clock_get_ns(int type);
/* Not 0 with -icount: then the clock cannot be read in the middle of translated code, and QEMU ends when one does. */
extern int use_icount __attribute__((weak));

/*
 * The same: what that clock is made of (system/timers-state.h, before 9 softmmu/timers-state.h), as it is in 7.2 and in 10.0. With
 * -icount the clock is the instructions of all CPUs, shifted, and `bias`. Of another size it is something else.
 */
struct timers {
	int64_t ticks_prev, ticks_offset;
	uint32_t sequence, spin;
	int16_t ticks_enabled, shift;
	int64_t last_delta, bias, warp_start, clock_offset, instructions;
	void *rest[3];
};
extern struct timers timers_state __attribute__((weak));

/* The same: something to be done by a CPU's thread, where the interface expects to be called. */
struct cpu_state;
union cpu_data {
	unsigned long value;
	void *pointer;
};
typedef void (*cpu_work)(struct cpu_state *cpu, union cpu_data data);
struct cpu_state *qemu_get_cpu(int index);
void async_run_on_cpu(struct cpu_state *cpu, cpu_work work, union cpu_data data);
/* Leave translated code soon: then it is seen which timers are due. */
void cpu_exit(struct cpu_state *cpu);

/* GArray and GByteArray of GLib, as far as we look. */
struct array {
	char *data;
	unsigned int length;
};

struct qemu_register {
	void *handle;
	const char *name;
	const char *feature;
};

/* From version 2 on. */
struct array *qemu_plugin_get_registers(void) __attribute__((weak));
int qemu_plugin_read_register(void *handle, struct array *to) __attribute__((weak));
struct array *g_byte_array_new(void) __attribute__((weak));
struct array *g_byte_array_set_size(struct array *array, unsigned int length) __attribute__((weak));

#endif
