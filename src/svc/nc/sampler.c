/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Samples everything that counts for the instances that run here, and gives it to figures.c.
 *
 * A round: who is there (under nc->lock, copied) → read all (no lock) → told to the figures (under their lock). All volumes'
 * processes are asked at once and have ANSWER_MS together, so that the dead among them delay a round by that and nobody else.
 * Disks that QEMU opens itself cost a question to QEMU, which may not answer: they have a thread of their own, which asks FILES_MOST
 * guests a round, in turn.
 *
 * Order of locks: nc->lock, then figures->lock.
 */
#include "svc/nc/sampler.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/text.h"
#include "svc/nc/nc_priv.h"

#define ANSWER_MS 300
#define SHORTEST_MS 200 /* between two samples, whoever asks */
#define FRESH_WAIT_MS 2000
#define FILES_MOST 20
#define NICS_EVERY 12 /* rounds: the host's NICs seldom change */

static uint64_t clock_of(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- who is there --- */

struct gather {
	struct arena *arena;
	struct figures_target *targets;
	size_t count;
	/* of the instance that is looked at */
	const struct nc_instance *inst;
	struct figures_disk_target *disks;
	size_t disk_count;
};

static struct figures_disk_target *add_disk(struct gather *g, const char *name)
{
	struct figures_disk_target *d = &g->disks[g->disk_count++];

	d->name = arena_strdup(g->arena, name);
	return d;
}

/* Its process's socket; with fake guests nobody serves it. */
static void set_server(struct nc *nc, struct gather *g, struct figures_disk_target *d)
{
	char path[4096];

	d->source = nc->keeper ? FIGURES_BLOCKD : FIGURES_NONE;
	nc_volume_path(nc, d->name, "control.sock", path, sizeof(path));
	d->control = nc->keeper ? arena_strdup(g->arena, path) : NULL;
}

static const char *device_name(const struct gather *g, const char *volume)
{
	const struct shared_block_device_list *list = &g->inst->spec->block_devices;

	for (size_t i = 0; i < list->count; i++)
		if (str_eq(list->items[i].volume_id, volume))
			return arena_strdup(g->arena, list->items[i].device_name);
	return NULL;
}

static void add_volume(struct nc *nc, struct nc_volume *v, void *ctx)
{
	struct gather *g = ctx;
	struct figures_disk_target *d;

	if (v->state != NC_VOLUME_OPEN || !v->served || g->disk_count == NC_DEVICES_MAX)
		return;
	d = add_disk(g, v->id);
	d->device_name = device_name(g, v->id);
	d->is_volume = true;
	set_server(nc, g, d);
}

static void add_local_disks(struct nc *nc, struct gather *g)
{
	for (size_t i = 0; i < nc->disk_count; i++) {
		const struct nc_disk *disk = &nc->disks[i];
		struct figures_disk_target *d;

		if (!str_eq(disk->instance, g->inst->id) || !disk->served)
			continue;
		d = add_disk(g, disk->name);
		d->device_name = arena_printf(g->arena, "ephemeral%d", disk->index);
		d->under = arena_strdup(g->arena, disk->device);
		set_server(nc, g, d);
	}
}

static void add_root_file(struct nc *nc, struct gather *g)
{
	struct figures_disk_target *d = add_disk(g, "root");
	char path[4096];

	nc_instance_path(nc, g->inst->id, "root.raw", path, sizeof(path));
	d->device_name = g->inst->spec->root_device_name ? arena_strdup(g->arena, g->inst->spec->root_device_name) : NULL;
	d->source = nc->ops->fakes_disks ? FIGURES_NONE : FIGURES_HYPERVISOR;
	d->under = arena_strdup(g->arena, path);
}

static int by_device(const void *a, const void *b)
{
	const struct figures_disk_target *x = a, *y = b;
	int c = strcmp(x->device_name ? x->device_name : "", y->device_name ? y->device_name : "");

	return c ? c : strcmp(x->name, y->name);
}

static void add_instance(struct nc *nc, struct nc_instance *inst, void *ctx)
{
	struct gather *g = ctx;
	struct figures_target *t;
	char domain[64];

	if (inst->rec.state != NC_RUNNING || !inst->spec)
		return;
	g->inst = inst;
	g->disks = arena_new_array(g->arena, struct figures_disk_target, NC_DEVICES_MAX + nc->disk_count + 1);
	g->disk_count = 0;
	if (!nc_is_ebs(inst->spec))
		add_root_file(nc, g);
	nc_each_volume_of(nc, inst->id, add_volume, g);
	add_local_disks(nc, g);
	qsort(g->disks, g->disk_count, sizeof(*g->disks), by_device);
	nc_domain_name(nc, inst->id, domain);
	t = &g->targets[g->count++];
	*t = (struct figures_target){
	    .id = arena_strdup(g->arena, inst->id),
	    .domain = arena_strdup(g->arena, domain),
	    .tap = arena_strdup(g->arena, inst->tap),
	    .interface_id = arena_strdup(g->arena, inst->spec->network_interface_id),
	    .vcpus = (unsigned int)inst->spec->vcpus.value,
	    .disks = g->disks,
	    .disk_count = g->disk_count,
	};
}

static int by_id(const void *a, const void *b)
{
	return strcmp(((const struct figures_target *)a)->id, ((const struct figures_target *)b)->id);
}

static void gather(struct nc *nc)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct gather g = {.arena = a};
	struct figures *f = &nc->sampler.figures;

	pthread_mutex_lock(&nc->lock);
	g.targets = arena_new_array(a, struct figures_target, nc->count + 1);
	nc_each(nc, add_instance, &g);
	pthread_mutex_unlock(&nc->lock);
	qsort(g.targets, g.count, sizeof(*g.targets), by_id);
	pthread_mutex_lock(&f->lock);
	figures_sync(f, g.targets, g.count);
	pthread_mutex_unlock(&f->lock);
}

