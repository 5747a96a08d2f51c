/* SPDX-License-Identifier: Apache-2.0 */
/* The model against the study, as the tables of docs/model.md. */
#include "cmd/bench_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "cmd/cmd_priv.h"
#include "measure/model_study.h"

/* Errors of one column over all rows. */
#define ROWS_MAX 64

struct errors {
	double percent[ROWS_MAX];
	unsigned count;
};

enum column { MB_S, AVGRQ, AVGQU, UTIL, COLUMNS };

static const struct {
	const char *key;
	const char *title;
	int decimals;
} columns[COLUMNS] = {
	[MB_S] = { "mb_s", "MB/s", 1 },
	[AVGRQ] = { "avgrq_sectors", "avgrq-sz", 0 },
	[AVGQU] = { "avgqu", "avgqu-sz", 2 },
	[UTIL] = { "util_percent", "%util", 0 },
};

static double value_of(const struct model_figures *f, enum column c)
{
	switch (c) {
	case MB_S:
		return f->mb_s;
	case AVGRQ:
		return f->avgrq_sectors;
	case AVGQU:
		return f->avgqu;
	default:
		return f->util_percent;
	}
}

static const char *text_of(const json_t *row, const char *key)
{
	const char *s = json_string_value(json_object_get(row, key));

	return s ? s : "–";
}

static void constants_table(struct buf *out)
{
	const struct model_constant *c;

	buf_puts(out, "| number | value | from | why |\n|---|---|---|---|\n");
	for (unsigned i = 0; (c = model_study_constant_at(i)); i++)
		buf_printf(out, "| %s | %.5g %s | %s | %s |\n", c->name, c->value, c->unit,
			   model_provenance_name(c->provenance), c->why);
}

static void paths_table(struct buf *out)
{
	const struct model_study_row *r;

	buf_puts(out, "| configuration | | request at the disk | in flight | latency | the head waits | server | taken to be |\n"
		      "|---|---|---|---|---|---|---|---|\n");
	for (unsigned i = 0; (r = model_study_row_at(i)); i++) {
		struct model_disk d;
		struct model_path p;

		if (model_study_path(r->configuration, r->write, &d, &p) < 0)
			continue;
		buf_printf(out, "| %s | %s | %.0f sectors | %.0f | %.0f us | %.0f us | %.0f us | %s |\n", r->configuration,
			   r->write ? "write" : "read", p.sectors, p.depth, p.latency_us, p.wait_us + p.idle_us, p.server_us,
			   r->why);
	}
}

static void cell(struct buf *out, const json_t *row, enum column c, const struct model_figures *f, struct errors *errors)
{
	const json_t *study = json_object_get(row, columns[c].key);
	double is = json_number_value(study), model = value_of(f, c);

	if (!json_is_number(study) || isnan(model)) {
		buf_puts(out, " |");
		return;
	}
	double percent = 100 * (model / is - 1);
	buf_printf(out, " %.*f / %.*f (%+.0f %%) |", columns[c].decimals, is, columns[c].decimals, model, percent);
	if (errors[c].count < ROWS_MAX)
		errors[c].percent[errors[c].count++] = percent;
}

static void study_row(struct buf *out, const json_t *row, struct errors *errors)
{
	bool write = str_eq(text_of(row, "workload"), "dd-write");
	struct model_disk d;
	struct model_path p;

	buf_printf(out, "| %s | %s%s | %s |", text_of(row, "vmm"), text_of(row, "target"),
		   json_is_true(json_object_get(row, "default")) ? " (*)" : "", text_of(row, "driver"));
	if (model_study_path(text_of(row, "configuration"), write, &d, &p) < 0) {
		buf_printf(out, " %.1f / not modelled: what it ran on is not stated | | | | |\n",
			   json_number_value(json_object_get(row, "mb_s")));
		return;
	}
	struct model_figures f = model_predict(&d, &p);
	for (int c = 0; c < COLUMNS; c++)
		cell(out, row, c, &f, errors);
	buf_printf(out, " %s |\n", model_bound_name(f.bound));
}

