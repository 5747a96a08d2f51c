/* SPDX-License-Identifier: Apache-2.0 */
#include "measure/model_bench.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/macros.h"

#define REFERENCE_SECTORS 128.0 /* of the row that tells the latency: 64 KiB */
#define RANDOM_SECTORS 8.0
#define AOE_HEADER_BYTES 36.0
#define ETHERNET_BYTES 38.0     /* preamble, header, check and gap of a frame */
#define BLOCK_SECTORS 8.0       /* of a file system's metadata */

/* How a buffered stream, and a direct one, reach the disk. */
struct shape {
	double sectors;
	double depth; /* 0: what the workload keeps */
};

struct configuration {
	const char *name;
	struct shape buffered_write;
	struct shape buffered_read;
	struct shape direct_write; /* sectors 0: as the workload asks */
	struct shape direct_read;
	bool network;
};

/* Linux 6: the page cache writes back in requests of the queue's limit and reads two windows ahead. Measured on the host alone. */
#define CACHE_WRITE { 1024, 64 }
#define CACHE_READ { 512, 2 }
/* The emulated controller's requests, one after the other; a guest reads two of its windows ahead. */
#define LSI_WRITE { 256, 1 }
#define LSI_READ { 256, 2 }
/* virtio: 254 segments of a page; NVMe: 512 KiB at once; virtio-scsi: 126 segments. The depth is what the guest's write-back reaches. */
#define VIRTIO_WRITE { 2032, 16 }
#define NVME_WRITE { 1024, 16 }
#define VIRTIO_SCSI_WRITE { 1008, 16 }
#define GUEST_READ { 512, 2 }
/* Ours: reads 256 KiB ahead, several at once; small writes are merged up to 1 MiB. */
#define MALLEE_READ { 512, 4 }
#define MALLEE_MERGED { 2048, 1 }

static const struct configuration configurations[] = {
	{ "none", CACHE_WRITE, CACHE_READ },
	{ "file-scsi", LSI_WRITE, LSI_READ },
	{ "disk-scsi-phy", LSI_WRITE, LSI_READ },
	{ "disk-scsi-tap", LSI_WRITE, LSI_READ },
	{ "disk-virtio-phy", VIRTIO_WRITE, GUEST_READ },
	{ "disk-virtio-tap", VIRTIO_WRITE, GUEST_READ },
	{ "disk-virtio-scsi", VIRTIO_SCSI_WRITE, GUEST_READ },
	{ "disk-nvme", NVME_WRITE, GUEST_READ },
	{ "mallee", VIRTIO_WRITE, MALLEE_READ, MALLEE_MERGED, MALLEE_READ },
	{ "net-none", CACHE_WRITE, CACHE_READ, .network = true },
	{ "net-scsi-phy", LSI_WRITE, LSI_READ, .network = true },
	{ "net-scsi-tap", LSI_WRITE, LSI_READ, .network = true },
	{ "net-virtio-phy", VIRTIO_WRITE, GUEST_READ, .network = true },
	{ "net-virtio-tap", VIRTIO_WRITE, GUEST_READ, .network = true },
	{ "net-mallee", VIRTIO_WRITE, MALLEE_READ, MALLEE_MERGED, MALLEE_READ, .network = true },
	{ "net-guest", CACHE_WRITE, CACHE_READ, .network = true },
};

enum kind { BUFFERED, DIRECT, RANDOM };

static const struct workload {
	const char *name;
	enum kind kind;
	bool write;
	double depth;
} workloads[] = {
	{ "dd-write", BUFFERED, true, 1 },     { "dd-read", BUFFERED, false, 1 },
	{ "stream-write", BUFFERED, true, 1 }, { "stream-read", BUFFERED, false, 1 },
	{ "direct-write", DIRECT, true, 1 },   { "direct-read", DIRECT, false, 1 },
	{ "aio8-write", DIRECT, true, 8 },     { "aio8-read", DIRECT, false, 8 },
	{ "aio32-write", DIRECT, true, 32 },   { "aio32-read", DIRECT, false, 32 },
	{ "rand-write", RANDOM, true, 8 },     { "rand-read", RANDOM, false, 8 },
};

static const struct workload *find_workload(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(workloads); i++) {
		if (!strcmp(workloads[i].name, name))
			return &workloads[i];
	}
	return NULL;
}

static const struct configuration *find_configuration(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(configurations); i++) {
		if (!strcmp(configurations[i].name, name))
			return &configurations[i];
	}
	return NULL;
}

