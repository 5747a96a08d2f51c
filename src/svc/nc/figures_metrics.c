/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Live figures as Prometheus text: tables of families, one for each kind of thing that has labels of its own. Only what the last
 * sample knew is printed, and only of what runs here now, so that the number of series is bounded by the node's disks and guests.
 */
#include <math.h>

#include "svc/nc/nc_priv.h"

#define NS_PER_S 1e9

static void print_head(struct buf *out, const char *name, const char *help, bool counter)
{
	buf_printf(out, "# HELP mallee_%s %s\n# TYPE mallee_%s %s\n", name, help, name, counter ? "counter" : "gauge");
}

static void print_value(struct buf *out, double v)
{
	buf_printf(out, "} %.9g\n", v);
}

/* --- disks: labels instance, volume, device --- */

static double ops_of(const struct disk_op_counters *c)
{
	return (double)c->ops;
}

static double bytes_of(const struct disk_op_counters *c)
{
	return (double)c->bytes;
}

static double wait_of(const struct disk_op_counters *c)
{
	return (double)c->wait_ns / NS_PER_S;
}

static const struct disk_counter {
	const char *name, *help;
	double (*read)(const struct disk_op_counters *c);
} disk_counters[] = {
    {"instance_disk_ops_total", "Requests of the guest that were completed, since the node saw the disk first.", ops_of},
    {"instance_disk_bytes_total", "Bytes that the guest read, or wrote.", bytes_of},
    {"instance_disk_wait_seconds_total", "Time that the guest's requests took, summed.", wait_of},
};

static void print_disk_labels(struct buf *out, const char *family, const struct figures_instance *inst, const struct figures_disk *d)
{
	buf_printf(out, "mallee_%s{instance=\"%s\",volume=\"%s\",device=\"%s\"", family, inst->id, d->name, d->device_name);
}

typedef void disk_fn(const struct figures *f, const struct figures_instance *inst, const struct figures_disk *d, const void *family,
		     struct buf *out);

static void each_disk(const struct figures *f, disk_fn *fn, const void *family, struct buf *out)
{
	for (size_t i = 0; i < f->count; i++)
		for (size_t k = 0; k < f->instances[i]->disk_count; k++)
			if (f->instances[i]->disks[k]->have)
				fn(f, f->instances[i], f->instances[i]->disks[k], family, out);
}

static void print_disk_counter(const struct figures *f, const struct figures_instance *inst, const struct figures_disk *d,
			       const void *family, struct buf *out)
{
	static const struct {
		enum disk_op op;
		const char *label;
	} ops[] = {{DISK_READ, "read"}, {DISK_WRITE, "write"}, {DISK_FLUSH, "flush"}};
	const struct disk_counter *c = family;

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		print_disk_labels(out, c->name, inst, d);
		buf_printf(out, ",op=\"%s\"", ops[i].label);
		print_value(out, c->read(&d->total.op[ops[i].op]));
	}
}

/* Gauges, at the guest's and at the storage's side. */
static const struct disk_gauge {
	const char *name, *help;
	size_t offset;
} disk_gauges[] = {
    {"instance_disk_iops", "Reads and writes a second, over the last interval.", offsetof(struct disk_figures, iops)},
    {"instance_disk_megabytes_per_second", "10^6 bytes a second.", offsetof(struct disk_figures, mb_s)},
    {"instance_disk_request_sectors", "avgrq-sz: 512-byte sectors a request.", offsetof(struct disk_figures, avgrq_sectors)},
    {"instance_disk_queue_size", "avgqu-sz: requests outstanding, on average.", offsetof(struct disk_figures, avgqu)},
    {"instance_disk_util_percent", "%util: of the time, with a request outstanding.", offsetof(struct disk_figures, util_percent)},
    {"instance_disk_await_milliseconds", "How long a request took.", offsetof(struct disk_figures, await_ms)},
    {"instance_disk_sequential_percent", "Of reads and writes, those that went on where a recent one ended.",
     offsetof(struct disk_figures, sequential_percent)},
};

static double at(const struct disk_figures *f, size_t offset)
{
	return *(const double *)((const char *)f + offset);
}

static void print_side(const struct figures_instance *inst, const struct figures_disk *d, const struct disk_gauge *g, const char *side,
		       const struct disk_figures *figures, struct buf *out)
{
	double v = at(figures, g->offset);

	if (!isfinite(v))
		return;
	print_disk_labels(out, g->name, inst, d);
	buf_printf(out, ",side=\"%s\"", side);
	print_value(out, v);
}