static void study_table(struct buf *out, const json_t *rows, int number, struct errors *errors)
{
	const json_t *row;
	size_t i;

	buf_puts(out, "| VMM | target | driver |");
	for (int c = 0; c < COLUMNS; c++)
		buf_printf(out, " %s |", columns[c].title);
	buf_puts(out, " full first |\n|---|---|---|---|---|---|---|---|\n");
	json_array_foreach((json_t *)rows, i, row) {
		if (json_integer_value(json_object_get(row, "table")) == number)
			study_row(out, row, errors);
	}
}

static int by_size(const void *a, const void *b)
{
	double x = fabs(*(const double *)a), y = fabs(*(const double *)b);

	return x < y ? -1 : x > y;
}

static void errors_table(struct buf *out, struct errors *errors)
{
	buf_puts(out, "| column | figures | median error | within 10 % | within 20 % | largest |\n|---|---|---|---|---|---|\n");
	for (int c = 0; c < COLUMNS; c++) {
		struct errors *e = &errors[c];
		unsigned ten = 0, twenty = 0;

		if (!e->count)
			continue;
		qsort(e->percent, e->count, sizeof(e->percent[0]), by_size);
		for (unsigned i = 0; i < e->count; i++) {
			ten += fabs(e->percent[i]) <= 10;
			twenty += fabs(e->percent[i]) <= 20;
		}
		buf_printf(out, "| %s | %u | %.0f %% | %u | %u | %+.0f %% |\n", columns[c].title, e->count,
			   fabs(e->percent[e->count / 2]), ten, twenty, e->percent[e->count - 1]);
	}
}

/* `study` is bench/study.json. */
static int print_tables(const json_t *study, struct buf *out, struct error *e)
{
	const json_t *rows = json_object_get(study, "rows");
	struct errors errors[COLUMNS] = { 0 };

	if (!json_is_array(rows) || !json_array_size(rows))
		return error_set(e, "InvalidStudy", "The study's data hold no rows: look at bench/study.json");
	buf_puts(out, "### What goes in\n\n");
	constants_table(out);
	buf_puts(out, "\n### What each path is taken to be\n\n");
	paths_table(out);
	buf_puts(out, "\n### Table 1, dd write: study / model (error)\n\n");
	study_table(out, rows, 1, errors);
	buf_puts(out, "\n### Table 2, dd read: study / model (error)\n\n");
	study_table(out, rows, 2, errors);
	buf_puts(out, "\n### Errors\n\n");
	errors_table(out, errors);
	return 0;
}

static int print(void)
{
	_cleanup_(freep) char *path = share_path("bench/study.json");
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct error e = { 0 };
	json_error_t why;
	json_t *study = json_load_file(path, 0, &why);
	int r;

	if (study)
		r = print_tables(study, &out, &e);
	else
		r = error_set(&e, "InvalidStudy", "Cannot read the study's data, %s: %s", path, why.text);
	json_decref(study);
	if (r < 0)
		return command_failed(&e);
	return fwrite(out.data, 1, out.len, stdout) == out.len && fflush(stdout) == 0 ? 0 : 1;
}

int cmd_bench_model(int argc, char **argv)
{
	if (argc == 1)
		return print();
	if (str_eq(argv[1], "--help") || str_eq(argv[1], "-h")) {
		printf("usage: mallee bench model\n\n"
		       "Prints the study's Tables 1 and 2 beside what a model of its machines predicts, each row's error, and every number\n"
		       "that goes in with where it comes from, as markdown. docs/model.md derives the model and holds these tables.\n");
		return 0;
	}
	fprintf(stderr, "mallee bench model: it takes no arguments; \"%s\" is one\n", argv[1]);
	return EXIT_USAGE;
}
