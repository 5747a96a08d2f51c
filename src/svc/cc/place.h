/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CC_PLACE_H
#define MALLEE_SVC_CC_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* What an instance needs, and what a node has: numbers only, so that placement is a function of its
 * arguments. */
enum resource { RESOURCE_VCPUS, RESOURCE_MEMORY_MIB, RESOURCE_DISK_MIB, RESOURCE_LOCAL_DISKS, RESOURCE_COUNT };

struct capacity {
	int64_t of[RESOURCE_COUNT];
};

struct place_node {
	const char *id;
	struct capacity total,
	    used; /* used counts reservations, and grows as place_one() chooses */
	int64_t instances;
};

/*
 * The node that is least full afterwards, counting its fullest resource: guests share a host's disk
 * and network with as few others as can be. Equally full ones: the one with fewer instances, then
 * by id. -1 when none has room; otherwise its index, and its used and instances have grown.
 */
int place_one(struct place_node *nodes, size_t count, const struct capacity *need);

/* InsufficientInstanceCapacity: says what is short, and by how much. not_ready: nodes that were not
 * asked. */
int place_explain(const struct place_node *nodes, size_t count, size_t not_ready,
		  const struct capacity *need, size_t wanted, size_t placed, struct error *e);

#endif
