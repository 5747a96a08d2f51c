/* SPDX-License-Identifier: Apache-2.0 */
#include "model/volume_type.h"

#include "base/macros.h"
#include "base/text.h"

#define MIB UINT64_C(1048576)
#define GIB_PER_TIB 1024

struct volume_type {
	const char *name;
	uint64_t min_gib, max_gib;
	bool boots;
	/* What a request may say; max 0: not this. */
	uint64_t min_iops, max_iops, default_iops, iops_per_gib; /* default 0: it must say */
	uint64_t min_mib, max_mib, default_mib;
	uint64_t io_bytes;
	void (*fill)(const struct volume_type *t, uint64_t gib, struct volume_limits *l);
};

static uint64_t clamp(uint64_t value, uint64_t least, uint64_t most)
{
	return MAX_OF(least, MIN_OF(value, most));
}

/* Three an I/O each GiB; small ones burst to 3000 out of a bucket of 5.4 million. */
static void fill_gp2(const struct volume_type *t, uint64_t gib, struct volume_limits *l)
{
	l->iops = l->shown_iops = clamp(3 * gib, 100, 16000);
	l->burst_iops = MAX_OF(l->iops, UINT64_C(3000));
	l->bytes_per_s = l->burst_bytes_per_s = (gib <= 170 ? 128 : 250) * MIB;
	if (l->burst_iops > l->iops)
		l->burst_s = 5400000 / (l->burst_iops - l->iops);
}

static void fill_provisioned(const struct volume_type *t, uint64_t gib, struct volume_limits *l)
{
	uint64_t most = (str_eq(t->name, "io2") ? 4000 : 1000) * MIB;

	l->bytes_per_s = l->burst_bytes_per_s = MIN_OF(l->iops * 256 * 1024, most);
}

/* Throughput by size; the bucket holds a TiB for each TiB. */
static void fill_hdd(const struct volume_type *t, uint64_t gib, struct volume_limits *l)
{
	bool cold = str_eq(t->name, "sc1");
	uint64_t base = (cold ? 12 : 40) * gib * MIB / GIB_PER_TIB, burst = (cold ? 80 : 250) * gib * MIB / GIB_PER_TIB;
	uint64_t most = (cold ? 250 : 500) * MIB;

	l->bytes_per_s = MIN_OF(base, most);
	l->burst_bytes_per_s = MIN_OF(burst, most);
	if (l->burst_bytes_per_s > l->bytes_per_s)
		l->burst_s = gib * 1024 * MIB / (l->burst_bytes_per_s - l->bytes_per_s);
}

/* A magnetic disk: about a hundred a second, several hundred for a moment. */
static void fill_standard(const struct volume_type *t, uint64_t gib, struct volume_limits *l)
{
	l->iops = 100;
	l->burst_iops = 300;
	l->burst_s = 30;
	l->bytes_per_s = l->burst_bytes_per_s = 90 * MIB;
}

static const struct volume_type types[] = {
	{ .name = "gp3", .min_gib = 1, .max_gib = 65536, .boots = true, .min_iops = 3000, .max_iops = 80000, .default_iops = 3000,
	  .iops_per_gib = 500, .min_mib = 125, .max_mib = 2000, .default_mib = 125, .io_bytes = 256 * 1024 },
	{ .name = "gp2", .min_gib = 1, .max_gib = 16384, .boots = true, .io_bytes = 256 * 1024, .fill = fill_gp2 },
	{ .name = "io1", .min_gib = 4, .max_gib = 16384, .boots = true, .min_iops = 100, .max_iops = 64000, .iops_per_gib = 50,
	  .io_bytes = 256 * 1024, .fill = fill_provisioned },
	{ .name = "io2", .min_gib = 4, .max_gib = 65536, .boots = true, .min_iops = 100, .max_iops = 256000, .iops_per_gib = 1000,
	  .io_bytes = 256 * 1024, .fill = fill_provisioned },
	{ .name = "st1", .min_gib = 125, .max_gib = 16384, .io_bytes = MIB, .fill = fill_hdd },
	{ .name = "sc1", .min_gib = 125, .max_gib = 16384, .io_bytes = MIB, .fill = fill_hdd },
	{ .name = "standard", .min_gib = 1, .max_gib = 1024, .boots = true, .io_bytes = 256 * 1024, .fill = fill_standard },
};

