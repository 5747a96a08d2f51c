/* SPDX-License-Identifier: Apache-2.0 */
#include "measure/figures.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S 1e9

/* ---- /proc/diskstats ---- */

/* The kernel prints its times as 32-bit milliseconds and all else as unsigned long (block/genhd.c, diskstats_show). */
#define TIMES_WRAP_NS ((UINT64_C(1) << 32) * NS_PER_MS)

/* Figures behind the name, in the order of the line. */
enum {
	READS, READS_MERGED, READ_SECTORS, READ_MS,
	WRITES, WRITES_MERGED, WRITE_SECTORS, WRITE_MS,
	IN_FLIGHT, BUSY_MS, WEIGHTED_MS,
	DISCARDS, DISCARDS_MERGED, DISCARD_SECTORS, DISCARD_MS, /* since Linux 4.18 */
	FLUSHES, FLUSH_MS, /* since Linux 5.5 */
	FIGURES
};
#define FIGURES_AT_LEAST (WEIGHTED_MS + 1)

/* A word ends at white space; *s moves behind it. */
static const char *next_word(const char **s, size_t *ret_len)
{
	const char *start = *s + strspn(*s, " \t"), *end = start + strcspn(start, " \t\r\n");

	*s = end;
	*ret_len = (size_t)(end - start);
	return start;
}

/* *s stays before what is no figure. */
static bool next_figure(const char **s, uint64_t *ret)
{
	size_t len;
	const char *end = *s, *word = next_word(&end, &len);
	uint64_t v = 0;

	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)word[i]) || __builtin_mul_overflow(v, UINT64_C(10), &v) ||
		    __builtin_add_overflow(v, (uint64_t)(word[i] - '0'), &v))
			return false;
	}
	if (!len)
		return false;
	*s = end;
	*ret = v;
	return true;
}

static struct disk_op_counters op_of(const uint64_t *f)
{
	return (struct disk_op_counters){ .ops = f[0], .merged = f[1], .bytes = f[2] * SECTOR_BYTES, .wait_ns = f[3] * NS_PER_MS };
}

int disk_counters_parse(const char *line, char ret_name[DISK_NAME_LEN], struct disk_counters *ret)
{
	uint64_t f[FIGURES] = { 0 }, number;
	const char *s = line, *name;
	size_t count = 0, len;

	if (!next_figure(&s, &number) || !next_figure(&s, &number))
		return -EINVAL;
	name = next_word(&s, &len);
	if (!len || len >= DISK_NAME_LEN)
		return -EINVAL;
	while (count < FIGURES && next_figure(&s, &f[count]))
		count++;
	/* A line that was cut off, or words between the figures: nothing to be guessed at. */
	if (count < FIGURES_AT_LEAST || (count < FIGURES && s[strspn(s, " \t\r")] != '\n' && s[strspn(s, " \t\r")] != '\0'))
		return -EINVAL;
	memcpy(ret_name, name, len);
	ret_name[len] = '\0';
	*ret = (struct disk_counters){
		.op = { [DISK_READ] = op_of(f + READS),
			[DISK_WRITE] = op_of(f + WRITES),
			[DISK_DISCARD] = op_of(f + DISCARDS),
			[DISK_FLUSH] = { .ops = f[FLUSHES], .wait_ns = f[FLUSH_MS] * NS_PER_MS } },
		.outstanding = f[IN_FLIGHT],
		.busy_ns = f[BUSY_MS] * NS_PER_MS,
		.weighted_ns = f[WEIGHTED_MS] * NS_PER_MS,
		.times_wrap_ns = TIMES_WRAP_NS,
	};
	return 0;
}

int disk_counters_find(const char *diskstats, const char *name, struct disk_counters *ret)
{
	char found[DISK_NAME_LEN];
	struct disk_counters c;

	for (const char *line = diskstats; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (disk_counters_parse(line, found, &c) < 0 || strcmp(found, name))
			continue;
		*ret = c;
		return 0;
	}
	return -ENOENT;
}

/* ---- mallee-blockd ---- */

static struct disk_op_counters op_of_blockd(const struct blockd_op_counters *b)
{
	return (struct disk_op_counters){ .ops = b->ops, .bytes = b->bytes, .wait_ns = b->latency_ns, .sequential = b->sequential };
}

struct disk_counters disk_counters_of_blockd(const struct blockd_counters *b)
{
	struct disk_counters c = {
		.op = { [DISK_READ] = op_of_blockd(&b->read),
			[DISK_WRITE] = op_of_blockd(&b->write),
			[DISK_DISCARD] = op_of_blockd(&b->discard),
			[DISK_FLUSH] = op_of_blockd(&b->flush) },
		.outstanding = b->outstanding,
		.busy_ns = b->busy_ns,
		.weighted_ns = b->weighted_ns,
		.places_known = b->places_known,
	};

	c.op[DISK_DISCARD].ops += b->write_zeroes.ops;
	c.op[DISK_DISCARD].bytes += b->write_zeroes.bytes;
	c.op[DISK_DISCARD].wait_ns += b->write_zeroes.latency_ns;
	return c;
}

