/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/nc/figures.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/text.h"

#define NS_PER_S 1e9
#define BEST_LEAST_S 1 /* shorter ones tell of a burst */

void figures_init(struct figures *f)
{
	*f = (struct figures){0};
	pthread_mutex_init(&f->lock, NULL);
}

/* --- who is there --- */

static void disk_free(struct figures_disk *d)
{
	counters_link_done(&d->link);
	free(d->control);
	free(d->under);
	free(d);
}

static void instance_free(struct figures_instance *i)
{
	for (size_t n = 0; n < i->disk_count; n++)
		disk_free(i->disks[n]);
	free(i->disks);
	free(i->domain);
	free(i);
}

void figures_done(struct figures *f)
{
	for (size_t i = 0; i < f->count; i++)
		instance_free(f->instances[i]);
	free(f->instances);
	free(f->host.disks);
	free(f->host.links);
	pthread_mutex_destroy(&f->lock);
}

static void *or_abort(void *p)
{
	if (!p)
		abort();
	return p;
}

static struct figures_disk *disk_new(const struct figures_disk_target *t)
{
	struct figures_disk *d = or_abort(calloc(1, sizeof(*d)));

	snprintf(d->name, sizeof(d->name), "%s", t->name);
	snprintf(d->device_name, sizeof(d->device_name), "%s", t->device_name ? t->device_name : "");
	snprintf(d->why, sizeof(d->why), "%s",
		 t->source == FIGURES_NONE ? "the fake hypervisor runs nothing" : "not sampled twice yet");
	d->under = t->under ? or_abort(strdup(t->under)) : NULL;
	d->control = t->control ? or_abort(strdup(t->control)) : NULL;
	d->source = t->source;
	d->is_volume = t->is_volume;
	d->process_percent = -1;
	return d;
}

static bool is_same_disk(const struct figures_disk *d, const struct figures_disk_target *t)
{
	return str_eq(d->name, t->name) && d->source == t->source && str_eq(d->control, t->control);
}

static void sync_disks(struct figures_instance *inst, const struct figures_target *t)
{
	struct figures_disk **now = or_abort(calloc(t->disk_count + 1, sizeof(*now)));

	for (size_t n = 0; n < t->disk_count; n++) {
		for (size_t k = 0; k < inst->disk_count && !now[n]; k++)
			if (inst->disks[k] && is_same_disk(inst->disks[k], &t->disks[n]))
				now[n] = TAKE_PTR(inst->disks[k]);
		if (!now[n])
			now[n] = disk_new(&t->disks[n]);
	}
	for (size_t k = 0; k < inst->disk_count; k++)
		if (inst->disks[k])
			disk_free(inst->disks[k]);
	free(inst->disks);
	inst->disks = now;
	inst->disk_count = t->disk_count;
}

static struct figures_instance *instance_new(const struct figures_target *t)
{
	struct figures_instance *i = or_abort(calloc(1, sizeof(*i)));

	snprintf(i->id, sizeof(i->id), "%s", t->id);
	i->domain = or_abort(strdup(t->domain));
	return i;
}

static void sync_instance(struct figures_instance *inst, const struct figures_target *t)
{
	inst->vcpus = t->vcpus;
	snprintf(inst->interface_id, sizeof(inst->interface_id), "%s", t->interface_id ? t->interface_id : "");
	if (!str_eq(inst->nic.tap, t->tap)) {
		inst->nic = (struct figures_nic){.have = false};
		snprintf(inst->nic.tap, sizeof(inst->nic.tap), "%s", t->tap);
	}
	sync_disks(inst, t);
}

/* Both lists are sorted by id. */
void figures_sync(struct figures *f, const struct figures_target *targets, size_t count)
{
	struct figures_instance **now = or_abort(calloc(count + 1, sizeof(*now)));
	size_t old = 0;

	for (size_t i = 0; i < count; i++) {
		assert(i == 0 || strcmp(targets[i - 1].id, targets[i].id) < 0);
		while (old < f->count && strcmp(f->instances[old]->id, targets[i].id) < 0)
			instance_free(f->instances[old++]);
		now[i] = old < f->count && str_eq(f->instances[old]->id, targets[i].id) ? f->instances[old++]
											 : instance_new(&targets[i]);
		sync_instance(now[i], &targets[i]);
	}
	while (old < f->count)
		instance_free(f->instances[old++]);
	free(f->instances);
	f->instances = now;
	f->count = count;
}

struct figures_instance *figures_find(const struct figures *f, const char *id)
{
	size_t low = 0, high = f->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int c = strcmp(f->instances[mid]->id, id);

