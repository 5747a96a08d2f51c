/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An instance is a line of its own; below it a block for each disk: the guest's side, the storage's and the host's disk under each
 * other, in the same columns, so that one sees where requests change, and then what holds it back. Names come from users: what
 * does not print is shown as `?`, lest it steers the terminal.
 */
#include "cmd/top_screen.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/macros.h"
#include "base/text.h"

#define LABEL_COLUMNS 34
#define COLUMN 9
#define NARROW 115 /* below, reads and writes are not told apart */
#define INDENT 4
#define LINE_MAX_COLUMNS 400

/* --- lines --- */

struct page {
	const struct top_view *view;
	struct buf *out;
	int lines;
	bool full;
};

static void put_line(struct page *p, bool bold, const char *text)
{
	size_t columns = MIN_OF(strlen(text), (size_t)p->view->width);

	if (p->view->height && p->lines >= p->view->height) {
		p->full = true;
		return;
	}
	p->lines++;
	if (bold && p->view->bold)
		buf_puts(p->out, "\033[1m");
	for (size_t i = 0; i < columns; i++)
		buf_putc(p->out, isprint((unsigned char)text[i]) ? text[i] : '?');
	if (bold && p->view->bold)
		buf_puts(p->out, "\033[0m");
	buf_putc(p->out, '\n');
}

static void put_format(struct page *p, bool bold, const char *fmt, ...) _printf_(3, 4);
static void put_format(struct page *p, bool bold, const char *fmt, ...)
{
	_cleanup_(buf_done) struct buf line = BUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	buf_vprintf(&line, fmt, ap);
	va_end(ap);
	put_line(p, bold, line.data);
}

/* Prose in as many lines as the width asks for; words are not cut. */
static void put_wrapped(struct page *p, bool bold, const char *text)
{
	size_t room = (size_t)MAX_OF(p->view->width - INDENT, 20);

	while (*text) {
		char line[LINE_MAX_COLUMNS];
		size_t len = strlen(text);

		if (len > MIN_OF(room, sizeof(line) - INDENT - 1)) {
			len = MIN_OF(room, sizeof(line) - INDENT - 1);
			while (len > 1 && text[len] != ' ')
				len--;
			if (len == 1)
				len = MIN_OF(room, sizeof(line) - INDENT - 1);
		}
		snprintf(line, sizeof(line), "%*s%.*s", INDENT, "", (int)len, text);
		put_line(p, bold, line);
		text += len;
		text += strspn(text, " ");
	}
}

/* --- figures --- */

static void put_number(struct buf *line, struct wire_double v)
{
	if (!v.set)
		buf_printf(line, "%*s", COLUMN, "-");
	else
		buf_printf(line, "%*.*f", COLUMN, fabs(v.value) < 10 ? 2 : fabs(v.value) < 1000 ? 1 : 0, v.value);
}

static bool is_wide(const struct page *p)
{
	return p->view->width >= NARROW;
}

static void put_head(struct page *p)
{
	if (is_wide(p))
		put_format(p, true, "%-*s%*s%*s%*s%*s%*s%*s%*s%*s%*s", LABEL_COLUMNS, "INSTANCE, DISK", COLUMN, "IOPS", COLUMN, "r/s", COLUMN,
			   "w/s", COLUMN, "MB/s", COLUMN, "avgrq-sz", COLUMN, "avgqu-sz", COLUMN, "%util", COLUMN, "await ms", COLUMN, "%seq");
	else
		put_format(p, true, "%-*s%*s%*s%*s%*s%*s", LABEL_COLUMNS, "INSTANCE, DISK", COLUMN, "IOPS", COLUMN, "MB/s", COLUMN,
			   "avgrq-sz", COLUMN, "avgqu-sz", COLUMN, "%util");
}

static void put_io(struct page *p, const char *label, const struct node_io_figures *f)
{
	_cleanup_(buf_done) struct buf line = BUF_INIT;

	if (!f)
		return;
	buf_printf(&line, "%-*.*s", LABEL_COLUMNS, LABEL_COLUMNS, label);
	put_number(&line, f->iops);
	if (is_wide(p)) {
		put_number(&line, f->read_iops);
		put_number(&line, f->write_iops);
	}
	put_number(&line, f->mb_s);
	put_number(&line, f->request_sectors);
	put_number(&line, f->queue_size);
	put_number(&line, f->util_percent);
	if (is_wide(p)) {
		put_number(&line, f->await_ms);
		put_number(&line, f->sequential_percent);
	}
	put_line(p, false, line.data);
}

