/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_MODEL_INSTANCE_TYPE_H
#define MALLEE_MODEL_INSTANCE_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The ladder of sizes that instances come in, in the order in which they are listed. */
struct instance_type {
	const char *name;
	int vcpus;
	int64_t memory_mib;
	int64_t disk_gib; /* root disk of the instance-store kind */
	bool current_generation;
	bool free_tier;
	int local_disks; /* whole disks of its node, whatever their size */
};

extern const struct instance_type instance_types[];
extern const size_t instance_type_count;

const struct instance_type *instance_type_find(const char *name); /* NULL: none such */

#endif