/* ---- between two samples ---- */

/* A counter of things: 64 bits, so that what goes backwards began anew. */
static bool grown(uint64_t before, uint64_t after, uint64_t *ret)
{
	*ret = after - before;
	return after >= before;
}

/* A time: may have wrapped once, if what then passed is not more than half the way round. */
static bool passed(uint64_t before, uint64_t after, uint64_t wrap_ns, uint64_t *ret)
{
	if (grown(before, after, ret))
		return true;
	if (!wrap_ns || before >= wrap_ns || wrap_ns - before + after > wrap_ns / 2)
		return false;
	*ret = wrap_ns - before + after;
	return true;
}

static bool op_delta(const struct disk_op_counters *b, const struct disk_op_counters *a, uint64_t wrap_ns,
		     struct disk_op_counters *ret)
{
	return grown(b->ops, a->ops, &ret->ops) && grown(b->merged, a->merged, &ret->merged) &&
	       grown(b->bytes, a->bytes, &ret->bytes) && grown(b->sequential, a->sequential, &ret->sequential) &&
	       passed(b->wait_ns, a->wait_ns, wrap_ns, &ret->wait_ns);
}

int disk_counters_delta(const struct disk_counters *before, const struct disk_counters *after, struct disk_counters *ret)
{
	uint64_t wrap_ns = before->times_wrap_ns == after->times_wrap_ns ? after->times_wrap_ns : 0;
	struct disk_counters d = { .outstanding = after->outstanding,
				   .times_wrap_ns = wrap_ns,
				   .places_known = before->places_known && after->places_known };

	if (!grown(before->at_ns, after->at_ns, &d.at_ns) || !d.at_ns ||
	    !passed(before->busy_ns, after->busy_ns, wrap_ns, &d.busy_ns) ||
	    !passed(before->weighted_ns, after->weighted_ns, wrap_ns, &d.weighted_ns))
		return -ESTALE;
	for (unsigned i = 0; i < DISK_OPS; i++) {
		if (!op_delta(&before->op[i], &after->op[i], wrap_ns, &d.op[i]))
			return -ESTALE;
	}
	*ret = d;
	return 0;
}

static double ratio(double a, double b)
{
	return b > 0 ? a / b : NAN;
}

/* Counted as requests come, where ops are as they end. */
static double sequential_percent(const struct disk_counters *d)
{
	const struct disk_op_counters *r = &d->op[DISK_READ], *w = &d->op[DISK_WRITE];

	if (!d->places_known || !(r->ops + w->ops))
		return NAN;
	return MIN_OF(100.0 * (double)(r->sequential + w->sequential) / (double)(r->ops + w->ops), 100.0);
}

int disk_figures_between(const struct disk_counters *before, const struct disk_counters *after, struct disk_figures *ret)
{
	struct disk_counters d;
	const struct disk_op_counters *r = &d.op[DISK_READ], *w = &d.op[DISK_WRITE], *f = &d.op[DISK_FLUSH];
	int err = disk_counters_delta(before, after, &d);
	double s, ns;

	if (err < 0)
		return err;
	ns = (double)d.at_ns;
	s = ns / NS_PER_S;
	*ret = (struct disk_figures){
		.elapsed_s = s,
		.iops = (double)(r->ops + w->ops) / s,
		.read_iops = (double)r->ops / s,
		.write_iops = (double)w->ops / s,
		.discards_s = (double)d.op[DISK_DISCARD].ops / s,
		.flushes_s = (double)f->ops / s,
		.mb_s = (double)(r->bytes + w->bytes) / 1e6 / s,
		.read_mb_s = (double)r->bytes / 1e6 / s,
		.write_mb_s = (double)w->bytes / 1e6 / s,
		.merged_s = (double)(r->merged + w->merged) / s,
		.avgrq_sectors = ratio((double)(r->bytes + w->bytes) / SECTOR_BYTES, (double)(r->ops + w->ops)),
		.read_avgrq_sectors = ratio((double)r->bytes / SECTOR_BYTES, (double)r->ops),
		.write_avgrq_sectors = ratio((double)w->bytes / SECTOR_BYTES, (double)w->ops),
		.avgqu = (double)d.weighted_ns / ns,
		/* The kernel counts it in ticks of its clock, so that a full second may show 1.004. */
		.util_percent = MIN_OF(100.0 * (double)d.busy_ns / ns, 100.0),
		.sequential_percent = sequential_percent(&d),
		.await_ms = ratio((double)(r->wait_ns + w->wait_ns) / NS_PER_MS, (double)(r->ops + w->ops)),
		.read_await_ms = ratio((double)r->wait_ns / NS_PER_MS, (double)r->ops),
		.write_await_ms = ratio((double)w->wait_ns / NS_PER_MS, (double)w->ops),
		.flush_await_ms = ratio((double)f->wait_ns / NS_PER_MS, (double)f->ops),
	};
	return 0;
}
