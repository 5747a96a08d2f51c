/* SPDX-License-Identifier: Apache-2.0 */
#include "block/core/option.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

#define OPTIONS_MAX 32

struct value {
	char *text; /* NULL: unset */
	uint64_t number;
};

struct blk_values {
	const struct blk_option *table;
	struct value value[OPTIONS_MAX];
};

static int table_find(const struct blk_option *table, const char *name, size_t len)
{
	for (int i = 0; table && table[i].name; i++) {
		if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0)
			return i;
	}
	return -1;
}

static bool is_choice(const char *choices, const char *text)
{
	size_t len = strlen(text);

	for (const char *at = choices; at && len; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL) {
		if (strncmp(at, text, len) == 0 && (at[len] == '|' || at[len] == '\0'))
			return true;
	}
	return false;
}

/* Decimal, with a k, M, G or T behind it where bytes are meant. */
static int parse_number(const char *text, bool bytes, uint64_t *ret)
{
	static const char suffixes[] = "kMGT";
	char digits[24];
	size_t len = strlen(text);
	unsigned shift = 0;

	const char *suffix = bytes && len > 1 ? strchr(suffixes, text[len - 1]) : NULL;
	if (suffix) {
		shift = 10 * (unsigned)(suffix - suffixes + 1);
		len--;
	}
	if (len >= sizeof(digits))
		return -EINVAL;
	memcpy(digits, text, len);
	digits[len] = '\0';
	uint64_t number;
	int err = parse_u64(digits, 0, UINT64_MAX >> shift, &number);
	if (!err)
		*ret = number << shift;
	return err;
}

static int refuse_number(const struct blk_option *o, const char *text, struct error *e)
{
	const char *what = o->type == BLK_OPT_BYTES ? "bytes (a number, with k, M, G or T behind it)" :
			   o->type == BLK_OPT_MS ? "milliseconds" : "a number";

	if (o->max)
		return error_set(e, "InvalidOption", "%s=%s: give %s from %llu to %llu", o->name, text, what,
				 (unsigned long long)o->min, (unsigned long long)o->max);
	return error_set(e, "InvalidOption", "%s=%s: give %s of at least %llu", o->name, text, what, (unsigned long long)o->min);
}

static int check_value(const struct blk_option *o, struct value *v, struct error *e)
{
	switch (o->type) {
	case BLK_OPT_TEXT:
		return 0;
	case BLK_OPT_BOOL:
		v->number = str_eq(v->text, "on");
		if (!v->number && !str_eq(v->text, "off"))
			return error_set(e, "InvalidOption", "%s=%s: give on or off", o->name, v->text);
		return 0;
	case BLK_OPT_CHOICE:
		if (!is_choice(o->choices, v->text))
			return error_set(e, "InvalidOption", "%s=%s: give one of %s", o->name, v->text, o->choices);
		return 0;
	case BLK_OPT_UINT:
	case BLK_OPT_BYTES:
	case BLK_OPT_MS:
		if (parse_number(v->text, o->type == BLK_OPT_BYTES, &v->number) || v->number < o->min ||
		    (o->max && v->number > o->max))
			return refuse_number(o, v->text, e);
		return 0;
	}
	return 0;
}

/* The next `name=value` of *at, its doubled commas made one; NULL at the end, or without memory (*ret_err). */
static char *next_pair(const char **at, int *ret_err)
{
	if (!**at)
		return NULL;
	char *pair = malloc(strlen(*at) + 1), *out = pair;
	if (!pair) {
		*ret_err = -ENOMEM;
		return NULL;
	}
	const char *in = *at;
	while (*in && (in[0] != ',' || in[1] == ',')) {
		if (in[0] == ',')
			in++;
		*out++ = *in++;
	}
	*out = '\0';
	*at = *in ? in + 1 : in;
	return pair;
}

static int take_pair(struct blk_values *v, const char *pair, struct error *e)
{
	const char *equals = strchr(pair, '=');
	size_t len = equals ? (size_t)(equals - pair) : strlen(pair);
	int i = table_find(v->table, pair, len);

	if (i < 0)
		return error_set(e, "InvalidOption", "there is no option \"%.*s\"", (int)len, pair);
	if (!equals)
		return error_set(e, "InvalidOption", "%s: give it as %s=VALUE", pair, pair);
	if (v->value[i].text)
		return error_set(e, "InvalidOption", "%s is given twice", v->table[i].name);
	v->value[i].text = strdup(equals + 1);
	if (!v->value[i].text)
		return error_errno(e, ENOMEM, "reading %s", v->table[i].name);
	return check_value(&v->table[i], &v->value[i], e);
}