		if (c == 0)
			return f->instances[mid];
		if (c < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

/* --- disks --- */

static struct disk_counters counters_of(const struct counters_point *p, uint64_t at_ns)
{
	struct blockd_op_counters op[COUNTERS_OPS];

	for (unsigned i = 0; i < COUNTERS_OPS; i++)
		op[i] = (struct blockd_op_counters){.ops = p->op[i].ops,
						    .bytes = p->op[i].bytes,
						    .errors = p->op[i].errors,
						    .latency_ns = p->op[i].latency_ns,
						    .sequential = p->op[i].sequential};
	const struct blockd_counters b = {
	    .read = op[COUNTERS_READ],
	    .write = op[COUNTERS_WRITE],
	    .flush = op[COUNTERS_FLUSH],
	    .discard = op[COUNTERS_DISCARD],
	    .write_zeroes = op[COUNTERS_WRITE_ZEROES],
	    .outstanding = p->outstanding,
	    .busy_ns = p->busy_ns,
	    .weighted_ns = p->weighted_ns,
	    .places_known = p->places_known,
	};
	struct disk_counters c = disk_counters_of_blockd(&b);

	c.at_ns = at_ns;
	return c;
}

static void no_figures(struct figures_disk *d, const char *why)
{
	d->fresh = false;
	snprintf(d->why, sizeof(d->why), "%s", why);
}

static void add_up(struct disk_counters *total, const struct disk_counters *delta)
{
	for (unsigned i = 0; i < DISK_OPS; i++) {
		total->op[i].ops += delta->op[i].ops;
		total->op[i].merged += delta->op[i].merged;
		total->op[i].bytes += delta->op[i].bytes;
		total->op[i].wait_ns += delta->op[i].wait_ns;
	}
	total->busy_ns += delta->busy_ns;
	total->weighted_ns += delta->weighted_ns;
	total->outstanding = delta->outstanding;
	total->at_ns += delta->at_ns;
}

/* A request's time is summed when it ends and a queue's as it passes, each by its own thread: read in between, one may seem to go
 * back by a hair. That is no new beginning. */
static void never_back(const struct disk_counters *before, struct disk_counters *now)
{
	now->busy_ns = MAX_OF(now->busy_ns, before->busy_ns);
	now->weighted_ns = MAX_OF(now->weighted_ns, before->weighted_ns);
}

/* The guest's side of d between two samples. */
static bool take_guest(struct figures_disk *d, const struct disk_counters *read)
{
	struct disk_counters now = *read;

	never_back(&d->guest, &now);
	if (disk_counters_delta(&d->guest, &now, &d->guest_delta) < 0 || disk_figures_between(&d->guest, &now, &d->guest_figures) < 0)
		return false;
	add_up(&d->total, &d->guest_delta);
	return true;
}

static bool take_storage(struct figures_disk *d, const struct disk_counters *read)
{
	struct disk_counters now = *read;

	never_back(&d->storage, &now);
	return disk_counters_delta(&d->storage, &now, &d->storage_delta) == 0 &&
	       disk_figures_between(&d->storage, &now, &d->storage_figures) == 0;
}

void figures_disk_took(struct figures_disk *d, const struct counters_ask *got)
{
	struct disk_counters guest, storage;
	char why[FIGURES_WHY];
	bool anew;

	if (got->err) {
		snprintf(why, sizeof(why), "its process does not answer: %s", strerror(-got->err));
		no_figures(d, why);
		d->process_percent = -1;
		return;
	}
	guest = counters_of(&got->got.guest, got->at_ns);
	storage = counters_of(&got->got.disk, got->at_ns);
	anew = d->have && d->pid != got->pid;
	d->limit_iops = got->got.limit_iops;
	d->limit_bps = got->got.limit_bps;
	d->fresh = d->have && !anew && take_guest(d, &guest) && take_storage(d, &storage);
	d->held_delta = d->fresh && got->got.held > d->held ? got->got.held - d->held : 0;
	d->held = got->got.held;
	if (!d->fresh)
		no_figures(d, d->have ? "its process was started again: figures begin anew" : "not sampled twice yet");
	d->have = true;
	d->pid = got->pid;
	d->guest = guest;
	d->storage = storage;
}

void figures_file_took(struct figures_disk *d, int err, const struct disk_counters *c)
{
	if (err) {
		no_figures(d, err == -ENOTSUP ? "the hypervisor does not tell" : "the hypervisor does not answer");
		return;
	}
	d->fresh = d->have && take_guest(d, c);
	d->guest_figures.util_percent = NAN; /* QEMU does not count for how long */
	if (!d->fresh)
		no_figures(d, "not sampled twice yet");
	d->have = true;
	d->guest = *c;
}

void figures_disk_process_took(struct figures_disk *d, uint64_t at_ns, const struct process_reading *p)
{
	double elapsed_s = (double)(at_ns - d->process_at_ns) / NS_PER_S;
	bool same = d->process.pid == p->pid && d->process.started_ticks == p->started_ticks && p->pid;

	d->process_percent = same && elapsed_s > 0 && p->cpu_ns >= d->process.cpu_ns
				 ? (double)(p->cpu_ns - d->process.cpu_ns) / NS_PER_S / elapsed_s * 100
				 : -1;
	d->process = *p;
	d->process_at_ns = at_ns;
}

/* --- NICs --- */

static bool link_delta(const struct link_reading *before, const struct link_reading *now, struct link_reading *ret)
{
	*ret = (struct link_reading){
	    .rx_bytes = now->rx_bytes - before->rx_bytes,
	    .rx_packets = now->rx_packets - before->rx_packets,
	    .rx_dropped = now->rx_dropped - before->rx_dropped,
	    .tx_bytes = now->tx_bytes - before->tx_bytes,
	    .tx_packets = now->tx_packets - before->tx_packets,
	    .tx_dropped = now->tx_dropped - before->tx_dropped,
	};
	return now->rx_bytes >= before->rx_bytes && now->tx_bytes >= before->tx_bytes && now->rx_packets >= before->rx_packets &&
	       now->tx_packets >= before->tx_packets && now->rx_dropped >= before->rx_dropped && now->tx_dropped >= before->tx_dropped;
}

void figures_nic_took(struct figures_nic *n, uint64_t at_ns, const struct link_reading *l)
{
	n->fresh = false;
	if (!l) {
		n->have = false;
		return;
	}
	if (n->have && at_ns > n->last_ns && link_delta(&n->last, l, &n->delta)) {
		n->fresh = true;
		n->elapsed_s = (double)(at_ns - n->last_ns) / NS_PER_S;
		n->total_s += n->elapsed_s;
		n->total.rx_bytes += n->delta.rx_bytes;
		n->total.rx_packets += n->delta.rx_packets;
		n->total.rx_dropped += n->delta.rx_dropped;
		n->total.tx_bytes += n->delta.tx_bytes;
		n->total.tx_packets += n->delta.tx_packets;
		n->total.tx_dropped += n->delta.tx_dropped;
	}
	n->have = true;
	n->last = *l;
	n->last_ns = at_ns;
}

/* --- CPUs --- */

static double share(uint64_t part_ns, double elapsed_s)
{
	double percent = (double)part_ns / NS_PER_S / elapsed_s * 100;

	return percent;
}

/* The vCPUs of a guest between two readings. */
static void take_vcpus(struct figures_cpu *c, unsigned vcpus, const struct process_reading *p)
{
	uint64_t sum_ns = 0, most_ns = 0, wait_ns = 0;

	for (unsigned i = 0; i < p->vcpus; i++) {
		uint64_t run = p->vcpu_run_ns[i] - MIN_OF(c->last.vcpu_run_ns[i], p->vcpu_run_ns[i]);
		uint64_t wait = p->vcpu_wait_ns[i] - MIN_OF(c->last.vcpu_wait_ns[i], p->vcpu_wait_ns[i]);

		sum_ns += run;
		most_ns = MAX_OF(most_ns, run);
		wait_ns = MAX_OF(wait_ns, wait);
	}
	c->percent = MIN_OF(share(sum_ns, c->elapsed_s) / vcpus, 100);
	c->busiest_percent = MIN_OF(share(most_ns, c->elapsed_s), 100);
	c->wait_percent = MIN_OF(share(wait_ns, c->elapsed_s), 100);
	c->total_ns += sum_ns;
}

/* Its threads cannot be told apart: what QEMU does for devices counts, too. */
static void take_process(struct figures_cpu *c, unsigned vcpus, uint64_t ran_ns)
{
	c->percent = c->busiest_percent = MIN_OF(c->process_percent / vcpus, 100);
	c->wait_percent = 0;
	c->total_ns += ran_ns;
}

void figures_cpu_took(struct figures_cpu *c, unsigned vcpus, uint64_t at_ns, const struct process_reading *p)
{
	c->fresh = false;
	if (!p) {
		c->have = false;
		return;
	}
	if (c->have && at_ns > c->last_ns && c->last.pid == p->pid && c->last.started_ticks == p->started_ticks && vcpus &&
	    p->cpu_ns >= c->last.cpu_ns) {
		c->elapsed_s = (double)(at_ns - c->last_ns) / NS_PER_S;
		c->process_percent = share(p->cpu_ns - c->last.cpu_ns, c->elapsed_s);
		c->vcpus = p->vcpus && p->vcpus == c->last.vcpus ? p->vcpus : 0;
		if (c->vcpus)
			take_vcpus(c, vcpus, p);
		else
			take_process(c, vcpus, p->cpu_ns - c->last.cpu_ns);
		c->total_elapsed_ns += at_ns - c->last_ns;
		c->fresh = true;
	}
	c->have = true;
	c->last = *p;
	c->last_ns = at_ns;
}

/* --- the host --- */

static void take_host_cpu(struct figures_host *h, const struct cpu_reading *cpu)
{
	uint64_t total = cpu->total - h->last.total;

	h->fresh = h->have && cpu->total > h->last.total && cpu->idle >= h->last.idle && cpu->steal >= h->last.steal;
	if (h->fresh) {
		double idle = (double)(cpu->idle - h->last.idle), steal = (double)(cpu->steal - h->last.steal);

		h->steal_percent = steal / (double)total * 100;
		h->cpu_percent = MAX_OF(100 - (idle + steal) / (double)total * 100, 0);
	}
	h->have = true;
	h->cores = cpu->cores;
	h->last = *cpu;
}

static struct figures_host_disk *host_disk(struct figures_host_disk *list, size_t count, const char *device)
{
	for (size_t i = 0; i < count; i++)
		if (str_eq(list[i].device, device))
			return &list[i];
	return NULL;
}

static void take_host_disk(struct figures_host_disk *d, uint64_t at_ns, const struct disk_counters *c)
{
	struct disk_counters now = *c;

	now.at_ns = at_ns;
	d->fresh = d->have && disk_counters_delta(&d->last, &now, &d->delta) == 0 && disk_figures_between(&d->last, &now, &d->figures) == 0;
	if (d->fresh && d->figures.elapsed_s >= BEST_LEAST_S && d->figures.mb_s > (d->best.elapsed_s > 0 ? d->best.mb_s : 0))
		d->best = d->figures;
	d->have = true;
	d->last = now;
}

/* Those that a disk of an instance lies on, with what is known of them. */
static void sync_host_disks(struct figures *f, const struct disk_reading *disks, size_t count)
{
	struct figures_host_disk *now = or_abort(calloc(count + 1, sizeof(*now)));
	size_t n = 0;

	for (size_t i = 0; i < f->count; i++) {
		for (size_t k = 0; k < f->instances[i]->disk_count; k++) {
			const char *device = f->instances[i]->disks[k]->host_device;
			struct figures_host_disk *known;

			if (!*device || host_disk(now, n, device) || !disk_find(disks, count, device))
				continue;
			known = host_disk(f->host.disks, f->host.disk_count, device);
			if (known)
				now[n] = *known;
			snprintf(now[n++].device, sizeof(now->device), "%s", device);
		}
	}
	free(f->host.disks);
	f->host.disks = now;
	f->host.disk_count = n;
}

static const struct figures_host_link *known_link(const struct figures_host *h, const char *name)
{
	for (size_t i = 0; i < h->link_count; i++)
		if (str_eq(h->links[i].name, name))
			return &h->links[i];
	return NULL;
}

void figures_sync_links(struct figures *f, const struct nic_reading *nics, size_t count)
{
	struct figures_host_link *now = or_abort(calloc(count + 1, sizeof(*now)));

	for (size_t i = 0; i < count; i++) {
		const struct figures_host_link *known = known_link(&f->host, nics[i].name);

		if (known)
			now[i] = *known;
		snprintf(now[i].name, sizeof(now[i].name), "%s", nics[i].name);
		now[i].speed_mbit = nics[i].speed_mbit;
	}
	free(f->host.links);
	f->host.links = now;
	f->host.link_count = count;
}

void figures_host_took(struct figures *f, uint64_t at_ns, const struct cpu_reading *cpu, const struct disk_reading *disks, size_t count)
{
	take_host_cpu(&f->host, cpu);
	sync_host_disks(f, disks, count);
	for (size_t i = 0; i < f->host.disk_count; i++)
		take_host_disk(&f->host.disks[i], at_ns, &disk_find(disks, count, f->host.disks[i].device)->counters);
}