/* --- what they lie on --- */

/* The first file of those that the storage controller named, and whether it is opened through the page cache. */
static const char *volume_file(struct nc *nc, const char *id, struct arena *a, bool *ret_cached)
{
	struct records_node_volume *v;
	struct error ignored = {0};

	if (nc_read_volume(nc, id, a, &v, &ignored) < 0 || !v->files.count)
		return NULL;
	*ret_cached = v->back && strstr(v->back, ",direct=off");
	return v->files.items[0];
}

static void find_device(struct nc *nc, struct figures_disk *d)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct figures *f = &nc->sampler.figures;
	bool cached = false;
	const char *path = d->under ? d->under : volume_file(nc, d->name, a, &cached);
	char device[DISK_NAME_LEN] = "";

	if (!path || device_under("", path, device) < 0)
		device[0] = '\0';
	pthread_mutex_lock(&f->lock);
	strcpy(d->host_device, device);
	d->host_cached = cached;
	d->host_device_known = true;
	pthread_mutex_unlock(&f->lock);
}

static void find_devices(struct nc *nc)
{
	struct figures *f = &nc->sampler.figures;

	for (size_t i = 0; i < f->count; i++)
		for (size_t k = 0; k < f->instances[i]->disk_count; k++) {
			struct figures_disk *d = f->instances[i]->disks[k];

			if (!d->host_device_known && d->source != FIGURES_NONE)
				find_device(nc, d);
		}
}

/* --- reading --- */

struct round {
	uint64_t at_ns;
	struct counters_ask *asks; /* of the disks that a process serves, in their order */
	struct process_reading *servers;
	size_t ask_count;
	struct process_reading *guests; /* of each instance; pid 0: none */
	struct link_reading *links;
	struct disk_reading *disks;
	size_t link_count, disk_count;
	struct nic_reading nics[READINGS_NICS];
	size_t nic_count;
	bool has_nics; /* they were looked for in this round */
	struct cpu_reading cpu;
};

