/* SPDX-License-Identifier: Apache-2.0 */
#include "block/filter/throttle_priv.h"

#include "base/macros.h"

#define NS_PER_S 1000000000ull
#define FAR_NS (1ull << 62)

const struct limit_kind limit_kinds[LIMITS] = {
	[LIMIT_IOPS] = { "iops", LIMIT_OPS, true, true },
	[LIMIT_BPS] = { "bps", LIMIT_BYTES, true, true },
	[LIMIT_IOPS_READ] = { "iops-rd", LIMIT_OPS, true, false },
	[LIMIT_BPS_READ] = { "bps-rd", LIMIT_BYTES, true, false },
	[LIMIT_IOPS_WRITE] = { "iops-wr", LIMIT_OPS, false, true },
	[LIMIT_BPS_WRITE] = { "bps-wr", LIMIT_BYTES, false, true },
	[LIMIT_IOPS_PEAK] = { "iops-peak", LIMIT_OPS, true, true },
	[LIMIT_BPS_PEAK] = { "bps-peak", LIMIT_BYTES, true, true },
};

static uint64_t clamp(unsigned __int128 ns)
{
	return ns < FAR_NS ? (uint64_t)ns : FAR_NS;
}

/* units at rate, in ns */
static uint64_t in_time(uint64_t units, uint64_t rate)
{
	return clamp((unsigned __int128)units * NS_PER_S / rate);
}

void limiter_set(struct limiter *m, const struct limit_settings *s, uint64_t now_ns)
{
	for (unsigned i = 0; i < LIMITS; i++) {
		struct bucket *b = &m->bucket[i];
		uint64_t debt_ns = b->rate && b->full_ns > now_ns ? b->full_ns - now_ns : 0;
		uint64_t debt = clamp((unsigned __int128)debt_ns * b->rate / NS_PER_S);
		uint64_t burst = i <= LIMIT_BPS ? s->burst[limit_kinds[i].unit] : 0;
		b->rest = 0;
		b->rate = s->rate[i];
		b->full_ns = MIN_OF(b->full_ns, now_ns);
		if (!b->rate)
			continue;
		if (debt)
			b->full_ns = now_ns + in_time(debt, b->rate);
		b->window_ns = burst ? in_time(burst, b->rate) : s->burst_ms * 1000000u;
	}
	m->settings = *s;
}

bool limiter_active(const struct limiter *m)
{
	for (unsigned i = 0; i < LIMITS; i++) {
		if (m->bucket[i].rate)
			return true;
	}
	return false;
}

static bool concerns(const struct bucket *b, const struct limit_kind *kind, const struct cost *c)
{
	return b->rate && c->amount[kind->unit] && (c->write ? kind->writes : kind->reads);
}

static void charge(struct bucket *b, uint64_t amount)
{
	unsigned __int128 n = (unsigned __int128)amount * NS_PER_S + b->rest;

	b->full_ns = clamp((unsigned __int128)b->full_ns + n / b->rate);
	b->rest = (uint64_t)(n % b->rate);
}

uint64_t limiter_reserve(struct limiter *m, const struct cost *c, uint64_t at_ns)
{
	for (unsigned i = 0; i < LIMITS; i++) {
		const struct bucket *b = &m->bucket[i];
		if (concerns(b, &limit_kinds[i], c) && b->full_ns > b->window_ns)
			at_ns = MAX_OF(at_ns, b->full_ns - b->window_ns);
	}
	for (unsigned i = 0; i < LIMITS; i++) {
		struct bucket *b = &m->bucket[i];
		if (!concerns(b, &limit_kinds[i], c))
			continue;
		b->full_ns = MAX_OF(b->full_ns, at_ns);
		charge(b, c->amount[limit_kinds[i].unit]);
	}
	return at_ns;
}

void limiter_refund(struct limiter *m, const struct cost *c)
{
	for (unsigned i = 0; i < LIMITS; i++) {
		struct bucket *b = &m->bucket[i];
		if (concerns(b, &limit_kinds[i], c))
			b->full_ns -= MIN_OF(b->full_ns, in_time(c->amount[limit_kinds[i].unit], b->rate));
	}
}
