/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_DISK_PRIV_H
#define MALLEE_BLOCK_FILTER_DISK_PRIV_H

#include "block/core/request.h"

/* The head of a mechanical disk, in model time: no clock, no lock. */
struct disk_model {
	uint64_t rate;           /* bytes a second */
	uint64_t seek_ns, near_bytes, flush_ns;
	bool elevator;
	struct blk_list waiting; /* in order of arrival; scratch[0]: when */
	uint64_t free_ns;        /* when the head has done what it was given */
	uint64_t head_bytes;
	bool dirty;              /* written since the last flush */
	uint64_t requests, bytes, seeks, flushes, busy_ns, weighted_ns;
};

/* The next one that the head turns to, and in scratch[1] when it will have served it. NULL: none waits. */
struct blk_req *disk_model_next(struct disk_model *m);

#endif
