/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A rule is a line of the table at the end: whether it applies (`fires`, over figures that are all known)
 * and how many times as much there would be without what it names (`gain`). A gain is never a guess of how good the mend is:
 * it takes the named cost out of the measured time and then asks what is met next: the disk's best rate, the wire, the
 * volume's limit, the processors. What would not gain a twentieth is not worth telling and does not fire.
 * Where each threshold comes from: docs/diagnosis.md, whose table names the same rules.
 */
#include "measure/diagnose.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/macros.h"
#include "measure/diagnose_priv.h"

/* ---- thresholds ---- */
#define WORTH_TELLING 1.05     /* gains below are within the spread of a good run */
#define BUSY_PERCENT 90        /* a disk or processor that is busier has no room to speak of */
#define DEPTH_ONE 2            /* below: one request at a time */
#define OTHERS_PERCENT 50      /* of a full disk: who has less of it waits for others most of the time */
#define DEMAND_PERCENT 50      /* a guest that asks less than half of the time starves nobody */
#define SMALL_SHARE 4          /* requests of less than a quarter of the device's best */
#define SPARSE_TIMES 2         /* busy for twice as long as the transfer takes */
#define SPARSE_EXTRAS_SHARE (2.0 / 3) /* of an unwritten extent's requests: one data, one metadata, one flush */
#define METADATA_BLOCK_BYTES 4096
#define AT_LIMIT 0.9           /* of a wire or of a limit: it is reached */
#define NEXT_WIRE 10           /* Ethernet's next speed is at most ten times this one */
#define NEXT_PROCESSOR 10      /* KVM is about ten times as fast as emulation, and nothing else brings more */
#define AOE_HEADER_BYTES 22    /* behind the Ethernet header: AoE 10, ATA 12 (AoEr11) */
#define JUMBO_MTU 9000

static bool known(double v)
{
	return isfinite(v) && v >= 0;
}

static bool positive(double v)
{
	return isfinite(v) && v > 0;
}

static bool yes(double v)
{
	return known(v) && v > 0.5;
}

static bool no(double v)
{
	return known(v) && v < 0.5;
}

/* ---- what there is to be had ---- */

static void cap(double *most, double at)
{
	if (positive(at))
		*most = MIN_OF(*most, at);
}

/* Requests a second, of the volume: those that were counted, or direct ones, which reach it as they are. */
static double iops_of(const struct diagnose_input *in)
{
	if (known(in->iops))
		return in->iops;
	return yes(in->direct) && positive(in->request_bytes) && known(in->mb_s) ? in->mb_s * 1e6 / in->request_bytes : NAN;
}

static void cap_by_limits(const struct diagnose_input *in, double *most)
{
	double iops = iops_of(in);

	cap(most, in->limit_mb_s);
	if (positive(in->limit_iops) && positive(iops))
		cap(most, in->mb_s * in->limit_iops / iops);
}

/* MB/s that disk, wire and limits allow; INFINITY when nothing is known of them. */
static double most_of(const struct diagnose_input *in)
{
	double most = INFINITY;

	cap(&most, in->disk_mb_s);
	cap(&most, in->wire_mb_s);
	cap_by_limits(in, &most);
	return most;
}

/* As often as what the guest's processor does now fits into it. The host's may be busy with others' work, which yields. */
static double cpu_room(const struct diagnose_input *in)
{
	return positive(in->guest_cpu_percent) ? MAX_OF(100 / in->guest_cpu_percent, 1) : INFINITY;
}

/* If the disk were kept busy all the time. */
static double idle_room(const struct diagnose_input *in)
{
	return positive(in->util_percent) ? MAX_OF(100 / in->util_percent, 1) : INFINITY;
}

static double finite_or_unknown(double gain)
{
	return isfinite(gain) ? gain : NAN;
}

/* ---- queue-starved ---- */

static bool starved_fires(const struct diagnose_input *in)
{
	return positive(in->mb_s) && known(in->depth) && in->depth < DEPTH_ONE && known(in->avgqu) && in->avgqu < 1 &&
	       positive(in->util_percent) && in->util_percent < BUSY_PERCENT &&
	       !(known(in->demand_percent) && in->demand_percent < DEMAND_PERCENT);
}

