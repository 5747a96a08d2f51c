/* SPDX-License-Identifier: Apache-2.0 */
#include "measure/model_study.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/macros.h"

/* A number of the study's machines, by name. */
enum number {
	NONE, /* not in the path: 0 */
	RATE,
	READ_OVERHEAD,
	WRITE_OVERHEAD,
	REVOLUTION,
	HOST_LATENCY,
	GUEST_LATENCY,
	FRAME_SECTORS,
	FRAME_TIME,
	MAX_REQUEST,
	QUEUE_LENGTH,
	HOST_WINDOW,
	GUEST_WINDOW,
	AIO_THREADS,
	RING_SLOTS,
	SLOT_SECTORS,
	RING_SECTORS,
	SYNCHRONOUS,
	FILE_AHEAD,
	GAP,
	SPARSE_PIECE,
	JOURNAL_WRITES,
	JOURNAL_SECTORS,
	CACHE_PIECE,
	NUMBERS
};

static const struct model_constant constants[NUMBERS] = {
	[NONE] = { "none", 0, "", MODEL_KNOWN, "not in the path" },
	[RATE] = { "disk rate", 116, "MB/s", MODEL_FITTED,
		   "the study states about 110 with what each request costs; with the overheads below, 116 is 110 in its own requests" },
	[READ_OVERHEAD] = { "read overhead", 100, "us/request", MODEL_FITTED, "of the disk, beside the transfer" },
	[WRITE_OVERHEAD] = { "write overhead", 250, "us/request", MODEL_FITTED, "of the disk, beside the transfer" },
	[REVOLUTION] = { "revolution", 60e6 / 7200, "us", MODEL_KNOWN, "7200 a minute: the disk's family has it in its name" },
	[HOST_LATENCY] = { "host's latency", 90, "us/128 KiB", MODEL_FITTED, "system call, copy and dd itself, between requests" },
	[GUEST_LATENCY] = { "guest's latency", 630, "us/128 KiB", MODEL_FITTED,
			    "what the host's is, and exits, device model and completion; the same for SCSI, virtio and XVD, KVM and Xen, phy and tap" },
	[FRAME_SECTORS] = { "sectors a frame", 17, "sectors", MODEL_STATED, "(9000 - 36) / 512: AoE's header in a frame of the stated MTU" },
	[FRAME_TIME] = { "server's time a frame", 132, "us", MODEL_FITTED,
			 "receive, file, send: one frame at a time; 72 of it are the gigabit wire's" },
	[MAX_REQUEST] = { "longest request", 1024, "sectors", MODEL_KNOWN, "Linux then: max_sectors_kb 512" },
	[QUEUE_LENGTH] = { "request queue", 128, "requests", MODEL_KNOWN, "Linux then: nr_requests 128, which write-back fills" },
	[HOST_WINDOW] = { "host's read-ahead", 512, "sectors", MODEL_READ, "Table 2, avgrq-sz of the host alone" },
	[GUEST_WINDOW] = { "guest's request", 256, "sectors", MODEL_KNOWN,
			   "Linux's read-ahead of 128 KiB, and what the driver of the emulated controller sends at most" },
	[AIO_THREADS] = { "QEMU's threads", 64, "requests", MODEL_KNOWN, "QEMU then: aio_threads 64" },
	[RING_SLOTS] = { "Xen's ring", 32, "requests", MODEL_KNOWN, "blkif: slots of a ring of one page" },
	[SLOT_SECTORS] = { "slot of it", 88, "sectors", MODEL_KNOWN, "blkif: 11 pages a request" },
	[RING_SECTORS] = { "full ring", 32 * 88, "sectors", MODEL_KNOWN, "32 slots of 88" },
	[SYNCHRONOUS] = { "one at a time", 1, "requests", MODEL_STATED,
			  "the study: a synchronous reader keeps one request in flight; for the emulated controller's writes read off avgqu-sz below 1" },
	[FILE_AHEAD] = { "windows of a file", 2, "requests", MODEL_READ, "Table 2, avgqu-sz above 1 of both image files: the next window is read meanwhile" },
	[GAP] = { "extent of a file", 1.1e6 / 512, "sectors", MODEL_FITTED, "after each, half a revolution is lost in reading an image file" },
	[SPARSE_PIECE] = { "growth of a sparse file", 64, "sectors", MODEL_FITTED, "data that one commit of the host's file system covers" },
	[JOURNAL_WRITES] = { "writes of a commit", 2, "requests", MODEL_KNOWN, "a journal's blocks, and its commit block" },
	[JOURNAL_SECTORS] = { "their size", 16, "sectors", MODEL_KNOWN, "descriptor, bitmap and inode in one, a single block in the other" },
	[CACHE_PIECE] = { "piece of Xen's emulated reads", 12, "sectors", MODEL_READ, "Table 2, avgrq-sz 14 and 11: pages, hardly merged" },
};