const struct volume_type *volume_type_find(const char *name)
{
	for (size_t i = 0; name && i < ARRAY_SIZE(types); i++) {
		if (str_eq(types[i].name, name))
			return &types[i];
	}
	return NULL;
}

const char *volume_type_name(const struct volume_type *t)
{
	return t->name;
}

bool volume_type_boots(const struct volume_type *t)
{
	return t->boots;
}

uint64_t volume_type_min_gib(const struct volume_type *t)
{
	return t->min_gib;
}

bool volume_type_takes_iops(const struct volume_type *t)
{
	return t->max_iops != 0;
}

bool volume_type_takes_throughput(const struct volume_type *t)
{
	return t->max_mib != 0;
}

static int check_size(const struct volume_type *t, uint64_t gib, struct error *e)
{
	if (gib < t->min_gib)
		return error_set(e, "InvalidParameterValue", "A %s volume of %llu GiB is too small; the minimum is %llu GiB", t->name,
				 (unsigned long long)gib, (unsigned long long)t->min_gib);
	if (gib > t->max_gib)
		return error_set(e, "InvalidParameterValue", "A %s volume of %llu GiB is too large; the maximum is %llu GiB", t->name,
				 (unsigned long long)gib, (unsigned long long)t->max_gib);
	return 0;
}

static int check_iops(const struct volume_type *t, uint64_t gib, uint64_t iops, struct error *e)
{
	if (!t->max_iops)
		return iops ? error_set(e, "InvalidParameterCombination", "The parameter iops is not supported for %s volumes", t->name) : 0;
	if (!iops && !t->default_iops)
		return error_set(e, "MissingParameter", "The parameter iops must be specified for %s volumes", t->name);
	if (!iops)
		return 0;
	if (iops < t->min_iops || iops > t->max_iops)
		return error_set(e, "InvalidParameterValue", "%s volumes have %llu to %llu IOPS, not %llu", t->name,
				 (unsigned long long)t->min_iops, (unsigned long long)t->max_iops, (unsigned long long)iops);
	/* The least that the type has may be had at any size. */
	if (iops > t->min_iops && iops > gib * t->iops_per_gib)
		return error_set(e, "InvalidParameterValue", "%llu IOPS are more than %llu for each of %llu GiB", (unsigned long long)iops,
				 (unsigned long long)t->iops_per_gib, (unsigned long long)gib);
	return 0;
}

static int check_throughput(const struct volume_type *t, uint64_t iops, uint64_t mib, struct error *e)
{
	if (!t->max_mib)
		return mib ? error_set(e, "InvalidParameterCombination", "The parameter throughput is not supported for %s volumes", t->name) : 0;
	if (!mib)
		return 0;
	if (mib < t->min_mib || mib > t->max_mib)
		return error_set(e, "InvalidParameterValue", "%s volumes have a throughput of %llu to %llu MiB/s, not %llu", t->name,
				 (unsigned long long)t->min_mib, (unsigned long long)t->max_mib, (unsigned long long)mib);
	if (mib > t->default_mib && mib * 4 > iops)
		return error_set(e, "InvalidParameterValue", "%llu MiB/s need at least %llu IOPS: 0.25 MiB/s for each at most",
				 (unsigned long long)mib, (unsigned long long)(mib * 4));
	return 0;
}

int volume_type_limits(const struct volume_type *t, uint64_t size_gib, uint64_t iops, uint64_t mib_per_s, struct volume_limits *ret,
		       struct error *e)
{
	int err = check_size(t, size_gib, e);
	uint64_t given = iops ? iops : t->default_iops;

	if (!err)
		err = check_iops(t, size_gib, iops, e);
	if (!err)
		err = check_throughput(t, given, mib_per_s, e);
	if (err)
		return err;
	struct volume_limits l = { .io_bytes = t->io_bytes };
	l.iops = l.burst_iops = l.shown_iops = given;
	l.shown_mib_per_s = mib_per_s ? mib_per_s : t->default_mib;
	l.bytes_per_s = l.burst_bytes_per_s = l.shown_mib_per_s * MIB;
	if (t->fill)
		t->fill(t, size_gib, &l);
	*ret = l;
	return 0;
}