static size_t count_disks(const struct figures *f)
{
	size_t n = 0;

	for (size_t i = 0; i < f->count; i++)
		n += f->instances[i]->disk_count;
	return n;
}

static void ask_servers(struct figures *f, struct round *r)
{
	for (size_t i = 0; i < f->count; i++)
		for (size_t k = 0; k < f->instances[i]->disk_count; k++) {
			struct figures_disk *d = f->instances[i]->disks[k];

			if (d->source == FIGURES_BLOCKD)
				r->asks[r->ask_count++] = (struct counters_ask){.link = &d->link, .path = d->control};
		}
	counters_round(r->asks, r->ask_count, ANSWER_MS);
}

static void read_servers(const struct figures *f, const char *root, struct round *r)
{
	size_t n = 0;

	for (size_t i = 0; i < f->count; i++)
		for (size_t k = 0; k < f->instances[i]->disk_count; k++) {
			const struct figures_disk *d = f->instances[i]->disks[k];

			if (d->source != FIGURES_BLOCKD)
				continue;
			if (r->asks[n].err || process_read(root, r->asks[n].pid, 0, &d->process, &r->servers[n]) < 0)
				r->servers[n].pid = 0;
			n++;
		}
}

static void read_guests(const struct figures *f, const char *root, sampler_pid_fn *pid_of, void *ctx, struct round *r)
{
	for (size_t i = 0; i < f->count; i++) {
		const struct figures_instance *inst = f->instances[i];
		const struct process_reading *before = inst->cpu.have ? &inst->cpu.last : NULL;
		pid_t pid = before ? before->pid : 0;

		if (!pid && pid_of(ctx, inst->domain, &pid) < 0)
			continue;
		if (process_read(root, pid, inst->vcpus, before, &r->guests[i]) < 0)
			r->guests[i].pid = 0; /* looked for again next time */
	}
}

/* --- telling --- */

static void tell_instance(struct figures_instance *inst, const struct round *r, const struct process_reading *guest, size_t *ask)
{
	figures_cpu_took(&inst->cpu, inst->vcpus, r->at_ns, guest->pid ? guest : NULL);
	figures_nic_took(&inst->nic, r->at_ns, link_find(r->links, r->link_count, inst->nic.tap));
	for (size_t k = 0; k < inst->disk_count; k++) {
		struct figures_disk *d = inst->disks[k];

		if (d->source != FIGURES_BLOCKD)
			continue;
		figures_disk_took(d, &r->asks[*ask]);
		figures_disk_process_took(d, r->at_ns, &r->servers[*ask]);
		(*ask)++;
	}
}

static void tell(struct figures *f, const struct round *r)
{
	size_t ask = 0;

	pthread_mutex_lock(&f->lock);
	for (size_t i = 0; i < f->count; i++)
		tell_instance(f->instances[i], r, &r->guests[i], &ask);
	figures_host_took(f, r->at_ns, &r->cpu, r->disks, r->disk_count);
	if (r->has_nics)
		figures_sync_links(f, r->nics, r->nic_count);
	for (size_t i = 0; i < f->host.link_count; i++) {
		struct figures_host_link *l = &f->host.links[i];

		figures_nic_took(&l->counted, r->at_ns, link_find(r->links, r->link_count, l->name));
	}
	pthread_mutex_unlock(&f->lock);
}

static void *room_for(size_t count, size_t size)
{
	void *p = calloc(count + 1, size);

	if (!p)
		abort();
	return p;
}