static const struct node_io_figures *host_disk(const struct node_get_figures_response *r, const char *device)
{
	for (size_t i = 0; r->host && device && i < r->host->disks.count; i++)
		if (str_eq(r->host->disks.items[i].device, device))
			return r->host->disks.items[i].figures;
	return NULL;
}

static void put_finding(struct page *p, const struct node_finding *f)
{
	_cleanup_(buf_done) struct buf text = BUF_INIT;
	bool none = str_eq(f->rule, "none");

	buf_printf(&text, "%s%s", none ? "" : "HELD BACK: ", f->rule);
	if (!none && f->gain.set)
		buf_printf(&text, ", %.1f times as much to be had", f->gain.value);
	buf_printf(&text, ". %s", f->why);
	if (!none)
		buf_printf(&text, " Mend: %s", f->mend);
	put_wrapped(p, !none, text.data);
}

static void put_findings(struct page *p, const struct node_finding_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		put_finding(p, &list->items[i]);
}

static bool is_of_a_device(const struct node_instance_figures *inst, const char *rule)
{
	for (size_t n = 0; n < inst->disks.count; n++)
		for (size_t i = 0; i < inst->disks.items[n].held_back_by.count; i++)
			if (str_eq(inst->disks.items[n].held_back_by.items[i].rule, rule))
				return true;
	for (size_t n = 0; n < inst->nics.count; n++)
		for (size_t i = 0; i < inst->nics.items[n].held_back_by.count; i++)
			if (str_eq(inst->nics.items[n].held_back_by.items[i].rule, rule))
				return true;
	return false;
}

/* What holds it back beside what each disk and NIC tells for itself. */
static void put_cpu_findings(struct page *p, const struct node_instance_figures *inst)
{
	for (size_t i = 0; i < inst->held_back_by.count; i++)
		if (!is_of_a_device(inst, inst->held_back_by.items[i].rule))
			put_finding(p, &inst->held_back_by.items[i]);
}

static void put_disk(struct page *p, const struct node_get_figures_response *r, const struct node_disk_figures *d)
{
	char label[128];

	snprintf(label, sizeof(label), "  %s %s", d->device_name ? d->device_name : "", d->name);
	if (d->why_empty) {
		put_format(p, false, "%s: no figures: %s", label, d->why_empty);
		return;
	}
	put_line(p, false, label);
	if (d->limit_iops.set || d->limit_mb_s.set) {
		_cleanup_(buf_done) struct buf limit = BUF_INIT;

		buf_puts(&limit, "    limit");
		if (d->limit_iops.set)
			buf_printf(&limit, " %.0f IOPS", d->limit_iops.value);
		if (d->limit_mb_s.set)
			buf_printf(&limit, " %.1f MB/s", d->limit_mb_s.value);
		if (d->held_percent.set && d->held_percent.value > 0)
			buf_printf(&limit, ", holds %.0f %% of the requests", d->held_percent.value);
		put_line(p, false, limit.data);
	}
	put_io(p, "    guest", d->guest);
	put_io(p, "    storage", d->storage);
	snprintf(label, sizeof(label), "    host's %s, all on it", d->host_device ? d->host_device : "?");
	put_io(p, label, host_disk(r, d->host_device));
	put_findings(p, &d->held_back_by);
}

static void put_percent(struct buf *line, const char *what, struct wire_double v)
{
	if (v.set)
		buf_printf(line, "  %s %.0f %%", what, v.value);
}

