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
#define BLOCK_SECTORS 8.0       /* that metadata_per_byte counts */

/* How a buffered stream, and a direct one, reach the disk. 0: as the workload has it; with sectors 0 the depth is its limit. */
struct shape {
	double sectors;
	double depth;
	double cut_from; /* sectors of the guest's request that the emulator cut these from; 0: none */
};

struct configuration {
	const char *name;
	struct shape buffered_write;
	struct shape buffered_read;
	struct shape direct_write;
	struct shape direct_read;
	bool network;
};

/* Linux: the page cache writes back in requests of the queue's limit and reads ahead, one window while another is used. The host's own
 * rows say it better where there are any. */
#define CACHE_WRITE { 1024, 64 }
#define CACHE_READ { 512, 2 }
/* To the emulated controller a guest sends 96 segments of a page, of which QEMU moves 128 KiB at once, and one write at a time, while the
 * guest prepares another if its program has more in flight. Guests read ahead in windows of 128 KiB, one while another is used. */
#define LSI_WRITE { 256, 1, 768 }
#define LSI_DIRECT_WRITE { 0, 2 }
#define GUEST_READ { 256, 2 }
/* virtio and virtio-scsi: 126 segments of a page; NVMe: 512 KiB at once. The depth is what the guest's write-back reaches. */
#define VIRTIO_WRITE { 1008, 22 }
#define NVME_WRITE { 1024, 40 }
/* Ours: reads 256 KiB ahead and merges writes up to 1 MiB, several at once. */
#define MALLEE_READ { 512, 8 }
#define MALLEE_MERGED { 2048, 4 }

