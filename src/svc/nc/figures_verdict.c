/* SPDX-License-Identifier: Apache-2.0 */
/* What holds a disk of a running guest back: the figures of the last interval, put to the rules of src/measure. */
#include <math.h>
#include <stdio.h>

#include "base/macros.h"
#include "base/text.h"
#include "svc/nc/figures.h"

#define MB 1e6
#define CPU_BUSY_PERCENT 90
#define CPU_WAITS_PERCENT 20 /* a vCPU that has no core for a fifth of the time has a crowded host */
#define HELD_PERCENT 10
#define CPU_WANTED_PERCENT 90 /* of the time, a vCPU runs or would if it had a core */
#define DISK_BUSY_PERCENT 90
#define OWN_PERCENT 80	      /* of what a disk does: it is this volume's alone */
#define RANDOM_PERCENT 50     /* fewer requests than that are sequential */
#define LINK_FULL_PERCENT 90  /* of its speed; frames have gaps between them */
#define LINK_OWN_PERCENT 10   /* of what a full link carries: who has less does not feel it */
#define DROPS_PERCENT 1	      /* of its packets */

static double or_unknown(bool known, double value)
{
	return known ? value : NAN;
}

static double bytes_of(const struct disk_counters *c, enum disk_op op)
{
	return (double)c->op[op].bytes;
}

/* What the guest asks. */
static void put_demand(const struct figures_disk *d, struct diagnose_input *in)
{
	const struct disk_counters *c = &d->guest_delta;
	double bytes = bytes_of(c, DISK_READ) + bytes_of(c, DISK_WRITE);
	double ops = (double)(c->op[DISK_READ].ops + c->op[DISK_WRITE].ops);

	in->depth = or_unknown(c->busy_ns > 0, (double)c->weighted_ns / (double)c->busy_ns); /* while it asks */
	in->request_bytes = or_unknown(ops > 0, bytes / ops);
	in->write = bytes_of(c, DISK_WRITE) > bytes_of(c, DISK_READ);
	in->demand_percent = d->guest_figures.util_percent;
	in->mb_s = d->guest_figures.mb_s;
	in->iops = d->guest_figures.iops;
}

double figures_held_percent(const struct figures_disk *d)
{
	const struct disk_op_counters *op = d->guest_delta.op;
	uint64_t ops = op[DISK_READ].ops + op[DISK_WRITE].ops;

	return d->fresh && ops ? MIN_OF((double)d->held_delta / (double)ops * 100, 100) : 0;
}

/* What comes of it below. A disk that QEMU opens itself is known from above alone. */
static void put_storage(const struct figures_disk *d, struct diagnose_input *in)
{
	if (d->source != FIGURES_BLOCKD)
		return;
	in->emulated = 0;
	in->avgrq_sectors = d->storage_figures.avgrq_sectors;
	in->avgqu = d->storage_figures.avgqu;
	in->util_percent = d->storage_figures.util_percent;
	in->flushes_s = d->storage_figures.flushes_s;
	in->random = or_unknown(isfinite(d->storage_figures.sequential_percent), d->storage_figures.sequential_percent < RANDOM_PERCENT);
	if (figures_held_percent(d) < HELD_PERCENT)
		return; /* it runs on what it saved up */
	in->limit_iops = or_unknown(d->limit_iops > 0, (double)d->limit_iops);
	in->limit_mb_s = or_unknown(d->limit_bps > 0, (double)d->limit_bps / MB);
}

static const struct figures_host_disk *disk_under(const struct figures *f, const struct figures_disk *d)
{
	for (size_t i = 0; i < f->host.disk_count; i++)
		if (str_eq(f->host.disks[i].device, d->host_device))
			return &f->host.disks[i];
	return NULL;
}

static double share_of(double part, double whole)
{
	return whole > 0 ? MIN_OF(part / whole * 100, 100) : 100;
}