static void put_instance(struct page *p, const struct node_get_figures_response *r, const struct node_instance_figures *i)
{
	_cleanup_(buf_done) struct buf line = BUF_INIT;

	buf_printf(&line, "%s  %lld vCPU", i->instance_id, (long long)i->vcpus.value);
	put_percent(&line, "CPU", i->cpu_percent);
	put_percent(&line, "busiest vCPU", i->busiest_cpu_percent);
	put_percent(&line, "waiting for a core", i->cpu_wait_percent);
	put_line(p, true, line.data);
	for (size_t n = 0; n < i->nics.count; n++) {
		const struct node_nic_figures *nic = &i->nics.items[n];

		put_format(p, false, "  %s: receives %.2f Mb/s (%.0f/s), sends %.2f Mb/s (%.0f/s), drops %.0f/s", nic->device,
			   nic->receive_mbit_s.value, nic->receive_packets_s.value, nic->send_mbit_s.value, nic->send_packets_s.value,
			   nic->dropped_s.value);
		put_findings(p, &nic->held_back_by);
	}
	put_cpu_findings(p, i);
	for (size_t n = 0; n < i->disks.count; n++)
		put_disk(p, r, &i->disks.items[n]);
}

static void put_link(struct page *p, const struct node_host_link_figures *l)
{
	_cleanup_(buf_done) struct buf line = BUF_INIT;

	if (!l->receive_mbit_s.set)
		return;
	buf_printf(&line, "host's %s", l->device);
	if (l->speed_mbit_s.set)
		buf_printf(&line, ", %.0f Mb/s", l->speed_mbit_s.value);
	buf_printf(&line, ": receives %.2f Mb/s, sends %.2f Mb/s", l->receive_mbit_s.value, l->send_mbit_s.value);
	put_line(p, false, line.data);
}

static void put_node(struct page *p, const struct node_get_figures_response *r)
{
	_cleanup_(buf_done) struct buf line = BUF_INIT;
	char when[CLOCK_ISO_LEN];

	clock_format_iso(r->time.value, when);
	buf_printf(&line, "node %s at %.19sZ, over %.1f s; %zu instance%s", r->node_id, when, (double)r->interval_ms.value / 1000,
		   r->instances.count, r->instances.count == 1 ? "" : "s");
	put_line(p, true, line.data);
	if (!r->host)
		return;
	buf_reset(&line);
	buf_printf(&line, "host: %lld core%s", (long long)r->host->cores.value, r->host->cores.value == 1 ? "" : "s");
	put_percent(&line, "CPU", r->host->cpu_percent);
	put_percent(&line, "steal", r->host->steal_percent);
	if (r->host->sampler_percent.set)
		buf_printf(&line, "  (sampling: %.2f %% of one core)", r->host->sampler_percent.value);
	put_line(p, false, line.data);
	for (size_t i = 0; i < r->host->links.count; i++)
		put_link(p, &r->host->links.items[i]);
}

/* --- order --- */

static double most(double a, struct wire_double b)
{
	return b.set && b.value > a ? b.value : a;
}

/* The most that any of its disks does of it; a busy CPU counts as a busy disk. */
static double weight(const struct node_instance_figures *i, enum top_sort sort)
{
	double w = sort == TOP_CPU || sort == TOP_BUSIEST ? most(-1, i->cpu_percent) : -1;

	for (size_t n = 0; n < i->disks.count; n++) {
		const struct node_io_figures *f = i->disks.items[n].guest;

		if (!f)
			continue;
		if (sort == TOP_BUSIEST)
			w = most(w, f->util_percent);
		else if (sort == TOP_IOPS)
			w = most(w, f->iops);
		else if (sort == TOP_MB_S)
			w = most(w, f->mb_s);
	}
	return w;
}

static int compare(const void *a, const void *b, void *sort)
{
	const struct node_instance_figures *x = a, *y = b;
	double wx = weight(x, *(enum top_sort *)sort), wy = weight(y, *(enum top_sort *)sort);

	if (wx != wy)
		return wx < wy ? 1 : -1;
	return strcmp(x->instance_id, y->instance_id);
}

int top_sort_parse(const char *name)
{
	static const char *const names[] = {"busiest", "cpu", "iops", "mb", "id"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (str_eq(names[i], name))
			return (int)i;
	return -1;
}

void top_print(struct node_get_figures_response *r, const struct top_view *v, struct buf *out)
{
	enum top_sort sort = v->sort;
	struct page p = {.view = v, .out = out};

	qsort_r(r->instances.items, r->instances.count, sizeof(*r->instances.items), compare, &sort);
	put_node(&p, r);
	put_head(&p);
	for (size_t i = 0; i < r->instances.count && !p.full; i++)
		put_instance(&p, r, &r->instances.items[i]);
}
