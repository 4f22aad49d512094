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
#include <stdio.h>
#include <string.h>

#include "memctl.h"

#define EXPORT __attribute__((visibility("default")))

unsigned int cpus;
struct cpu cpu[MAX_CPUS];
static unsigned int placed_cpus;

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