/* The disk's idle time filled, with as much work of the processors for each byte as now. */
static double starved_gain(const struct diagnose_input *in)
{
	return MIN_OF(MIN_OF(idle_room(in), most_of(in) / in->mb_s), cpu_room(in));
}

/* ---- sparse ---- */

static bool busy_time_known(const struct diagnose_input *in)
{
	return positive(in->mb_s) && positive(in->util_percent) && positive(in->disk_mb_s);
}

/* Shares of the elapsed time: that the transfer takes at the disk's best rate, and that it is busy beyond. */
static double transfer_share(const struct diagnose_input *in)
{
	return in->mb_s / in->disk_mb_s;
}

static double overhead_share(const struct diagnose_input *in)
{
	return MAX_OF(in->util_percent / 100 - transfer_share(in), 0);
}

/* Requests a second at the disk that are metadata: a journal writes about as often as it flushes, several blocks at a time. */
static double metadata_ops(const struct diagnose_input *in)
{
	return known(in->metadata_writes_s) && known(in->flushes_s) ? MIN_OF(in->metadata_writes_s, in->flushes_s) : 0;
}

/* Those that are data. Sizes are means: at least a tenth of all is taken to be data. */
static double data_ops(const struct diagnose_input *in)
{
	double metadata_bytes = known(in->metadata_writes_s) ? in->metadata_writes_s * METADATA_BLOCK_BYTES : 0;
	double ops = (in->mb_s * 1e6 + metadata_bytes) / (in->avgrq_sectors * 512);

	return MAX_OF(ops - metadata_ops(in), ops / 10);
}

/* Of the requests that cost a positioning: those that are no data. */
static double extras_share(const struct diagnose_input *in)
{
	double extras = in->flushes_s + metadata_ops(in);

	if (!known(in->flushes_s) || !known(in->metadata_writes_s) || !positive(in->avgrq_sectors))
		return SPARSE_EXTRAS_SHARE;
	return extras / (extras + data_ops(in));
}

static bool sparse_fires(const struct diagnose_input *in)
{
	return yes(in->sparse) && yes(in->write) && busy_time_known(in) &&
	       in->util_percent / 100 >= SPARSE_TIMES * transfer_share(in);
}

/* At most what the host itself gets of this workload: random requests seek in a written file, too. */
static double sparse_gain(const struct diagnose_input *in)
{
	double native = positive(in->ratio) ? MAX_OF(1 / in->ratio, 1) : INFINITY;
	double busy = transfer_share(in) + overhead_share(in);
	double mended = busy - overhead_share(in) * extras_share(in);

	return MIN_OF(MIN_OF(busy / mended, native), most_of(in) / in->mb_s);
}

/* ---- small-requests ---- */

/* avgrq-sz without the metadata's writes. */
static double data_sectors(const struct diagnose_input *in)
{
	return in->mb_s * 1e6 / 512 / data_ops(in);
}

static bool small_fires(const struct diagnose_input *in)
{
	return busy_time_known(in) && no(in->random) && positive(in->avgrq_sectors) && positive(in->disk_best_sectors) &&
	       data_sectors(in) * SMALL_SHARE < in->disk_best_sectors;
}

/* What a request costs beside its transfer, paid as seldom as at the best size. What a sparse file's metadata cost is that
 * rule's to gain, and not counted again. */
static double small_gain(const struct diagnose_input *in)
{
	double transfer = transfer_share(in), overhead = overhead_share(in);

	if (sparse_fires(in))
		overhead *= 1 - extras_share(in);
	return MIN_OF((transfer + overhead) / (transfer + overhead * data_sectors(in) / in->disk_best_sectors),
		      most_of(in) / in->mb_s);
}

/* ---- double-caching ---- */

static bool caching_fires(const struct diagnose_input *in)
{
	return yes(in->host_cache) && no(in->direct) && positive(in->mb_s) && positive(in->uncached_mb_s);
}

static double caching_gain(const struct diagnose_input *in)
{
	return in->uncached_mb_s / in->mb_s;
}