void sampler_round(struct figures *f, const char *root, sampler_pid_fn *pid_of, void *ctx)
{
	size_t disks = count_disks(f);
	struct round r = {
	    .asks = room_for(disks, sizeof(*r.asks)),
	    .servers = room_for(disks, sizeof(*r.servers)),
	    .guests = room_for(f->count, sizeof(*r.guests)),
	    .has_nics = f->rounds % NICS_EVERY == 0,
	};

	ask_servers(f, &r);
	read_servers(f, root, &r);
	read_guests(f, root, pid_of, ctx, &r);
	links_read(root, &r.links, &r.link_count);
	disks_read(root, &r.disks, &r.disk_count);
	cpu_read(root, &r.cpu);
	if (r.has_nics)
		r.nic_count = nics_read(root, r.nics);
	r.at_ns = clock_of(CLOCK_MONOTONIC);
	tell(f, &r);
	free(r.asks);
	free(r.servers);
	free(r.guests);
	free(r.links);
	free(r.disks);
}

/* --- the thread --- */

static int pid_of_guest(void *ctx, const char *domain, pid_t *ret)
{
	struct nc *nc = ctx;

	return nc->ops->process ? nc->ops->process(nc->hyper, domain, ret) : -ENOENT;
}

/* When it was, and what it cost of one core. */
static void note_round(struct nc *nc, uint64_t *before_ns, uint64_t *before_cpu_ns)
{
	struct figures *f = &nc->sampler.figures;
	uint64_t now_ns = clock_of(CLOCK_MONOTONIC), cpu_ns = clock_of(CLOCK_THREAD_CPUTIME_ID);

	pthread_mutex_lock(&f->lock);
	f->rounds++;
	f->at_ms = clock_unix_ms();
	f->elapsed_s = *before_ns ? (double)(now_ns - *before_ns) / 1e9 : 0;
	f->sampler_percent = *before_ns ? (double)(cpu_ns - *before_cpu_ns) / (double)(now_ns - *before_ns) * 100 : 0;
	pthread_mutex_unlock(&f->lock);
	*before_ns = now_ns;
	*before_cpu_ns = cpu_ns;
	pthread_mutex_lock(&nc->lock);
	nc->sampler.asked = false;
	nc->sampler.rounds++;
	nc->sampler.sampled_mono_ms = clock_mono_ms();
	pthread_cond_broadcast(&nc->sampler.done);
	pthread_mutex_unlock(&nc->lock);
}

static struct timespec in_ms(int64_t ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	return t;
}

/* Until it is time, or somebody asks. false: the node is stopping. */
static bool await_round(struct nc *nc, int64_t interval_ms)
{
	struct timespec t = in_ms(interval_ms);
	int r = 0;

	if (!nc_sleep(nc, SHORTEST_MS))
		return false;
	pthread_mutex_lock(&nc->lock);
	while (!nc->stopping && !nc->sampler.asked && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&nc->sampler.due, &nc->lock, &t);
	pthread_mutex_unlock(&nc->lock);
	return !nc->stopping;
}

void *nc_sampler(void *ctx)
{
	struct nc *nc = ctx;
	int64_t interval_ms = settings_int(nc->settings, SETTING_FIGURES_S) * 1000;
	uint64_t at_ns = 0, cpu_ns = 0;

	do {
		gather(nc);
		find_devices(nc);
		sampler_round(&nc->sampler.figures, "", pid_of_guest, nc);
		note_round(nc, &at_ns, &cpu_ns);
	} while (await_round(nc, interval_ms));
	return NULL;
}

void nc_sample_fresh(struct nc *nc, int64_t max_age_ms)
{
	struct sampler *s = &nc->sampler;
	struct timespec t = in_ms(FRESH_WAIT_MS);
	int64_t seen;
	int r = 0;

	pthread_mutex_lock(&nc->lock);
	seen = s->rounds;
	if (seen < 2 || clock_mono_ms() - s->sampled_mono_ms > max_age_ms) {
		s->asked = true;
		pthread_cond_signal(&s->due);
		while (!nc->stopping && (s->rounds == seen || s->rounds < 2) && r != ETIMEDOUT) {
			r = pthread_cond_timedwait(&s->done, &nc->lock, &t);
			if (s->rounds < 2) { /* one makes no figures yet */
				s->asked = true;
				pthread_cond_signal(&s->due);
			}
		}
	}
	pthread_mutex_unlock(&nc->lock);
}