static int fill_in(struct blk_values *v, struct error *e)
{
	for (int i = 0; v->table && v->table[i].name; i++) {
		const struct blk_option *o = &v->table[i];
		if (v->value[i].text)
			continue;
		if (o->required)
			return error_set(e, "InvalidOption", "%s= is missing: %s", o->name, o->doc);
		if (!o->fallback)
			continue;
		v->value[i].text = strdup(o->fallback);
		if (!v->value[i].text)
			return error_errno(e, ENOMEM, "reading %s", o->name);
		struct error why = { 0 };
		int err = check_value(o, &v->value[i], &why);
		assert(!err); /* the table's own */
	}
	return 0;
}

/* Everything behind the driver's name. */
static const char *options_of(const char *text)
{
	const char *colon = strchr(text, ':');

	return colon ? colon + 1 : "";
}

int blk_values_parse(const char *text, const struct blk_option *table, struct blk_values **ret, struct error *e)
{
	_cleanup_(blk_values_freep) struct blk_values *v = calloc(1, sizeof(*v));
	const char *at = options_of(text);
	int err = v ? 0 : -ENOMEM;

	if (err)
		return error_errno(e, err, "reading options");
	v->table = table;
	for (unsigned i = 0; table && table[i].name; i++)
		assert(i < OPTIONS_MAX);
	while (!err) {
		_cleanup_(freep) char *pair = next_pair(&at, &err);
		if (err)
			return error_errno(e, err, "reading options");
		if (!pair)
			break;
		err = take_pair(v, pair, e);
	}
	if (!err)
		err = fill_in(v, e);
	if (err)
		return err;
	*ret = TAKE_PTR(v);
	return 0;
}

int blk_spec_name(const char *text, char ret_name[32], struct error *e)
{
	size_t len = strcspn(text, ":");

	if (!len || len >= 32)
		return error_set(e, "InvalidOption", "\"%s\": give a name and its options, as in file:path=/srv/disk.raw", text);
	memcpy(ret_name, text, len);
	ret_name[len] = '\0';
	return 0;
}

void blk_values_free(struct blk_values *v)
{
	if (!v)
		return;
	for (unsigned i = 0; i < OPTIONS_MAX; i++)
		free(v->value[i].text);
	free(v);
}

static const struct value *value_of(const struct blk_values *v, const char *name, bool number)
{
	int i = table_find(v->table, name, strlen(name));

	assert(i >= 0);
	enum blk_option_type type = v->table[i].type;
	assert(number == (type == BLK_OPT_UINT || type == BLK_OPT_BYTES || type == BLK_OPT_MS || type == BLK_OPT_BOOL));
	return &v->value[i];
}

bool blk_values_has(const struct blk_values *v, const char *name)
{
	int i = table_find(v->table, name, strlen(name));

	assert(i >= 0);
	return v->value[i].text;
}

const char *blk_values_text(const struct blk_values *v, const char *name)
{
	return value_of(v, name, false)->text;
}

uint64_t blk_values_number(const struct blk_values *v, const char *name)
{
	return value_of(v, name, true)->number;
}

bool blk_values_bool(const struct blk_values *v, const char *name)
{
	return value_of(v, name, true)->number;
}

static const char *type_text(const struct blk_option *o)
{
	switch (o->type) {
	case BLK_OPT_TEXT:
		return "TEXT";
	case BLK_OPT_BOOL:
		return "on|off";
	case BLK_OPT_UINT:
		return "NUMBER";
	case BLK_OPT_BYTES:
		return "BYTES";
	case BLK_OPT_MS:
		return "MS";
	case BLK_OPT_CHOICE:
		return o->choices;
	}
	return "";
}

void blk_options_describe(const struct blk_option *table, struct buf *out)
{
	for (; table && table->name; table++) {
		buf_printf(out, "    %s=%s  %s", table->name, type_text(table), table->doc);
		if (table->required)
			buf_printf(out, " (required)");
		else if (table->fallback)
			buf_printf(out, " (%s)", table->fallback);
		buf_printf(out, "\n");
	}
}
