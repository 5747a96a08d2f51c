/* SPDX-License-Identifier: Apache-2.0 */
/* What the sampler knows, as the answer to GetFigures. */
#include <math.h>
#include <stdlib.h>

#include "base/text.h"
#include "svc/nc/nc_priv.h"

#define MB 1e6

/* What is not known is absent; a thousandth is as near as anybody looks. */
static struct wire_double figure(double v)
{
	return isfinite(v) ? (struct wire_double){.set = true, .value = round(v * 1000) / 1000} : (struct wire_double){0};
}

static struct wire_double figure_if(bool known, double v)
{
	return figure(known ? v : NAN);
}

static struct node_io_figures *io_figures(struct arena *a, const struct disk_figures *f)
{
	struct node_io_figures *out = arena_new_struct(a, struct node_io_figures);

	*out = (struct node_io_figures){
	    .iops = figure(f->iops),
	    .read_iops = figure(f->read_iops),
	    .write_iops = figure(f->write_iops),
	    .mb_s = figure(f->mb_s),
	    .read_mb_s = figure(f->read_mb_s),
	    .write_mb_s = figure(f->write_mb_s),
	    .flushes_s = figure(f->flushes_s),
	    .request_sectors = figure(f->avgrq_sectors),
	    .queue_size = figure(f->avgqu),
	    .util_percent = figure(f->util_percent),
	    .sequential_percent = figure(f->sequential_percent),
	    .await_ms = figure(f->await_ms),
	    .read_await_ms = figure(f->read_await_ms),
	    .write_await_ms = figure(f->write_await_ms),
	};
	return out;
}

static void put_findings(struct arena *a, const struct finding *list, size_t count, struct node_finding_list *out)
{
	*out = (struct node_finding_list){.set = true, .items = arena_new_array(a, struct node_finding, count)};
	for (size_t i = 0; i < count; i++)
		out->items[out->count++] = (struct node_finding){
		    .rule = list[i].rule, .why = arena_strdup(a, list[i].why), .mend = list[i].mend, .gain = figure(list[i].gain)};
}

static void put_metrics(struct arena *a, const struct figures_metric *list, size_t count, struct node_metric_figure_list *out)
{
	out->set = true;
	out->items = arena_new_array(a, struct node_metric_figure, count);
	for (size_t i = 0; i < count; i++)
		out->items[out->count++] = (struct node_metric_figure){.namespace = list[i].space,
								       .name = list[i].name,
								       .unit = list[i].unit,
								       .value = figure(list[i].value),
								       .total = figure(list[i].total),
								       .total_seconds = figure(list[i].total_s)};
}

static const char *kind_of(const struct figures_disk *d)
{
	return d->is_volume ? "volume" : str_eq(d->name, "root") ? "file" : "local";
}

static void put_disk(const struct figures *f, const struct figures_instance *inst, const struct figures_disk *d, struct arena *a,
		     struct node_disk_figures *out)
{
	struct figures_metric metrics[FIGURES_METRICS_MAX];
	struct finding findings[FINDINGS_MAX];

	*out = (struct node_disk_figures){
	    .name = arena_strdup(a, d->name),
	    .device_name = d->device_name[0] ? arena_strdup(a, d->device_name) : NULL,
	    .kind = kind_of(d),
	    .why_empty = d->fresh ? NULL : arena_strdup(a, d->why),
	    .host_device = d->host_device[0] ? arena_strdup(a, d->host_device) : NULL,
	    .guest = d->fresh ? io_figures(a, &d->guest_figures) : NULL,
	    .storage = d->fresh && d->source == FIGURES_BLOCKD ? io_figures(a, &d->storage_figures) : NULL,
	    .limit_iops = figure_if(d->limit_iops > 0, (double)d->limit_iops),
	    .limit_mb_s = figure_if(d->limit_bps > 0, (double)d->limit_bps / MB),
	    .held_percent = figure_if(d->fresh && d->source == FIGURES_BLOCKD, figures_held_percent(d)),
	    .server_cpu_percent = figure_if(d->process_percent >= 0, d->process_percent),
	};
	put_findings(a, findings, figures_diagnose(f, inst, d, findings), &out->held_back_by);
	put_metrics(a, metrics, figures_disk_metrics(d, metrics), &out->metrics);
}