/* ---- emulated-device ---- */

static bool emulated_fires(const struct diagnose_input *in)
{
	return yes(in->emulated) && positive(in->mb_s) &&
	       (positive(in->paravirtual_mb_s) || (positive(in->util_percent) && in->util_percent < BUSY_PERCENT));
}

/* What the paravirtual device was seen to reach; else the time in which the disk waits for the device's emulation. */
static double emulated_gain(const struct diagnose_input *in)
{
	if (positive(in->paravirtual_mb_s))
		return in->paravirtual_mb_s / in->mb_s;
	return MIN_OF(idle_room(in), most_of(in) / in->mb_s);
}

/* ---- guest-cpu, host-cpu ---- */

/* What disk and wire would still give, as far as a better processor goes; without a figure of either, what the host itself got. */
static double room(const struct diagnose_input *in)
{
	double all = MIN_OF(idle_room(in), positive(in->mb_s) ? most_of(in) / in->mb_s : INFINITY);

	if (!isfinite(all) && !positive(in->ratio))
		return NAN;
	return MIN_OF(isfinite(all) ? all : 1 / in->ratio, NEXT_PROCESSOR);
}

static bool disk_is_busy(const struct diagnose_input *in)
{
	return known(in->util_percent) && in->util_percent >= BUSY_PERCENT;
}

static bool guest_cpu_fires(const struct diagnose_input *in)
{
	return known(in->guest_cpu_percent) && in->guest_cpu_percent >= BUSY_PERCENT && !disk_is_busy(in) && known(room(in));
}

static bool host_cpu_fires(const struct diagnose_input *in)
{
	return known(in->host_cpu_percent) && in->host_cpu_percent >= BUSY_PERCENT && !disk_is_busy(in) && known(room(in));
}

/* ---- frame-size ---- */

/* Bytes of disk that one frame carries: whole sectors. */
static double frame_payload(double mtu)
{
	return floor((mtu - AOE_HEADER_BYTES) / 512) * 512;
}

static bool frame_fires(const struct diagnose_input *in)
{
	return yes(in->network_volume) && positive(in->mb_s) && known(in->mtu) && in->mtu >= AOE_HEADER_BYTES + 512 &&
	       frame_payload(in->mtu) * 2 < frame_payload(JUMBO_MTU) && isfinite(most_of(in));
}

/* The time beyond what wire and disk need is taken to be the frames', and paid as seldom as with jumbo frames. */
static double frame_gain(const struct diagnose_input *in)
{
	double now = 1 / in->mb_s, least = 1 / most_of(in), frames = MAX_OF(now - least, 0);

	return now / (now - frames + frames * frame_payload(in->mtu) / frame_payload(JUMBO_MTU));
}

/* ---- wire ---- */

static bool wire_fires(const struct diagnose_input *in)
{
	return positive(in->mb_s) && positive(in->wire_mb_s) && in->mb_s >= AT_LIMIT * in->wire_mb_s;
}

static double wire_gain(const struct diagnose_input *in)
{
	double most = in->mb_s * NEXT_WIRE;

	cap(&most, in->disk_mb_s);
	cap_by_limits(in, &most);
	return MIN_OF(most / in->mb_s, MIN_OF(idle_room(in), cpu_room(in)));
}

/* ---- volume-limit ---- */

static bool limit_fires(const struct diagnose_input *in)
{
	double iops = iops_of(in);

	return positive(in->mb_s) && ((positive(in->limit_mb_s) && in->mb_s >= AT_LIMIT * in->limit_mb_s) ||
				      (positive(in->limit_iops) && positive(iops) && iops >= AT_LIMIT * in->limit_iops));
}

static double limit_gain(const struct diagnose_input *in)
{
	double most = INFINITY;

	cap(&most, in->disk_mb_s);
	cap(&most, in->wire_mb_s);
	return finite_or_unknown(MIN_OF(MIN_OF(most / in->mb_s, idle_room(in)), cpu_room(in)));
}

/* ---- shared-disk ---- */

static bool shared_fires(const struct diagnose_input *in)
{
	return positive(in->mb_s) && known(in->others_percent) && in->others_percent >= OTHERS_PERCENT;
}

