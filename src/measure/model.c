/* SPDX-License-Identifier: Apache-2.0 */
#include "measure/model.h"

#include <assert.h>
#include <math.h>

#include "base/macros.h"

static const char *const bound_names[] = {
	[MODEL_DISK] = "disk", [MODEL_DEPTH] = "depth",   [MODEL_CPU] = "cpu",
	[MODEL_WIRE] = "wire", [MODEL_SERVER] = "server", [MODEL_LIMIT] = "limit",
};

const char *model_bound_name(enum model_bound b)
{
	assert((size_t)b < ARRAY_SIZE(bound_names));
	return bound_names[b];
}

static double service_us(const struct model_disk *d, double sectors)
{
	return d->overhead_us + (d->rate_mb_s > 0 ? sectors * MODEL_SECTOR_BYTES / d->rate_mb_s : 0);
}

/* The disk's time for one request of data and what goes with it. */
static double cycle_us(const struct model_disk *d, const struct model_path *p)
{
	if (p->far_sectors > 0)
		return service_us(d, p->far_sectors) * p->sectors / p->far_sectors;
	return service_us(d, p->sectors) + p->wait_us +
	       p->extra_requests * (service_us(d, p->extra_sectors) + p->wait_us);
}

static void bound_by(struct model_figures *f, enum model_bound b, double requests_us)
{
	if (requests_us >= f->requests_s)
		return;
	f->requests_s = requests_us;
	f->bound = b;
}

/* A station that needs `us` for each request. */
static void bound_by_station(struct model_figures *f, enum model_bound b, double us)
{
	if (us > 0)
		bound_by(f, b, 1 / us);
}

static void disk_columns(struct model_figures *f, const struct model_path *p, double disk_us, double round_us)
{
	double busy = f->requests_s * disk_us; /* U = X S */

	if (p->far_disk && p->far_sectors <= 0) {
		f->avgrq_sectors = f->avgqu = f->util_percent = NAN;
		return;
	}
	f->util_percent = 100 * MIN_OF(busy, 1.0);
	if (p->far_disk) {
		f->avgrq_sectors = p->far_sectors;
		f->avgqu = busy;
		return;
	}
	f->avgrq_sectors = (p->sectors + p->extra_requests * p->extra_sectors) / (1 + p->extra_requests);
	/* Whoever is not in the rest of the round waits where it is full. */
	f->avgqu = f->bound == MODEL_DISK ? p->depth - f->requests_s * (round_us - disk_us) : busy;
}

struct model_figures model_predict(const struct model_disk *d, const struct model_path *p)
{
	assert(p->sectors > 0 && p->depth > 0);
	double bytes = p->sectors * MODEL_SECTOR_BYTES;
	double disk_us = cycle_us(d, p);
	double round_us = (p->far_disk ? 0 : disk_us) + p->latency_us + p->idle_us + p->cpu_us + p->wire_us + p->server_us;
	struct model_figures f = { .requests_s = INFINITY, .bound = MODEL_DISK };

	/* In requests a microsecond, until the end. */
	bound_by_station(&f, MODEL_DISK, disk_us);
	bound_by_station(&f, MODEL_CPU, p->cpu_us);
	bound_by_station(&f, MODEL_CPU, p->ahead_us);
	bound_by_station(&f, MODEL_WIRE, p->wire_us);
	bound_by_station(&f, MODEL_SERVER, p->server_us);
	bound_by_station(&f, MODEL_LIMIT, p->limit_mb_s > 0 ? bytes / p->limit_mb_s : 0);
	bound_by_station(&f, MODEL_LIMIT, p->limit_iops > 0 ? 1e6 / p->limit_iops : 0);
	if (round_us > 0)
		bound_by(&f, MODEL_DEPTH, p->depth / round_us);
	disk_columns(&f, p, disk_us, round_us);
	f.mb_s = f.requests_s * bytes;
	f.requests_s *= 1e6;
	return f;
}