/* Waits of the head, as revolutions. */
enum rotation { NO_WAIT, HALF, WHOLE, HALF_A_GAP };

struct study_path {
	struct model_study_row row;
	enum number window;  /* what comes down at once, */
	enum number piece;   /* and the longest part of it that the disk is given: pieces are equal */
	enum number depth;   /* NONE: all pieces of a window are there together */
	enum number latency; /* per 128 KiB */
	enum rotation rotation;
	bool journal;        /* each request of data has a commit */
	bool far;            /* over AoE */
};

#define KVM_WRITE "one request of the emulated controller at a time"
#define KVM_READ "the host reads ahead, synchronously, for a guest that waits"
#define FAR_WRITE "each guest's request waits at the far disk for half a revolution, one at a time whatever the driver"
#define XEN_READ "each window in single pages through the host's buffer cache, all at once"

static const struct study_path paths[] = {
	{ { "none", true, "write-back fills the request queue" }, MAX_REQUEST, MAX_REQUEST, QUEUE_LENGTH, HOST_LATENCY },
	{ { "file-scsi", true, "growth: data, journal and commit, each a revolution" }, SPARSE_PIECE, SPARSE_PIECE, SYNCHRONOUS, GUEST_LATENCY, WHOLE, .journal = true },
	{ { "disk-scsi-phy", true, KVM_WRITE }, GUEST_WINDOW, GUEST_WINDOW, SYNCHRONOUS, GUEST_LATENCY },
	{ { "disk-scsi-tap", true, KVM_WRITE }, GUEST_WINDOW, GUEST_WINDOW, SYNCHRONOUS, GUEST_LATENCY },
	{ { "disk-virtio-phy", true, "QEMU's threads hold the depth" }, MAX_REQUEST, MAX_REQUEST, AIO_THREADS, GUEST_LATENCY },
	{ { "disk-virtio-tap", true, "QEMU's threads hold the depth" }, MAX_REQUEST, MAX_REQUEST, AIO_THREADS, GUEST_LATENCY },
	{ { "xen-file-scsi", true, "the host's write-back, half a revolution lost in the file system at each request" }, MAX_REQUEST, MAX_REQUEST, QUEUE_LENGTH, GUEST_LATENCY, HALF },
	{ { "xen-disk-scsi-phy", true, KVM_WRITE }, GUEST_WINDOW, GUEST_WINDOW, SYNCHRONOUS, GUEST_LATENCY },
	{ { "xen-disk-scsi-tap", true, "a guest's request in slots of the tap's ring, unmerged, the ring full" }, GUEST_WINDOW, SLOT_SECTORS, RING_SLOTS, GUEST_LATENCY },
	{ { "xen-disk-xvd-phy", true, "a full ring, merged by the host" }, RING_SECTORS, MAX_REQUEST, NONE, GUEST_LATENCY },
	{ { "net-none", true, "write-back over AoE; the server is full" }, MAX_REQUEST, MAX_REQUEST, QUEUE_LENGTH, HOST_LATENCY, .far = true },
	{ { "net-scsi-phy", true, FAR_WRITE }, GUEST_WINDOW, GUEST_WINDOW, SYNCHRONOUS, GUEST_LATENCY, HALF, .far = true },
	{ { "net-scsi-tap", true, FAR_WRITE }, GUEST_WINDOW, GUEST_WINDOW, SYNCHRONOUS, GUEST_LATENCY, HALF, .far = true },
	{ { "net-virtio-phy", true, FAR_WRITE }, GUEST_WINDOW, GUEST_WINDOW, SYNCHRONOUS, GUEST_LATENCY, HALF, .far = true },
	{ { "net-virtio-tap", true, FAR_WRITE }, GUEST_WINDOW, GUEST_WINDOW, SYNCHRONOUS, GUEST_LATENCY, HALF, .far = true },
	{ { "xen-net-scsi-phy", true, FAR_WRITE }, GUEST_WINDOW, GUEST_WINDOW, SYNCHRONOUS, GUEST_LATENCY, HALF, .far = true },
	{ { "xen-net-scsi-tap", true, FAR_WRITE }, GUEST_WINDOW, GUEST_WINDOW, SYNCHRONOUS, GUEST_LATENCY, HALF, .far = true },
	{ { "none", false, "a synchronous reader of whole windows" }, HOST_WINDOW, HOST_WINDOW, SYNCHRONOUS, HOST_LATENCY },
	{ { "file-scsi", false, "the host reads ahead in the file, over its extents" }, HOST_WINDOW, HOST_WINDOW, FILE_AHEAD, GUEST_LATENCY, HALF_A_GAP },
	{ { "disk-scsi-phy", false, KVM_READ }, HOST_WINDOW, HOST_WINDOW, SYNCHRONOUS, GUEST_LATENCY },
	{ { "disk-scsi-tap", false, KVM_READ }, HOST_WINDOW, HOST_WINDOW, SYNCHRONOUS, GUEST_LATENCY },
	{ { "disk-virtio-phy", false, KVM_READ }, HOST_WINDOW, HOST_WINDOW, SYNCHRONOUS, GUEST_LATENCY },
	{ { "disk-virtio-tap", false, KVM_READ }, HOST_WINDOW, HOST_WINDOW, SYNCHRONOUS, GUEST_LATENCY },
	{ { "xen-file-scsi", false, "windows of the guest's size, over the file's extents" }, GUEST_WINDOW, GUEST_WINDOW, FILE_AHEAD, GUEST_LATENCY, HALF_A_GAP },
	{ { "xen-disk-scsi-phy", false, XEN_READ }, GUEST_WINDOW, CACHE_PIECE, NONE, GUEST_LATENCY },
	{ { "xen-disk-scsi-tap", false, XEN_READ }, GUEST_WINDOW, CACHE_PIECE, NONE, GUEST_LATENCY },
	{ { "xen-disk-xvd-phy", false, "each window in slots of the ring, all at once" }, GUEST_WINDOW, SLOT_SECTORS, NONE, GUEST_LATENCY },
	{ { "net-none", false, "a synchronous reader of whole windows, frame by frame" }, HOST_WINDOW, HOST_WINDOW, SYNCHRONOUS, HOST_LATENCY, .far = true },
	{ { "net-scsi-phy", false, KVM_READ }, HOST_WINDOW, HOST_WINDOW, SYNCHRONOUS, GUEST_LATENCY, .far = true },
	{ { "net-scsi-tap", false, KVM_READ }, HOST_WINDOW, HOST_WINDOW, SYNCHRONOUS, GUEST_LATENCY, .far = true },
	{ { "net-virtio-phy", false, KVM_READ }, HOST_WINDOW, HOST_WINDOW, SYNCHRONOUS, GUEST_LATENCY, .far = true },
	{ { "net-virtio-tap", false, KVM_READ }, HOST_WINDOW, HOST_WINDOW, SYNCHRONOUS, GUEST_LATENCY, .far = true },
	{ { "xen-net-scsi-phy", false, KVM_READ }, HOST_WINDOW, HOST_WINDOW, SYNCHRONOUS, GUEST_LATENCY, .far = true },
	{ { "xen-net-scsi-tap", false, KVM_READ }, HOST_WINDOW, HOST_WINDOW, SYNCHRONOUS, GUEST_LATENCY, .far = true },
};