/* If the disk's time were all its own. */
static double shared_gain(const struct diagnose_input *in)
{
	return MIN_OF(100 / MAX_OF(100 - in->others_percent, 1), most_of(in) / in->mb_s);
}

/* ---- none ---- */

/* It has what there is. */
static bool none_fires(const struct diagnose_input *in)
{
	return (positive(in->ratio) && in->ratio >= AT_LIMIT) ||
	       (positive(in->mb_s) && isfinite(most_of(in)) && in->mb_s >= AT_LIMIT * most_of(in)) ||
	       (!known(in->ratio) && known(in->util_percent) && in->util_percent >= BUSY_PERCENT);
}

static bool idle_fires(const struct diagnose_input *in)
{
	return (known(in->mb_s) && !positive(in->mb_s)) || (known(in->demand_percent) && in->demand_percent < DEMAND_PERCENT);
}

static bool always(const struct diagnose_input *in)
{
	return true;
}

static double nothing(const struct diagnose_input *in)
{
	return 1;
}

/* ---- the table ---- */

#define EVIDENCE_MAX 6
#define F(member) (offsetof(struct diagnose_input, member) + 1) /* 0 ends the list */

struct rule {
	const char *name;
	const char *why;
	const char *mend;
	bool (*fires)(const struct diagnose_input *in);  /* false when an input is unknown */
	double (*gain)(const struct diagnose_input *in); /* called only when it fires */
	size_t evidence[EVIDENCE_MAX];                   /* figures that `why` rests on, shown where known */
};

static const struct rule rules[] = {
	{ "sparse",
	  "The file has holes or unwritten extents: beside the data the disk writes metadata and flushes, and is busy for longer "
	  "than the data take",
	  "Write the blocks beforehand (Mallee's volumes do), or put the volume on a whole disk.", sparse_fires, sparse_gain,
	  { F(mb_s), F(disk_mb_s), F(util_percent), F(flushes_s), F(metadata_writes_s) } },
	{ "small-requests",
	  "The disk's requests are far smaller than those at which it is fast",
	  "Merge them on the way (Mallee's coalesce filter), or let the program ask for more at a time.", small_fires, small_gain,
	  { F(avgrq_sectors), F(disk_best_sectors), F(util_percent) } },
	{ "emulated-device",
	  "Each request costs several exits into the emulation of a real device",
	  "Give the guest a paravirtual device (virtio).", emulated_fires, emulated_gain,
	  { F(exits_per_request), F(mb_s), F(paravirtual_mb_s), F(util_percent) } },
	{ "guest-cpu",
	  "The guest's virtual CPU is fully used, and the disk or the wire waits for it: this is the speed of a processor, not of "
	  "a disk",
	  "Give the guest a faster CPU (KVM where it is emulated), or fewer and larger requests; to compare disks, slow the modelled "
	  "one (--scale).",
	  guest_cpu_fires, room, { F(guest_cpu_percent), F(util_percent), F(ratio) } },
	{ "host-cpu",
	  "The host's processors are fully used, by this or by others' work, and the disk or the wire waits for them",
	  "Run fewer guests here, or take a path that costs less CPU for each byte (paravirtual, past the host's page cache).",
	  host_cpu_fires, room, { F(host_cpu_percent), F(util_percent), F(ratio) } },
	{ "queue-starved",
	  "One request at a time: while it travels through the layers the disk is idle",
	  "Read ahead and write back below the guest (Mallee's default path), or let the program keep several requests in flight.",
	  starved_fires, starved_gain, { F(depth), F(avgqu), F(util_percent) } },
	{ "double-caching",
	  "What the guest has cached is cached again by the host, with a copy and a second queue on the way",
	  "Open the disk past the host's page cache (cache=none).", caching_fires, caching_gain, { F(mb_s), F(uncached_mb_s) } },
	{ "frame-size",
	  "A frame carries few sectors, so that a disk request takes many frames, and a write of less than a page is read first",
	  "Set the MTU of the storage network to 9000, on both ends and on the switch.", frame_fires, frame_gain,
	  { F(mtu), F(mb_s), F(wire_mb_s) } },
	{ "wire",
	  "The link to the storage or to the peer is full",
	  "A faster link, or the data nearer to the guest.", wire_fires, wire_gain, { F(mb_s), F(wire_mb_s) } },
	{ "volume-limit",
	  "The volume is held to its own limit of throughput or IOPS",
	  "Ask for a higher limit (ModifyVolume), or another volume type.", limit_fires, limit_gain,
	  { F(mb_s), F(limit_mb_s), F(iops), F(limit_iops) } },
	{ "shared-disk",
	  "The disk under it is busy all the time, and mostly for others",
	  "Put one of them on another disk, or hold the others to limits (ModifyVolume).", shared_fires, shared_gain,
	  { F(others_percent), F(mb_s) } },
};