static void put_nic(const struct figures *f, const struct figures_instance *inst, struct arena *a, struct node_nic_figures_list *out)
{
	struct finding findings[FINDINGS_MAX];
	const struct figures_nic *n = &inst->nic;
	double s = n->elapsed_s;

	out->set = true;
	if (!n->fresh)
		return;
	out->items = arena_new_struct(a, struct node_nic_figures);
	out->items[out->count++] = (struct node_nic_figures){
	    .network_interface_id = arena_strdup(a, inst->interface_id),
	    .device = arena_strdup(a, n->tap),
	    .receive_mbit_s = figure((double)n->delta.tx_bytes * 8 / MB / s),
	    .send_mbit_s = figure((double)n->delta.rx_bytes * 8 / MB / s),
	    .receive_packets_s = figure((double)n->delta.tx_packets / s),
	    .send_packets_s = figure((double)n->delta.rx_packets / s),
	    .dropped_s = figure((double)(n->delta.rx_dropped + n->delta.tx_dropped) / s),
	};
	put_findings(a, findings, figures_diagnose_nic(f, inst, findings), &out->items[0].held_back_by);
}

static int by_gain(const void *a, const void *b)
{
	const struct node_finding *x = a, *y = b;
	double gx = x->gain.set ? x->gain.value : 0, gy = y->gain.set ? y->gain.value : 0; /* unknown ones last */

	return gx < gy ? 1 : gx > gy ? -1 : 0;
}

static bool has_rule(const struct node_finding_list *list, const char *rule)
{
	for (size_t i = 0; i < list->count; i++)
		if (str_eq(list->items[i].rule, rule))
			return true;
	return false;
}

static void add_findings(const struct node_finding_list *list, struct node_finding_list *out)
{
	for (size_t i = 0; i < list->count; i++)
		if (!str_eq(list->items[i].rule, "none") && !has_rule(out, list->items[i].rule))
			out->items[out->count++] = list->items[i];
}

/* Its disks' findings but for "none", each rule once, its NICs' and its CPUs'; if that is all there is, the first "none". */
static void merge_findings(const struct node_disk_figures_list *disks, const struct node_nic_figures_list *nics,
			   const struct node_finding_list *cpu, struct arena *a, struct node_finding_list *out)
{
	const struct node_finding *none = NULL;
	size_t room = 1 + cpu->count;

	for (size_t i = 0; i < nics->count; i++)
		room += nics->items[i].held_back_by.count;
	for (size_t i = 0; i < disks->count; i++)
		room += disks->items[i].held_back_by.count;
	out->set = true;
	out->items = arena_new_array(a, struct node_finding, room);
	for (size_t i = 0; i < disks->count; i++) {
		const struct node_finding_list *list = &disks->items[i].held_back_by;

		add_findings(list, out);
		if (!none && list->count && str_eq(list->items[0].rule, "none"))
			none = &list->items[0];
	}
	for (size_t i = 0; i < nics->count; i++)
		add_findings(&nics->items[i].held_back_by, out);
	add_findings(cpu, out);
	if (!out->count && none)
		out->items[out->count++] = *none;
	qsort(out->items, out->count, sizeof(*out->items), by_gain);
}

static void put_instance(const struct figures *f, const struct figures_instance *inst, struct arena *a,
			 struct node_instance_figures *out)
{
	const struct figures_cpu *c = &inst->cpu;
	struct figures_metric metrics[FIGURES_METRICS_MAX];
	struct node_finding_list of_cpu;
	struct finding cpu;