static void print_disk_gauge(const struct figures *f, const struct figures_instance *inst, const struct figures_disk *d,
			     const void *family, struct buf *out)
{
	if (!d->fresh)
		return;
	print_side(inst, d, family, "guest", &d->guest_figures, out);
	if (d->source == FIGURES_BLOCKD)
		print_side(inst, d, family, "storage", &d->storage_figures, out);
}

static void print_held_back(const struct figures *f, const struct figures_instance *inst, const struct figures_disk *d,
			    const void *family, struct buf *out)
{
	struct finding list[FINDINGS_MAX];
	size_t n = figures_diagnose(f, inst, d, list);

	for (size_t i = 0; i < n; i++) {
		print_disk_labels(out, family, inst, d);
		buf_printf(out, ",rule=\"%s\"", list[i].rule);
		print_value(out, 1);
	}
}

static void print_disks(const struct figures *f, struct buf *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(disk_counters); i++) {
		print_head(out, disk_counters[i].name, disk_counters[i].help, true);
		each_disk(f, print_disk_counter, &disk_counters[i], out);
	}
	for (size_t i = 0; i < ARRAY_SIZE(disk_gauges); i++) {
		print_head(out, disk_gauges[i].name, disk_gauges[i].help, false);
		each_disk(f, print_disk_gauge, &disk_gauges[i], out);
	}
	print_head(out, "instance_disk_held_back", "1 for each rule of docs/diagnosis.md that names what holds the disk back.", false);
	each_disk(f, print_held_back, "instance_disk_held_back", out);
}

/* --- instances: label instance --- */

static double cpu_seconds(const struct figures_instance *i)
{
	return i->cpu.have ? (double)i->cpu.total_ns / NS_PER_S : NAN;
}

static double cpu_percent(const struct figures_instance *i)
{
	return i->cpu.fresh ? i->cpu.percent : NAN;
}

static double cpu_busiest(const struct figures_instance *i)
{
	return i->cpu.fresh && i->cpu.vcpus ? i->cpu.busiest_percent : NAN;
}

static double cpu_wait(const struct figures_instance *i)
{
	return i->cpu.fresh && i->cpu.vcpus ? i->cpu.wait_percent : NAN;
}

static double received(const struct figures_instance *i)
{
	return i->nic.have ? (double)i->nic.total.tx_bytes : NAN;
}

static double sent(const struct figures_instance *i)
{
	return i->nic.have ? (double)i->nic.total.rx_bytes : NAN;
}

static double packets_received(const struct figures_instance *i)
{
	return i->nic.have ? (double)i->nic.total.tx_packets : NAN;
}

static double packets_sent(const struct figures_instance *i)
{
	return i->nic.have ? (double)i->nic.total.rx_packets : NAN;
}

static double dropped(const struct figures_instance *i)
{
	return i->nic.have ? (double)(i->nic.total.rx_dropped + i->nic.total.tx_dropped) : NAN;
}

static const struct {
	const char *name, *help;
	bool counter;
	double (*read)(const struct figures_instance *i);
} instance_families[] = {
    {"instance_cpu_seconds_total", "Time that the guest's virtual CPUs ran, since the node saw it first.", true, cpu_seconds},
    {"instance_cpu_percent", "Of all its virtual CPUs, over the last interval.", false, cpu_percent},
    {"instance_cpu_busiest_percent", "Of its busiest virtual CPU.", false, cpu_busiest},
    {"instance_cpu_wait_percent", "Of the time, a virtual CPU that could have run had no core of the host.", false, cpu_wait},
    {"instance_network_receive_bytes_total", "Bytes that the guest received.", true, received},
    {"instance_network_send_bytes_total", "Bytes that the guest sent.", true, sent},
    {"instance_network_receive_packets_total", "Packets that the guest received.", true, packets_received},
    {"instance_network_send_packets_total", "Packets that the guest sent.", true, packets_sent},
    {"instance_network_dropped_total", "Packets to or from the guest that its tap dropped.", true, dropped},
};

static void print_instances(const struct figures *f, struct buf *out)
{
	for (size_t k = 0; k < ARRAY_SIZE(instance_families); k++) {
		print_head(out, instance_families[k].name, instance_families[k].help, instance_families[k].counter);
		for (size_t i = 0; i < f->count; i++) {
			double v = instance_families[k].read(f->instances[i]);

			if (!isfinite(v))
				continue;
			buf_printf(out, "mallee_%s{instance=\"%s\"", instance_families[k].name, f->instances[i]->id);
			print_value(out, v);
		}
	}
}