/* When none of the above fires: the first of these that does. */
static const struct rule otherwise[] = {
	{ "none",
	  "Nothing: the guest asks for less than there is",
	  "Nothing to mend.", idle_fires, nothing, { F(demand_percent), F(mb_s), F(util_percent) } },
	{ "none",
	  "Nothing: it has what there is, and no rule finds a twentieth more",
	  "Nothing to mend.", none_fires, nothing, { F(ratio), F(mb_s), F(disk_mb_s), F(util_percent) } },
	{ "none",
	  "No rule explains it from the figures that are known",
	  "Measure with more of them (mallee bench disk tells all), or look at the model's row.", always, nothing,
	  { F(ratio), F(mb_s), F(avgrq_sectors), F(avgqu), F(util_percent) } },
};

static_assert(ARRAY_SIZE(rules) < FINDINGS_MAX, "room for all that fire");

const char *diagnose_rule_name(size_t i)
{
	if (i < ARRAY_SIZE(rules))
		return rules[i].name;
	return i == ARRAY_SIZE(rules) ? otherwise[0].name : NULL;
}

/* Neither so small that the decimals show nothing of it, nor so large that they are endless. */
static bool is_plain(double v)
{
	return !positive(v) || (v >= 0.1 && v < 1e9);
}

static void describe(const struct rule *r, const struct diagnose_input *in, char *ret, size_t size)
{
	const char *before = " (";
	size_t used = (size_t)snprintf(ret, size, "%s", r->why);

	for (size_t i = 0; i < EVIDENCE_MAX && r->evidence[i]; i++) {
		const struct diagnose_figure *f = diagnose_figure_find(r->evidence[i] - 1);
		double v = *(const double *)((const char *)in + f->offset);

		if (!known(v) || used >= size)
			continue;
		used += (size_t)snprintf(ret + used, size - used, is_plain(v) ? "%s%s %.*f%s" : "%s%s %.*g%s", before, f->label,
					 is_plain(v) ? f->decimals : 2, v, f->unit);
		before = ", ";
	}
	if (used < size)
		snprintf(ret + used, size - used, "%s.", before[0] == ',' ? ")" : "");
}

static struct finding finding_of(const struct rule *r, const struct diagnose_input *in, double gain)
{
	struct finding f = { .rule = r->name, .mend = r->mend, .gain = gain };

	describe(r, in, f.why, sizeof(f.why));
	return f;
}

static bool gains_more(double a, double b)
{
	return isnan(b) ? !isnan(a) : a > b;
}

/* In its place by gain; of equals the earlier rule stays before. */
static void insert(struct finding *all, size_t count, const struct finding *f)
{
	size_t i = count;

	for (; i > 0 && gains_more(f->gain, all[i - 1].gain); i--)
		all[i] = all[i - 1];
	all[i] = *f;
}

size_t diagnose(const struct diagnose_input *in, struct finding *ret)
{
	size_t count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		double gain = rules[i].fires(in) ? rules[i].gain(in) : 0;
		struct finding f;

		if (gain < WORTH_TELLING)
			continue;
		f = finding_of(&rules[i], in, gain);
		insert(ret, count++, &f);
	}
	for (size_t i = 0; !count; i++) {
		if (otherwise[i].fires(in))
			ret[count++] = finding_of(&otherwise[i], in, 1);
	}
	return count;
}