/* Of the host's disk, in bytes or in requests: it may have much of the one and little of the other. */
static double own_percent(const struct figures_disk *d, const struct figures_host_disk *h)
{
	return MAX_OF(share_of(d->storage_figures.mb_s, h->figures.mb_s), share_of(d->storage_figures.iops, h->figures.iops));
}

/* What a disk is able to do is not known of one that was never busy all the time; nor while it is not: it may be able to do more. */
static void put_host_disk(const struct figures *f, const struct figures_disk *d, struct diagnose_input *in)
{
	const struct figures_host_disk *h = disk_under(f, d);

	if (d->source != FIGURES_BLOCKD || d->host_cached || !h || !h->fresh || h->figures.util_percent < DISK_BUSY_PERCENT)
		return;
	in->others_percent = 100 - own_percent(d, h);
	if (100 - in->others_percent < OWN_PERCENT || !(h->best.util_percent >= DISK_BUSY_PERCENT))
		return;
	in->disk_mb_s = h->best.mb_s;
	in->disk_best_sectors = h->best.avgrq_sectors;
}

static void put_cpus(const struct figures *f, const struct figures_instance *inst, struct diagnose_input *in)
{
	in->guest_cpu_percent = or_unknown(inst->cpu.fresh, inst->cpu.busiest_percent);
	in->host_cpu_percent = or_unknown(f->host.fresh, f->host.cpu_percent);
}

static bool is_idle(const struct disk_counters *c)
{
	return !c->op[DISK_READ].ops && !c->op[DISK_WRITE].ops && !c->op[DISK_FLUSH].ops && !c->op[DISK_DISCARD].ops && !c->busy_ns;
}

/* Of a disk that is asked for little: what may be the cause of that. A busy host is none of a guest whose CPUs rest. */
static bool holds_the_asking(const struct figures_instance *inst, const struct finding *f)
{
	if (str_eq(f->rule, "host-cpu"))
		return inst->cpu.fresh && inst->cpu.busiest_percent + inst->cpu.wait_percent >= CPU_WANTED_PERCENT;
	return str_eq(f->rule, "volume-limit") || str_eq(f->rule, "guest-cpu");
}

/* How much would be asked without it, nobody can tell. */
static size_t keep_those(const struct figures_instance *inst, struct finding *list, size_t count)
{
	size_t n = 0;

	for (size_t i = 0; i < count; i++) {
		if (!holds_the_asking(inst, &list[i]))
			continue;
		list[n] = list[i];
		list[n++].gain = NAN;
	}
	return n;
}

static void say_unhurried(double demand_percent, struct finding *f)
{
	*f = (struct finding){.rule = "none", .mend = "Nothing to mend.", .gain = 1};
	snprintf(f->why, sizeof(f->why), "Nothing: the guest asks this disk for something only %.0f %% of the time.", demand_percent);
}

size_t figures_diagnose(const struct figures *f, const struct figures_instance *inst, const struct figures_disk *d,
			struct finding *ret)
{
	struct diagnose_input in;
	size_t n;

	if (!d->fresh || is_idle(&d->guest_delta))
		return 0;
	diagnose_input_init(&in);
	put_demand(d, &in);
	put_storage(d, &in);
	put_host_disk(f, d, &in);
	put_cpus(f, inst, &in);
	n = diagnose(&in, ret);
	/* Below a write buffer the storage may be busy with what the guest has long been told is done. */
	if (!(in.demand_percent < FIGURES_BUSY_ENOUGH_PERCENT) || in.util_percent >= FIGURES_BUSY_ENOUGH_PERCENT)
		return n;
	n = keep_those(inst, ret, n);
	if (!n)
		say_unhurried(in.demand_percent, &ret[n++]);
	return n;
}

