/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_THROTTLE_PRIV_H
#define MALLEE_BLOCK_FILTER_THROTTLE_PRIV_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The arithmetic of limits, without clocks or threads: buckets in model time. A bucket is a debt that melts at its rate: `full_ns`
 * is when it will be full again. A request may go as soon as the bucket is not empty, and what it costs beyond that is a debt that
 * those behind it wait for; so a request that is larger than the bucket is no special case, and the rate is kept whatever the sizes.
 * A reservation is made at a time of the model, not of the timer that fires late: lateness does not add up.
 */
enum limit_unit { LIMIT_OPS, LIMIT_BYTES, LIMIT_UNITS };

enum limit {
	LIMIT_IOPS, LIMIT_BPS,
	LIMIT_IOPS_READ, LIMIT_BPS_READ,
	LIMIT_IOPS_WRITE, LIMIT_BPS_WRITE,
	LIMIT_IOPS_PEAK, LIMIT_BPS_PEAK, /* while a large bucket of the first two lasts */
	LIMITS
};

struct limit_kind {
	const char *name; /* as an option */
	enum limit_unit unit;
	bool reads, writes;
};
extern const struct limit_kind limit_kinds[LIMITS];

struct cost {
	uint64_t amount[LIMIT_UNITS];
	bool write;
};

struct limit_settings {
	uint64_t rate[LIMITS];          /* a second; 0: unlimited */
	uint64_t burst[LIMIT_UNITS];    /* the size of the first two buckets; 0: burst_ms of their rate, as all others */
	uint64_t burst_ms;
};

struct bucket {
	uint64_t rate, window_ns;       /* window: what the bucket holds, in time */
	uint64_t full_ns, rest;         /* rest: of the last division */
};

struct limiter {
	struct limit_settings settings;
	struct bucket bucket[LIMITS];
};

/* Debts are kept, in units, over a change. */
void limiter_set(struct limiter *m, const struct limit_settings *s, uint64_t now_ns);
bool limiter_active(const struct limiter *m);
/* When a request that came at at_ns may go; it is charged. */
uint64_t limiter_reserve(struct limiter *m, const struct cost *c, uint64_t at_ns);
/* It will be reserved again. */
void limiter_refund(struct limiter *m, const struct cost *c);

#endif
