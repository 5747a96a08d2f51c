/* SPDX-License-Identifier: Apache-2.0 */
/* CloudWatch's names over our counters: a table each for a volume and for an instance. docs/figures.md says what they are. */
#include "base/macros.h"
#include "svc/nc/figures.h"

#define NS_PER_S 1e9

/* --- sums of a disk's counters, over an interval or over all of them --- */

static double seconds(uint64_t ns)
{
	return (double)ns / NS_PER_S;
}

static double read_ops(const struct disk_counters *c)
{
	return (double)c->op[DISK_READ].ops;
}

static double write_ops(const struct disk_counters *c)
{
	return (double)c->op[DISK_WRITE].ops;
}

static double read_bytes(const struct disk_counters *c)
{
	return (double)c->op[DISK_READ].bytes;
}

static double write_bytes(const struct disk_counters *c)
{
	return (double)c->op[DISK_WRITE].bytes;
}

static double read_time(const struct disk_counters *c)
{
	return seconds(c->op[DISK_READ].wait_ns);
}

static double write_time(const struct disk_counters *c)
{
	return seconds(c->op[DISK_WRITE].wait_ns);
}

static double idle_time(const struct disk_counters *c)
{
	return seconds(c->at_ns - MIN_OF(c->busy_ns, c->at_ns));
}

static double queue_time(const struct disk_counters *c)
{
	return seconds(c->weighted_ns);
}

static const struct disk_metric {
	const char *name, *unit;
	double (*sum)(const struct disk_counters *c);
	bool is_mean; /* its value is the sum over the seconds of the interval */
} volume_metrics[] = {
    {"VolumeReadOps", "Count", read_ops, false},
    {"VolumeWriteOps", "Count", write_ops, false},
    {"VolumeReadBytes", "Bytes", read_bytes, false},
    {"VolumeWriteBytes", "Bytes", write_bytes, false},
    {"VolumeTotalReadTime", "Seconds", read_time, false},
    {"VolumeTotalWriteTime", "Seconds", write_time, false},
    {"VolumeIdleTime", "Seconds", idle_time, false},
    {"VolumeQueueLength", "Count", queue_time, true},
};

/* Of an instance: its volumes together, and its other disks together. */
static const struct {
	const char *name;
	const char *volumes_name;
	const char *unit;
	double (*sum)(const struct disk_counters *c);
} disk_metrics[] = {
    {"DiskReadOps", "EBSReadOps", "Count", read_ops},
    {"DiskWriteOps", "EBSWriteOps", "Count", write_ops},
    {"DiskReadBytes", "EBSReadBytes", "Bytes", read_bytes},
    {"DiskWriteBytes", "EBSWriteBytes", "Bytes", write_bytes},
};

size_t figures_disk_metrics(const struct figures_disk *d, struct figures_metric *ret)
{
	size_t n = 0;

	for (size_t i = 0; d->fresh && d->is_volume && i < ARRAY_SIZE(volume_metrics); i++) {
		const struct disk_metric *m = &volume_metrics[i];
		double sum = m->sum(&d->guest_delta), elapsed_s = seconds(d->guest_delta.at_ns);

		ret[n++] = (struct figures_metric){
		    .space = "AWS/EBS",
		    .name = m->name,
		    .unit = m->unit,
		    .value = m->is_mean ? sum / elapsed_s : sum,
		    .total = m->sum(&d->total),
		    .total_s = seconds(d->total.at_ns),
		};
	}
	return n;
}

static size_t put(struct figures_metric *ret, size_t n, const char *name, const char *unit, double value, double total, double total_s)
{
	ret[n] = (struct figures_metric){
	    .space = "AWS/EC2", .name = name, .unit = unit, .value = value, .total = total, .total_s = total_s};
	return n + 1;
}

static size_t put_nic(const struct figures_nic *nic, double total_s, struct figures_metric *ret, size_t n)
{
	if (!nic->fresh)
		return n;
	n = put(ret, n, "NetworkIn", "Bytes", (double)nic->delta.tx_bytes, (double)nic->total.tx_bytes, total_s);
	n = put(ret, n, "NetworkOut", "Bytes", (double)nic->delta.rx_bytes, (double)nic->total.rx_bytes, total_s);
	n = put(ret, n, "NetworkPacketsIn", "Count", (double)nic->delta.tx_packets, (double)nic->total.tx_packets, total_s);
	return put(ret, n, "NetworkPacketsOut", "Count", (double)nic->delta.rx_packets, (double)nic->total.rx_packets, total_s);
}

/* One metric over those of its disks that are volumes, or are not; none when it has no such disk. */
static size_t put_disks(const struct figures_instance *inst, bool volumes, size_t which, struct figures_metric *ret, size_t n)
{
	double value = 0, total = 0, total_s = 0;
	bool any = false;

	for (size_t i = 0; i < inst->disk_count; i++) {
		const struct figures_disk *d = inst->disks[i];

		if (d->is_volume != volumes || !d->fresh)
			continue;
		any = true;
		value += disk_metrics[which].sum(&d->guest_delta);
		total += disk_metrics[which].sum(&d->total);
		total_s = MAX_OF(total_s, seconds(d->total.at_ns));
	}
	if (!any)
		return n;
	return put(ret, n, volumes ? disk_metrics[which].volumes_name : disk_metrics[which].name, disk_metrics[which].unit, value, total,
		   total_s);
}

size_t figures_instance_metrics(const struct figures_instance *inst, struct figures_metric *ret)
{
	const struct figures_cpu *cpu = &inst->cpu;
	size_t n = 0;

	if (cpu->fresh && inst->vcpus)
		n = put(ret, n, "CPUUtilization", "Percent", cpu->percent, seconds(cpu->total_ns) * 100 / inst->vcpus,
			seconds(cpu->total_elapsed_ns));
	n = put_nic(&inst->nic, inst->nic.total_s, ret, n);
	for (size_t i = 0; i < ARRAY_SIZE(disk_metrics); i++) {
		n = put_disks(inst, false, i, ret, n);
		n = put_disks(inst, true, i, ret, n);
	}
	return n;
}