size_t figures_diagnose_cpu(const struct figures *f, const struct figures_instance *inst, struct finding *ret)
{
	const struct figures_cpu *c = &inst->cpu;

	if (!c->fresh)
		return 0;
	*ret = (struct finding){.gain = NAN};
	if (c->wait_percent >= CPU_WAITS_PERCENT && f->host.fresh && f->host.cpu_percent >= CPU_BUSY_PERCENT) {
		ret->rule = "host-cpu";
		ret->mend = "Run fewer guests here, or give this one a host with more cores.";
		snprintf(ret->why, sizeof(ret->why),
			 "A virtual CPU waits for a core of the host %.0f %% of the time (host CPU %.0f %%).", c->wait_percent,
			 f->host.cpu_percent);
		return 1;
	}
	if (c->busiest_percent < CPU_BUSY_PERCENT)
		return 0;
	ret->rule = "guest-cpu";
	ret->mend = "A type with more or faster virtual CPUs (KVM where they are emulated), if what it runs can use them.";
	snprintf(ret->why, sizeof(ret->why), "A virtual CPU runs %.0f %% of the time.", c->busiest_percent);
	return 1;
}

/* --- NICs --- */

static double mbit_s(uint64_t bytes, double elapsed_s)
{
	return (double)bytes * 8 / MB / elapsed_s;
}

static bool is_full(double link_mbit_s, double own_mbit_s, unsigned speed_mbit)
{
	return speed_mbit && link_mbit_s >= (double)speed_mbit * LINK_FULL_PERCENT / 100 && own_mbit_s >= link_mbit_s * LINK_OWN_PERCENT / 100;
}

/* Whether what the guest sends or receives goes that way is not known: only that so much of it may. */
static bool link_is_full(const struct figures_host_link *l, const struct figures_nic *n, struct finding *ret)
{
	const struct figures_nic *c = &l->counted;
	double sends, receives, out, in;

	if (!c->fresh)
		return false;
	sends = mbit_s(n->delta.rx_bytes, n->elapsed_s);
	receives = mbit_s(n->delta.tx_bytes, n->elapsed_s);
	out = mbit_s(c->delta.tx_bytes, c->elapsed_s);
	in = mbit_s(c->delta.rx_bytes, c->elapsed_s);
	bool outward = is_full(out, sends, l->speed_mbit);
	if (!outward && !is_full(in, receives, l->speed_mbit))
		return false;
	*ret = (struct finding){.rule = "wire", .gain = NAN, .mend = "A faster link, or the data and the peers nearer to the guest."};
	snprintf(ret->why, sizeof(ret->why), "The host's %s is full: it %s %.0f of its %u Mb/s (this guest %s %.0f Mb/s).", l->name,
		 outward ? "sends" : "receives", outward ? out : in, l->speed_mbit, outward ? "sends" : "receives", outward ? sends : receives);
	return true;
}

/* A tap drops what its guest does not take in time. */
static bool packets_drop(const struct figures_nic *n, struct finding *ret)
{
	uint64_t dropped = n->delta.tx_dropped, all = n->delta.tx_packets + dropped;

	if (!dropped || (double)dropped < (double)all * DROPS_PERCENT / 100)
		return false;
	*ret = (struct finding){.rule = "nic-drops",
				.gain = NAN,
				.mend = "If its CPUs are busy: a type with more or faster ones, or a host with fewer guests. If not: senders that send less at once."};
	snprintf(ret->why, sizeof(ret->why), "The guest takes packets more slowly than they come: %.0f of %.0f in a second were dropped.",
		 (double)dropped / n->elapsed_s, (double)all / n->elapsed_s);
	return true;
}

size_t figures_diagnose_nic(const struct figures *f, const struct figures_instance *inst, struct finding *ret)
{
	const struct figures_nic *n = &inst->nic;
	size_t count = 0;

	if (!n->fresh)
		return 0;
	for (size_t i = 0; i < f->host.link_count && !count; i++)
		count += link_is_full(&f->host.links[i], n, &ret[count]);
	count += packets_drop(n, &ret[count]);
	return count;
}
