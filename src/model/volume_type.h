/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_MODEL_VOLUME_TYPE_H
#define MALLEE_MODEL_VOLUME_TYPE_H

#include <stdint.h>

#include "base/error.h"

/* EBS' volume types and what their names promise (Amazon EBS User Guide, "Amazon EBS volume types"). */
struct volume_type;

const struct volume_type *volume_type_find(const char *name); /* NULL: none of ours */
const char *volume_type_name(const struct volume_type *t);
bool volume_type_boots(const struct volume_type *t); /* st1 and sc1 cannot hold a root */
uint64_t volume_type_min_gib(const struct volume_type *t);
/* Whether a request may say them. */
bool volume_type_takes_iops(const struct volume_type *t);
bool volume_type_takes_throughput(const struct volume_type *t);

/* What a volume may do. 0: unlimited. */
struct volume_limits {
	uint64_t iops, burst_iops;           /* of io_bytes each; what is larger counts as several */
	uint64_t bytes_per_s, burst_bytes_per_s;
	uint64_t burst_s;                    /* how long a full bucket lasts at the burst rate */
	uint64_t io_bytes;
	uint64_t shown_iops;                 /* as DescribeVolumes shows it; 0: not shown */
	uint64_t shown_mib_per_s;            /* likewise; gp3 only */
};

/* iops, mib_per_s: 0 when the request does not say. InvalidParameterValue, InvalidParameterCombination or MissingParameter. */
int volume_type_limits(const struct volume_type *t, uint64_t size_gib, uint64_t iops, uint64_t mib_per_s, struct volume_limits *ret,
		       struct error *e);

#endif