static double value_of(enum number n)
{
	return constants[n].value;
}

static double wait_us(enum rotation r, double sectors)
{
	double half = value_of(REVOLUTION) / 2;

	switch (r) {
	case NO_WAIT:
		return 0;
	case HALF:
		return half;
	case WHOLE:
		return 2 * half;
	case HALF_A_GAP:
		return half * sectors / value_of(GAP);
	}
	assert(!"a wait of the head");
	return 0;
}

static void fill(const struct study_path *s, struct model_disk *d, struct model_path *p)
{
	double pieces = ceil(value_of(s->window) / value_of(s->piece));
	double sectors = value_of(s->window) / pieces;
	double wait = wait_us(s->rotation, sectors);

	*d = (struct model_disk){ .rate_mb_s = value_of(RATE),
				  .overhead_us = value_of(s->row.write ? WRITE_OVERHEAD : READ_OVERHEAD) };
	*p = (struct model_path){
		.sectors = sectors,
		.depth = s->depth == NONE ? pieces : value_of(s->depth),
		.latency_us = value_of(s->latency) * sectors / value_of(GUEST_WINDOW),
		.wait_us = s->far ? 0 : wait,
		.idle_us = s->far ? wait : 0,
		.extra_requests = s->journal ? value_of(JOURNAL_WRITES) : 0,
		.extra_sectors = s->journal ? value_of(JOURNAL_SECTORS) : 0,
		.server_us = s->far ? ceil(sectors / value_of(FRAME_SECTORS)) * value_of(FRAME_TIME) : 0,
		.far_disk = s->far,
	};
}

const struct model_constant *model_study_constant_at(unsigned i)
{
	return i < NUMBERS - 1 ? &constants[NONE + 1 + i] : NULL;
}

const struct model_study_row *model_study_row_at(unsigned i)
{
	return i < ARRAY_SIZE(paths) ? &paths[i].row : NULL;
}

const char *model_provenance_name(enum model_provenance p)
{
	static const char *const names[] = {
		[MODEL_STATED] = "stated", [MODEL_KNOWN] = "known", [MODEL_READ] = "read off", [MODEL_FITTED] = "fitted",
	};

	assert((size_t)p < ARRAY_SIZE(names));
	return names[p];
}

int model_study_path(const char *configuration, bool write, struct model_disk *ret_disk, struct model_path *ret_path)
{
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		if (paths[i].row.write != write || strcmp(paths[i].row.configuration, configuration))
			continue;
		fill(&paths[i], ret_disk, ret_path);
		return 0;
	}
	return -ENOENT;
}
