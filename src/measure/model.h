/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_MEASURE_MODEL_H
#define MALLEE_MEASURE_MODEL_H

#include <stdbool.h>

/*
 * What bandwidth, request size, queue and utilization a disk shows behind a path: bounds of a closed queueing network, which
 * docs/model.md derives. A path keeps `depth` requests going round: through the disk, through stations that serve one at a
 * time (a processor, a wire, a server), and through latency, in which any number may be at once. Sizes are in sectors of
 * 512 bytes, times in microseconds, so that MB/s are bytes a microsecond.
 */

#define MODEL_SECTOR_BYTES 512.0

struct model_disk {
	double rate_mb_s;         /* 0: unknown, or of no matter */
	double overhead_us;       /* each request, beside its transfer */
};

struct model_path {
	double sectors;           /* data of one request at the disk */
	double depth;             /* requests that the path keeps going */
	double latency_us;        /* added to each, overlapping that of others */
	double wait_us;           /* the head waits before each request at the disk: a seek, a revolution, a flush */
	double idle_us;           /* as latency, but spent in a disk that shows none of it: a far one behind a network */
	double extra_requests;    /* beside each request of data: metadata, */
	double extra_sectors;     /* of so many sectors each */
	double cpu_us;            /* of the one processor that handles each request */
	double wire_us;           /* of the wire */
	double server_us;         /* of a network volume's server */
	double ahead_us;          /* as cpu_us, of a processor that works ahead of these: no request waits for it, and it is in no round */
	double limit_mb_s;        /* the volume's own; 0: none */
	double limit_iops;
	bool far_disk;            /* behind a server that works ahead: its transfer is not in the round */
	double far_sectors;       /* of the requests there; 0: not known, and neither are its columns */
};

enum model_bound { MODEL_DISK, MODEL_DEPTH, MODEL_CPU, MODEL_WIRE, MODEL_SERVER, MODEL_LIMIT };

struct model_figures {
	double mb_s;              /* data, without what extra requests carry */
	double requests_s;        /* of data */
	double avgrq_sectors;     /* these three NAN where they are not known */
	double avgqu;
	double util_percent;
	enum model_bound bound;   /* what is full first */
};

/* All figures, for sectors and depth above 0. */
struct model_figures model_predict(const struct model_disk *d, const struct model_path *p);

/* "disk", "depth", "cpu", "wire", "server", "limit". */
const char *model_bound_name(enum model_bound b);

#endif