/* So many for each request, and not only at the end of a run. */
static bool flushes_each(const struct configuration *c, const struct model_bench_row *r)
{
	return r->flushes_per_byte * c->buffered_write.sectors * MODEL_SECTOR_BYTES > 0.5;
}

static struct shape shape_of(const struct configuration *c, const struct workload *w, const struct model_bench_row *r)
{
	static const struct shape cache_write = CACHE_WRITE, cache_read = CACHE_READ;
	double depth = r->depth > 0 ? r->depth : w->depth;

	if (w->kind == RANDOM)
		return (struct shape){ RANDOM_SECTORS, depth };
	/* Through the host's page cache the disk sees the host's requests, whatever the guest sends. */
	if (r->host_cache && !(w->write && flushes_each(c, r)))
		return w->write ? cache_write : cache_read;
	if (w->kind == BUFFERED)
		return w->write ? c->buffered_write : c->buffered_read;
	struct shape s = w->write ? c->direct_write : c->direct_read;
	if (s.sectors > 0)
		return (struct shape){ s.sectors, MAX_OF(s.depth, 1) };
	return (struct shape){ r->request_bytes > 0 ? r->request_bytes / MODEL_SECTOR_BYTES : REFERENCE_SECTORS, depth };
}

/* One frame after the other over the wire; the disk's own time hides behind them. */
static void add_network(struct model_path *p, const struct model_bench_row *r)
{
	double payload = floor((r->mtu - AOE_HEADER_BYTES) / MODEL_SECTOR_BYTES) * MODEL_SECTOR_BYTES;
	double frames = ceil(p->sectors * MODEL_SECTOR_BYTES / payload);

	p->wire_us = frames * (r->mtu + ETHERNET_BYTES) / r->wire_mb_s;
	p->far_disk = true;
}

static void add_machine(struct model_path *p, const struct model_bench_row *r)
{
	double parts = MAX_OF(p->sectors / REFERENCE_SECTORS, 1);
	double latency = r->latency_us * parts;

	p->cpu_us = r->cpu_us_per_byte * p->sectors * MODEL_SECTOR_BYTES;
	/* The reference's latency holds the processor's work already. */
	p->latency_us = MAX_OF(latency - p->cpu_us, 0);
	p->limit_mb_s = r->limit_mb_s;
	p->limit_iops = r->limit_iops;
}

int model_bench_path(const struct model_bench_row *r, struct model_disk *ret_disk, struct model_path *ret_path)
{
	const struct configuration *c = find_configuration(r->configuration);
	const struct workload *w = find_workload(r->workload);

	if (!c || !w)
		return -ENOENT;
	if (r->disk_mb_s <= 0 || (w->kind == RANDOM && r->random_us <= 0))
		return -ENODATA;
	if (w->write && flushes_each(c, r) && r->flush_us <= 0)
		return -ENODATA;
	if (c->network && (r->mtu <= AOE_HEADER_BYTES + MODEL_SECTOR_BYTES || r->wire_mb_s <= 0))
		return -ENODATA;
	struct shape s = shape_of(c, w, r);
	if (!(s.sectors >= 1) || !(s.depth > 0))
		return -ENODATA;
	struct model_disk d = { .rate_mb_s = r->disk_mb_s };
	struct model_path p = { .sectors = s.sectors, .depth = s.depth };

	if (w->kind == RANDOM)
		d.overhead_us = MAX_OF(r->random_us - s.sectors * MODEL_SECTOR_BYTES / d.rate_mb_s, 0);
	else if (w->write) {
		double bytes = p.sectors * MODEL_SECTOR_BYTES;

		p.extra_requests = r->metadata_per_byte * bytes;
		p.extra_sectors = BLOCK_SECTORS;
		p.wait_us = r->flush_us * r->flushes_per_byte * bytes / (1 + p.extra_requests);
	}
	add_machine(&p, r);
	if (c->network)
		add_network(&p, r);
	*ret_disk = d;
	*ret_path = p;
	return 0;
}

const char *model_bench_reference(const char *workload)
{
	const struct workload *w = find_workload(workload);

	return w ? (w->write ? "direct-write" : "direct-read") : NULL;
}

double model_bench_latency_us(double bytes, double mb_s, double disk_mb_s)
{
	if (bytes <= 0 || mb_s <= 0 || disk_mb_s <= 0)
		return 0;
	return MAX_OF(bytes / mb_s - bytes / disk_mb_s, 0);
}
