/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>

#include "base/macros.h"
#include "base/text.h"
#include "measure/diagnose_priv.h"

#define FIGURE(member, label, decimals, unit) { #member, label, unit, decimals, offsetof(struct diagnose_input, member) }

static const struct diagnose_figure figures[] = {
	FIGURE(depth, "depth", 0, ""),
	FIGURE(request_bytes, "request", 0, " bytes"),
	FIGURE(write, "write", 0, ""),
	FIGURE(random, "random", 0, ""),
	FIGURE(direct, "direct", 0, ""),
	FIGURE(demand_percent, "guest asks", 0, " % of the time"),
	FIGURE(sparse, "sparse", 0, ""),
	FIGURE(host_cache, "host cache", 0, ""),
	FIGURE(emulated, "emulated", 0, ""),
	FIGURE(exits_per_request, "exits a request", 1, ""),
	FIGURE(network_volume, "network volume", 0, ""),
	FIGURE(mtu, "MTU", 0, ""),
	FIGURE(mb_s, "guest", 1, " MB/s"),
	FIGURE(iops, "IOPS", 0, ""),
	FIGURE(ratio, "guest/native", 2, ""),
	FIGURE(avgrq_sectors, "avgrq-sz", 0, ""),
	FIGURE(avgqu, "avgqu-sz", 2, ""),
	FIGURE(util_percent, "%util", 0, ""),
	FIGURE(flushes_s, "flushes", 1, "/s"),
	FIGURE(metadata_writes_s, "metadata writes", 1, "/s"),
	FIGURE(guest_cpu_percent, "guest CPU", 0, " %"),
	FIGURE(host_cpu_percent, "host CPU", 0, " %"),
	FIGURE(others_percent, "for others", 0, " %"),
	FIGURE(disk_mb_s, "disk", 1, " MB/s"),
	FIGURE(disk_best_sectors, "best avgrq-sz", 0, ""),
	FIGURE(wire_mb_s, "wire", 1, " MB/s"),
	FIGURE(limit_mb_s, "limit", 1, " MB/s"),
	FIGURE(limit_iops, "limit", 0, " IOPS"),
	FIGURE(paravirtual_mb_s, "paravirtual", 1, " MB/s"),
	FIGURE(uncached_mb_s, "uncached", 1, " MB/s"),
};

static_assert(ARRAY_SIZE(figures) * sizeof(double) == sizeof(struct diagnose_input), "each figure has its line");

static double *at(struct diagnose_input *in, const struct diagnose_figure *f)
{
	return (double *)((char *)in + f->offset);
}

void diagnose_input_init(struct diagnose_input *in)
{
	for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
		*at(in, &figures[i]) = NAN;
}

double *diagnose_input_at(struct diagnose_input *in, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(figures); i++) {
		if (str_eq(figures[i].name, name))
			return at(in, &figures[i]);
	}
	return NULL;
}

const struct diagnose_figure *diagnose_figure_find(size_t offset)
{
	for (size_t i = 0; i < ARRAY_SIZE(figures); i++) {
		if (figures[i].offset == offset)
			return &figures[i];
	}
	return NULL;
}
