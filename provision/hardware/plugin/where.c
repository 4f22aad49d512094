// SPDX-License-Identifier: GPL-2.0-only
/* Where memory is: physical addresses, and the nodes that have them. */
#include <inttypes.h>

#include "memctl.h"

#define MAX_PIECES 130

struct piece {
	uint64_t start, size;
	unsigned int node;
};

unsigned int nodes;
static unsigned int pieces;
static struct piece memory[MAX_PIECES];
static uint64_t size_of[MAX_NODES];
static uint64_t direct_start, direct_size;

/* `memory=START+SIZE=NODE` and `direct=START+SIZE`: 1 when it was one of them, -1 when one that cannot be, else 0. */
int memory_option(const char *text)
{
	struct piece *next = &memory[pieces];

	if (sscanf(text, "direct=%" SCNx64 "+%" SCNx64, &direct_start, &direct_size) == 2)
		return 1;
	if (pieces == MAX_PIECES ||
	    sscanf(text, "memory=%" SCNx64 "+%" SCNx64 "=%u", &next->start, &next->size, &next->node) != 3)
		return 0;
	if (next->node >= MAX_NODES)
		return -1;
	nodes = next->node >= nodes ? next->node + 1 : nodes;
	size_of[next->node] += next->size;
	pieces++;
	return 1;
}

bool has_memory(unsigned int node)
{
	return size_of[node];
}

unsigned int node_of(uint64_t physical)
{
	for (unsigned int i = 0; i < pieces; i++)
		if (physical - memory[i].start < memory[i].size)
			return memory[i].node;
	return NOWHERE;
}

bool in_direct_map(uint64_t address, uint64_t *physical)
{
	*physical = address - direct_start;
	return *physical < direct_size;
}

/*
 * QEMU 7.2 adds up, for what it calls the physical address, where a node's memory begins among all blocks of memory and where
 * among all nodes, which is the same, and the offset in the node. The node's pieces are by rising address.
 */
static uint64_t mended(uint64_t told)
{
	uint64_t begins = 0, offset;

	if (MEMCTL_API >= 2)
		return told;
	for (unsigned int n = 0; n < nodes; begins += size_of[n++]) {
		offset = told - 2 * begins;
		if (offset >= size_of[n])
			continue;
		for (unsigned int i = 0; i < pieces; i++) {
			if (memory[i].node != n)
				continue;
			if (offset < memory[i].size)
				return memory[i].start + offset;
			offset -= memory[i].size;
		}
	}
	return UINT64_MAX;
}

unsigned int translated(meminfo info, uint64_t address, uint64_t *physical)
{
	struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, address);

	*physical = UINT64_MAX;
	if (!where || qemu_plugin_hwaddr_is_io(where))
		return NOWHERE;
	*physical = mended(qemu_plugin_hwaddr_phys_addr(where));
	return node_of(*physical);
}