static const struct configuration configurations[] = {
	{ "none", CACHE_WRITE, CACHE_READ },
	{ "file-scsi", LSI_WRITE, GUEST_READ, LSI_DIRECT_WRITE },
	{ "disk-scsi-phy", LSI_WRITE, GUEST_READ, LSI_DIRECT_WRITE },
	{ "disk-scsi-tap", LSI_WRITE, GUEST_READ, LSI_DIRECT_WRITE },
	{ "disk-virtio-phy", VIRTIO_WRITE, GUEST_READ },
	{ "disk-virtio-tap", VIRTIO_WRITE, GUEST_READ },
	{ "disk-virtio-scsi", VIRTIO_WRITE, GUEST_READ },
	{ "disk-nvme", NVME_WRITE, GUEST_READ },
	{ "mallee", MALLEE_MERGED, MALLEE_READ, MALLEE_MERGED, MALLEE_READ },
	{ "net-none", CACHE_WRITE, CACHE_READ, .network = true },
	{ "net-scsi-phy", LSI_WRITE, GUEST_READ, LSI_DIRECT_WRITE, .network = true },
	{ "net-scsi-tap", LSI_WRITE, GUEST_READ, LSI_DIRECT_WRITE, .network = true },
	{ "net-virtio-phy", VIRTIO_WRITE, GUEST_READ, .network = true },
	{ "net-virtio-tap", VIRTIO_WRITE, GUEST_READ, .network = true },
	{ "net-mallee", MALLEE_MERGED, MALLEE_READ, MALLEE_MERGED, MALLEE_READ, .network = true },
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

static struct shape cache_shape(const struct model_bench_row *r, bool write)
{
	static const struct shape usual_write = CACHE_WRITE, usual_read = CACHE_READ;

	if (write && r->cache_write_sectors > 0)
		return (struct shape){ r->cache_write_sectors, MAX_OF(r->cache_write_depth, 1) };
	if (!write && r->cache_read_sectors > 0)
		return (struct shape){ r->cache_read_sectors, MAX_OF(r->cache_read_depth, 1) };
	return write ? usual_write : usual_read;
}

/* The host's page cache stands between the guest and the disk: that sees the host's requests, whatever the guest sends. */
static bool is_cached(const struct configuration *c, const struct workload *w, const struct model_bench_row *r)
{
	if (!strcmp(c->name, "none") || !strcmp(c->name, "net-none"))
		return w->kind == BUFFERED;
	return r->host_cache && !c->network && !(w->write && flushes_each(c, r));
}

static struct shape asked(const struct workload *w, const struct model_bench_row *r)
{
	double usual = w->kind == RANDOM ? RANDOM_SECTORS : REFERENCE_SECTORS;

	return (struct shape){ r->request_bytes > 0 ? r->request_bytes / MODEL_SECTOR_BYTES : usual, r->depth > 0 ? r->depth : w->depth };
}

static struct shape shape_of(const struct configuration *c, const struct workload *w, const struct model_bench_row *r)
{
	struct shape shape, ask = asked(w, r);

	if (w->kind != RANDOM && is_cached(c, w, r))
		return cache_shape(r, w->write);
	if (w->kind == BUFFERED)
		return w->write ? c->buffered_write : c->buffered_read;
	shape = w->write ? c->direct_write : c->direct_read;
	/* What reads ahead or merges has no part in random requests. */
	if (w->kind == RANDOM && shape.sectors > 0)
		return ask;
	if (shape.sectors > 0)
		return shape;
	/* The device's own depth is a limit to what the program keeps. */
	return (struct shape){ ask.sectors, shape.depth > 0 ? MIN_OF(shape.depth, ask.depth) : ask.depth };
}

/* Random writes into a buffer reach the disk sorted and late: nothing here says in what time. */
static bool is_absorbed(const struct configuration *c, const struct workload *w, const struct model_bench_row *r)
{
	return w->kind == RANDOM && w->write && ((r->host_cache && !flushes_each(c, r)) || c->direct_write.sectors > 0);
}

/* One frame after the other over the wire; the disk's own time hides behind them. */
static void add_network(struct model_path *p, const struct model_bench_row *r, bool write, bool random)
{
	double payload = floor((r->mtu - AOE_HEADER_BYTES) / MODEL_SECTOR_BYTES) * MODEL_SECTOR_BYTES;
	double frames = ceil(p->sectors * MODEL_SECTOR_BYTES / payload);

	p->wire_us = r->wire_mb_s > 0 ? frames * (r->mtu + ETHERNET_BYTES) / r->wire_mb_s : 0;
	p->far_disk = true;
	if (random)
		p->far_sectors = p->sectors;
	else
		p->far_sectors = r->host_cache ? cache_shape(r, write).sectors : payload / MODEL_SECTOR_BYTES;
}

/* What is flushed has been committed before: one write of metadata for each flush, at another place than the data. */
static void add_commits(struct model_path *p, const struct model_bench_row *r, double seek_us)
{
	double bytes = p->sectors * MODEL_SECTOR_BYTES;
	double flushes = r->flushes_per_byte * bytes, blocks = r->metadata_per_byte * bytes;

	if (blocks > 0 && flushes > 0) {
		p->extra_requests = flushes;
		p->extra_sectors = MAX_OF(blocks / flushes, 1) * BLOCK_SECTORS;
		p->wait_us = seek_us;
	}
	p->wait_us += r->flush_us * flushes / (1 + p->extra_requests);
}

/* ahead: the guest's program fills its page cache on one processor while another writes it back. What the emulator cuts a request into
 * takes the way to the guest and back once, together. */
static void add_machine(struct model_path *p, const struct model_bench_row *r, double cut_from, bool ahead)
{
	double parts = cut_from > 0 ? p->sectors / cut_from : MAX_OF(p->sectors / REFERENCE_SECTORS, 1);
	double latency = r->latency_us * parts;
	double cpu_us = r->cpu_us_per_byte * p->sectors * MODEL_SECTOR_BYTES;

	if (ahead) {
		p->ahead_us = cpu_us;
		p->latency_us = latency;
	} else {
		p->cpu_us = cpu_us;
		p->latency_us = MAX_OF(latency - cpu_us, 0); /* it holds the processor's work already */
	}
	p->limit_mb_s = r->limit_mb_s;
	p->limit_iops = r->limit_iops;
}

int model_bench_path(const struct model_bench_row *r, struct model_disk *ret_disk, struct model_path *ret_path)
{
	const struct configuration *c = find_configuration(r->configuration);
	const struct workload *w = find_workload(r->workload);

	if (!c || !w)
		return -ENOENT;
	if (r->disk_mb_s <= 0 || (w->kind == RANDOM && r->random_us <= 0) || is_absorbed(c, w, r))
		return -ENODATA;
	if (w->write && flushes_each(c, r) && r->flush_us <= 0)
		return -ENODATA;
	if (c->network && r->mtu < AOE_HEADER_BYTES + MODEL_SECTOR_BYTES)
		return -ENODATA;
	struct shape s = shape_of(c, w, r);
	if (!(s.sectors >= 1) || !(s.depth > 0))
		return -ENODATA;
	struct model_disk d = { .rate_mb_s = r->disk_mb_s };
	struct model_path p = { .sectors = s.sectors, .depth = s.depth };

	if (w->kind == RANDOM)
		d.overhead_us = MAX_OF(r->random_us - s.sectors * MODEL_SECTOR_BYTES / d.rate_mb_s, 0);
	if (w->write)
		add_commits(&p, r, w->kind == RANDOM ? 0 : r->seek_us); /* a random one seeks anyhow */
	add_machine(&p, r, s.cut_from, w->write && w->kind == BUFFERED);
	if (c->network)
		add_network(&p, r, w->write, w->kind == RANDOM);
	*ret_disk = d;
	*ret_path = p;
	return 0;
}

const char *model_bench_reference(const char *workload)
{
	const struct workload *w = find_workload(workload);

	return w ? (w->write ? "direct-write" : "direct-read") : NULL;
}

double model_bench_latency_us(double bytes, double mb_s, double disk_mb_s, double util_percent)
{
	if (bytes <= 0 || mb_s <= 0 || disk_mb_s <= 0)
		return 0;
	double round = bytes / mb_s, busy = MAX_OF(bytes / disk_mb_s, round * util_percent / 100);
	return MAX_OF(round - busy, 0);
}