/* --- disks that QEMU opens itself --- */

/* Instances that have one, from the one after `after` on, round and round. */
static size_t list_files(struct figures *f, struct arena *a, char after[static ID_LEN], const char **ids, const char **domains)
{
	size_t first = 0, n = 0;

	pthread_mutex_lock(&f->lock);
	while (first < f->count && strcmp(f->instances[first]->id, after) <= 0)
		first++;
	for (size_t i = 0; i < f->count && n < FILES_MOST; i++) {
		const struct figures_instance *inst = f->instances[(first + i) % f->count];
		bool has = false;

		for (size_t k = 0; k < inst->disk_count; k++)
			has |= inst->disks[k]->source == FIGURES_HYPERVISOR;
		if (!has)
			continue;
		ids[n] = arena_strdup(a, inst->id);
		domains[n++] = arena_strdup(a, inst->domain);
		strcpy(after, inst->id);
	}
	pthread_mutex_unlock(&f->lock);
	return n;
}

static struct disk_counters counters_of_file(const struct hyper_file_counters *c)
{
	struct disk_counters d = {.at_ns = clock_of(CLOCK_MONOTONIC)};

	d.op[DISK_READ] = (struct disk_op_counters){.ops = c->read_ops, .bytes = c->read_bytes, .wait_ns = c->read_ns};
	d.op[DISK_WRITE] = (struct disk_op_counters){.ops = c->write_ops, .bytes = c->write_bytes, .wait_ns = c->write_ns};
	d.op[DISK_FLUSH] = (struct disk_op_counters){.ops = c->flush_ops, .wait_ns = c->flush_ns};
	d.weighted_ns = c->read_ns + c->write_ns + c->flush_ns; /* Little's law */
	return d;
}

static void tell_file(struct figures *f, const char *id, int err, const struct hyper_file_counters *c)
{
	const struct disk_counters now = counters_of_file(c);
	struct figures_instance *inst;

	pthread_mutex_lock(&f->lock);
	inst = figures_find(f, id);
	for (size_t k = 0; inst && k < inst->disk_count; k++)
		if (inst->disks[k]->source == FIGURES_HYPERVISOR)
			figures_file_took(inst->disks[k], err ? err : c->known ? 0 : -EBUSY, &now);
	pthread_mutex_unlock(&f->lock);
}

void *nc_file_sampler(void *ctx)
{
	struct nc *nc = ctx;
	struct figures *f = &nc->sampler.figures;
	int64_t interval_ms = settings_int(nc->settings, SETTING_FIGURES_S) * 1000;
	char after[ID_LEN] = "";

	while (nc->ops->file_counters && nc_sleep(nc, interval_ms)) {
		_cleanup_(arena_freep) struct arena *a = arena_new();
		const char *ids[FILES_MOST], *domains[FILES_MOST];
		struct hyper_file_counters got[FILES_MOST];
		struct error e = {0};
		size_t n = list_files(f, a, after, ids, domains);
		int err = n ? nc->ops->file_counters(nc->hyper, domains, n, got, &e) : 0;

		for (size_t i = 0; i < n; i++)
			tell_file(f, ids[i], err, &got[i]);
	}
	return NULL;
}

void sampler_init(struct sampler *s)
{
	pthread_condattr_t attr;

	figures_init(&s->figures);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->due, &attr);
	pthread_cond_init(&s->done, &attr);
	pthread_condattr_destroy(&attr);
}

void sampler_done(struct sampler *s)
{
	pthread_cond_destroy(&s->due);
	pthread_cond_destroy(&s->done);
	figures_done(&s->figures);
}

void sampler_stop(struct sampler *s)
{
	pthread_cond_broadcast(&s->due);
	pthread_cond_broadcast(&s->done);
}