static void print_cpu_held_back(const struct figures *f, struct buf *out)
{
	print_head(out, "instance_cpu_held_back", "1 for the rule that names what holds its CPUs back: guest-cpu or host-cpu.", false);
	for (size_t i = 0; i < f->count; i++) {
		struct finding found;

		if (!figures_diagnose_cpu(f, f->instances[i], &found))
			continue;
		buf_printf(out, "mallee_instance_cpu_held_back{instance=\"%s\",rule=\"%s\"", f->instances[i]->id, found.rule);
		print_value(out, 1);
	}
}

static void print_nic_held_back(const struct figures *f, struct buf *out)
{
	print_head(out, "instance_network_held_back", "1 for each rule that names what holds its NIC back: wire or nic-drops.", false);
	for (size_t i = 0; i < f->count; i++) {
		struct finding list[FINDINGS_MAX];
		size_t n = figures_diagnose_nic(f, f->instances[i], list);

		for (size_t k = 0; k < n; k++) {
			buf_printf(out, "mallee_instance_network_held_back{instance=\"%s\",rule=\"%s\"", f->instances[i]->id, list[k].rule);
			print_value(out, 1);
		}
	}
}

/* --- the host: label device --- */

static const struct disk_gauge host_gauges[] = {
    {"host_disk_iops", "Reads and writes a second of a host's disk that disks of instances lie on.",
     offsetof(struct disk_figures, iops)},
    {"host_disk_megabytes_per_second", "10^6 bytes a second.", offsetof(struct disk_figures, mb_s)},
    {"host_disk_request_sectors", "avgrq-sz.", offsetof(struct disk_figures, avgrq_sectors)},
    {"host_disk_queue_size", "avgqu-sz.", offsetof(struct disk_figures, avgqu)},
    {"host_disk_util_percent", "%util.", offsetof(struct disk_figures, util_percent)},
    {"host_disk_await_milliseconds", "How long a request took.", offsetof(struct disk_figures, await_ms)},
};

static void print_host_disk(const struct figures_host_disk *d, const struct disk_gauge *g, struct buf *out)
{
	double v = at(&d->figures, g->offset);

	if (!d->fresh || !isfinite(v))
		return;
	buf_printf(out, "mallee_%s{device=\"%s\"", g->name, d->device);
	print_value(out, v);
}

static double link_speed(const struct figures_host_link *l)
{
	return l->speed_mbit ? l->speed_mbit : NAN;
}

static double link_received(const struct figures_host_link *l)
{
	return l->counted.have ? (double)l->counted.total.rx_bytes : NAN;
}

static double link_sent(const struct figures_host_link *l)
{
	return l->counted.have ? (double)l->counted.total.tx_bytes : NAN;
}

static const struct {
	const char *name, *help;
	bool counter;
	double (*read)(const struct figures_host_link *l);
} link_families[] = {
    {"host_link_megabits_per_second", "Speed of a NIC of the host, each way.", false, link_speed},
    {"host_link_receive_bytes_total", "Bytes that it received.", true, link_received},
    {"host_link_send_bytes_total", "Bytes that it sent.", true, link_sent},
};

static void print_host(const struct figures *f, struct buf *out)
{
	if (f->host.fresh) {
		print_head(out, "host_cpu_percent", "Of all cores, over the last interval.", false);
		buf_printf(out, "mallee_host_cpu_percent %.9g\n", f->host.cpu_percent);
		print_head(out, "host_steal_percent", "Of all cores: taken by the host's own host.", false);
		buf_printf(out, "mallee_host_steal_percent %.9g\n", f->host.steal_percent);
	}
	for (size_t g = 0; g < ARRAY_SIZE(host_gauges); g++) {
		print_head(out, host_gauges[g].name, host_gauges[g].help, false);
		for (size_t i = 0; i < f->host.disk_count; i++)
			print_host_disk(&f->host.disks[i], &host_gauges[g], out);
	}
	for (size_t k = 0; k < ARRAY_SIZE(link_families); k++) {
		print_head(out, link_families[k].name, link_families[k].help, link_families[k].counter);
		for (size_t i = 0; i < f->host.link_count; i++) {
			double v = link_families[k].read(&f->host.links[i]);

			if (!isfinite(v))
				continue;
			buf_printf(out, "mallee_%s{device=\"%s\"", link_families[k].name, f->host.links[i].name);
			print_value(out, v);
		}
	}
	print_head(out, "nc_sampler_cpu_percent", "Of one core: what sampling takes.", false);
	buf_printf(out, "mallee_nc_sampler_cpu_percent %.9g\n", f->sampler_percent);
}

void figures_print_metrics(struct figures *f, struct buf *out)
{
	pthread_mutex_lock(&f->lock);
	print_instances(f, out);
	print_cpu_held_back(f, out);
	print_nic_held_back(f, out);
	print_disks(f, out);
	print_host(f, out);
	pthread_mutex_unlock(&f->lock);
}