	*out = (struct node_instance_figures){
	    .instance_id = arena_strdup(a, inst->id),
	    .vcpus = WIRE_INT_OF(inst->vcpus),
	    .cpu_percent = figure_if(c->fresh, c->percent),
	    .busiest_cpu_percent = figure_if(c->fresh && c->vcpus, c->busiest_percent),
	    .cpu_wait_percent = figure_if(c->fresh && c->vcpus, c->wait_percent),
	    .process_cpu_percent = figure_if(c->fresh, c->process_percent),
	};
	out->disks.set = true;
	out->disks.items = arena_new_array(a, struct node_disk_figures, inst->disk_count);
	for (size_t i = 0; i < inst->disk_count; i++)
		put_disk(f, inst, inst->disks[i], a, &out->disks.items[out->disks.count++]);
	put_nic(f, inst, a, &out->nics);
	put_findings(a, &cpu, figures_diagnose_cpu(f, inst, &cpu), &of_cpu);
	merge_findings(&out->disks, &out->nics, &of_cpu, a, &out->held_back_by);
	put_metrics(a, metrics, figures_instance_metrics(inst, metrics), &out->metrics);
}

static void put_links(const struct figures_host *h, struct arena *a, struct node_host_link_figures_list *out)
{
	out->set = true;
	out->items = arena_new_array(a, struct node_host_link_figures, h->link_count);
	for (size_t i = 0; i < h->link_count; i++) {
		const struct figures_nic *c = &h->links[i].counted;

		out->items[out->count++] = (struct node_host_link_figures){
		    .device = arena_strdup(a, h->links[i].name),
		    .speed_mbit_s = figure_if(h->links[i].speed_mbit, h->links[i].speed_mbit),
		    .receive_mbit_s = figure_if(c->fresh, (double)c->delta.rx_bytes * 8 / MB / c->elapsed_s),
		    .send_mbit_s = figure_if(c->fresh, (double)c->delta.tx_bytes * 8 / MB / c->elapsed_s),
		};
	}
}

static struct node_host_figures *host_figures(const struct figures *f, struct arena *a)
{
	struct node_host_figures *out = arena_new_struct(a, struct node_host_figures);
	const struct figures_host *h = &f->host;

	*out = (struct node_host_figures){
	    .cores = WIRE_INT_OF(h->cores),
	    .cpu_percent = figure_if(h->fresh, h->cpu_percent),
	    .steal_percent = figure_if(h->fresh, h->steal_percent),
	    .sampler_percent = figure(f->sampler_percent),
	};
	out->disks.set = true;
	out->disks.items = arena_new_array(a, struct node_host_disk_figures, h->disk_count);
	for (size_t i = 0; i < h->disk_count; i++)
		out->disks.items[out->disks.count++] = (struct node_host_disk_figures){
		    .device = arena_strdup(a, h->disks[i].device),
		    .figures = h->disks[i].fresh ? io_figures(a, &h->disks[i].figures) : NULL,
		};
	put_links(h, a, &out->links);
	return out;
}

static bool is_asked(const struct node_get_figures_request *in, const char *id)
{
	for (size_t i = 0; i < in->instance_ids.count; i++)
		if (str_eq(in->instance_ids.items[i], id))
			return true;
	return !in->instance_ids.set;
}

void nc_figures_reply(struct nc *nc, struct arena *a, const struct node_get_figures_request *in,
		      struct node_get_figures_response *out)
{
	struct figures *f = &nc->sampler.figures;

	if (in->max_age_ms.set)
		nc_sample_fresh(nc, in->max_age_ms.value);
	out->node_id = nc->node_id;
	pthread_mutex_lock(&f->lock);
	out->time = WIRE_TIME_OF(f->at_ms);
	out->interval_ms = WIRE_INT_OF((int64_t)(f->elapsed_s * 1000));
	out->host = host_figures(f, a);
	out->instances.set = true;
	out->instances.items = arena_new_array(a, struct node_instance_figures, f->count);
	for (size_t i = 0; i < f->count; i++)
		if (is_asked(in, f->instances[i]->id))
			put_instance(f, f->instances[i], a, &out->instances.items[out->instances.count++]);
	pthread_mutex_unlock(&f->lock);
}
