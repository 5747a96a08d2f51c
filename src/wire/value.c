/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/value_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"

bool member_present(const void *base, const struct wire_member *m)
{
	const void *p;

	if (m->flags & WIRE_NO_FIELD)
		return false;
	p = member_of(base, m);
	switch (m->shape->type) {
	case WIRE_STRING:
	case WIRE_STRUCT:
		return *(const void *const *)p != NULL;
	case WIRE_BLOB:
		return ((const struct wire_blob *)p)->data != NULL;
	case WIRE_INT:
		return ((const struct wire_int *)p)->set;
	case WIRE_BOOL:
		return ((const struct wire_bool *)p)->set;
	case WIRE_DOUBLE:
		return ((const struct wire_double *)p)->set;
	case WIRE_TIME:
		return ((const struct wire_time *)p)->set;
	case WIRE_LIST:
		return ((const struct wire_list *)p)->set;
	case WIRE_MAP:
		return ((const struct wire_map *)p)->set;
	}
	return false;
}

void scalar_store(const struct wire_shape *shape, bool item, void *dst, const struct wire_scalar *v)
{
	switch (shape->type) {
	case WIRE_STRING:
		*(const char **)dst = v->string;
		break;
	case WIRE_BLOB:
		*(struct wire_blob *)dst = v->blob;
		break;
	case WIRE_INT:
	case WIRE_TIME:
		if (item)
			*(int64_t *)dst = v->number;
		else if (shape->type == WIRE_INT)
			*(struct wire_int *)dst = (struct wire_int){true, v->number};
		else
			*(struct wire_time *)dst = (struct wire_time){true, v->number};
		break;
	case WIRE_BOOL:
		if (item)
			*(bool *)dst = v->truth;
		else
			*(struct wire_bool *)dst = (struct wire_bool){true, v->truth};
		break;
	case WIRE_DOUBLE:
		if (item)
			*(double *)dst = v->real;
		else
			*(struct wire_double *)dst = (struct wire_double){true, v->real};
		break;
	case WIRE_STRUCT:
	case WIRE_LIST:
	case WIRE_MAP:
		break;
	}
}

void scalar_load(const struct wire_shape *shape, bool item, const void *src,
		 struct wire_scalar *ret)
{
	struct wire_scalar v = {0};

	switch (shape->type) {
	case WIRE_STRING:
		v.string = *(const char *const *)src;
		break;
	case WIRE_BLOB:
		v.blob = *(const struct wire_blob *)src;
		break;
	case WIRE_INT:
		v.number = item ? *(const int64_t *)src : ((const struct wire_int *)src)->value;
		break;
	case WIRE_TIME:
		v.number = item ? *(const int64_t *)src : ((const struct wire_time *)src)->value;
		break;
	case WIRE_BOOL:
		v.truth = item ? *(const bool *)src : ((const struct wire_bool *)src)->value;
		break;
	case WIRE_DOUBLE:
		v.real = item ? *(const double *)src : ((const struct wire_double *)src)->value;
		break;
	case WIRE_STRUCT:
	case WIRE_LIST:
	case WIRE_MAP:
		break;
	}
	*ret = v;
}

int scalar_parse(struct arena *a, const struct wire_shape *shape, const char *text, size_t len,
		 struct wire_scalar *ret)
{
	struct wire_scalar v = {0};
	const char *s = arena_strndup(a, text, len);
	void *data;
	int r = 0;

	switch (shape->type) {
	case WIRE_STRING:
		v.string = s;
		break;
	case WIRE_BLOB:
		r = base64_decode(a, s, len, &data, &v.blob.len);
		if (r >= 0)
			v.blob.data = data;
		break;
	case WIRE_INT:
		r = parse_i64(s, INT64_MIN, INT64_MAX, &v.number);
		break;
	case WIRE_BOOL:
		r = parse_bool(s, &v.truth);
		break;
	case WIRE_DOUBLE:
		r = parse_f64(s, &v.real);
		if (r >= 0 && !isfinite(v.real))
			r = -EINVAL;
		break;
	case WIRE_TIME:
		r = clock_parse(s, &v.number);
		break;
	case WIRE_STRUCT:
	case WIRE_LIST:
	case WIRE_MAP:
		r = -EINVAL;
		break;
	}
	if (r < 0)
		return -EINVAL;
	*ret = v;
	return 0;
}

static void print_time(uint8_t format, int64_t ms, struct buf *out)
{
	char text[32];

	switch (format) {
	case WIRE_TIME_HTTP:
		clock_format_http(ms, text);
		break;
	case WIRE_TIME_EPOCH:
		snprintf(text, sizeof(text), "%" PRId64, ms / 1000);
		break;
	default:
		clock_format_iso(ms, text);
	}
	buf_puts(out, text);
}

void scalar_print(const struct wire_shape *shape, uint8_t time_format, const struct wire_scalar *v,
		  struct buf *out)
{
	switch (shape->type) {
	case WIRE_STRING:
		buf_puts(out, v->string ? v->string : "");
		break;
	case WIRE_BLOB: {
		_cleanup_(arena_freep) struct arena *a = arena_new();

		buf_puts(out, base64_encode(a, v->blob.data, v->blob.len));
		break;
	}
	case WIRE_INT:
		buf_printf(out, "%" PRId64, v->number);
		break;
	case WIRE_BOOL:
		buf_puts(out, v->truth ? "true" : "false");
		break;
	case WIRE_DOUBLE:
		buf_printf(out, "%.17g", v->real);
		break;
	case WIRE_TIME:
		print_time(time_format, v->number, out);
		break;
	case WIRE_STRUCT:
	case WIRE_LIST:
	case WIRE_MAP:
		break;
	}
}

const char *utf8_clean(struct buf *room, const char *s)
{
	size_t len = strlen(s);

	if (utf8_valid(s, len))
		return s;
	for (size_t i = 0; i < len;) {
		size_t n = 1;

		while (n <= 4 && n <= len - i && !utf8_valid(s + i, n))
			n++;
		if (n <= 4 && n <= len - i) {
			buf_append(room, s + i, n);
			i += n;
		} else {
			buf_puts(room, UTF8_REPLACEMENT);
			i++;
		}
	}
	return room->data;
}

/* "must be 1 to 50", "must have at most 3 items", …; -ERANGE when n is outside. */
static int in_range(const struct wire_shape *shape, double n, const char *verb, const char *unit,
		    char *why, size_t why_size)
{
	if (shape->min > shape->max || (n >= (double)shape->min && n <= (double)shape->max))
		return 0;
	if (shape->max == INT64_MAX)
		snprintf(why, why_size, "must %s at least %" PRId64 "%s", verb, shape->min, unit);
	else if (shape->min == INT64_MIN || (shape->min == 0 && *unit))
		snprintf(why, why_size, "must %s at most %" PRId64 "%s", verb, shape->max, unit);
	else
		snprintf(why, why_size, "must %s %" PRId64 " to %" PRId64 "%s", verb, shape->min,
			 shape->max, unit);
	return -ERANGE;
}

static size_t utf8_characters(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

int scalar_check(const struct wire_shape *shape, const struct wire_scalar *v, char *why,
		 size_t why_size)
{
	switch (shape->type) {
	case WIRE_STRING:
		return in_range(shape, (double)utf8_characters(v->string), "have", " characters",
				why, why_size);
	case WIRE_BLOB:
		return in_range(shape, (double)v->blob.len, "have", " bytes", why, why_size);
	case WIRE_INT:
		return in_range(shape, (double)v->number, "be", "", why, why_size);
	case WIRE_DOUBLE:
		return in_range(shape, v->real, "be", "", why, why_size);
	default:
		return 0;
	}
}

int list_check(const struct wire_shape *shape, size_t count, char *why, size_t why_size)
{
	return in_range(shape, (double)count, "have", " items", why, why_size);
}

const char *type_phrase(enum wire_type type)
{
	static const char *const phrases[] = {
	    [WIRE_STRING] = "a string",	     [WIRE_BLOB] = "base64-encoded data",
	    [WIRE_INT] = "an integer",	     [WIRE_BOOL] = "true or false",
	    [WIRE_DOUBLE] = "a number",	     [WIRE_TIME] = "a timestamp (ISO 8601)",
	    [WIRE_STRUCT] = "a structure",   [WIRE_LIST] = "a list",
	    [WIRE_MAP] = "a map of strings",
	};

	return phrases[type];
}

static size_t path_append(const struct wire_path *p, char *out, size_t size)
{
	size_t used = p->up ? path_append(p->up, out, size) : 0;
	const char *dot = used > 0 ? "." : "";
	int n;

	if (used >= size)
		return used;
	if (p->name)
		n = snprintf(out + used, size - used, "%s%s", dot, p->name);
	else if (p->index > 0)
		n = snprintf(out + used, size - used, "%s%zu", dot, p->index);
	else
		return used;
	return used + (size_t)n;
}

const char *path_print(const struct wire_path *p, char out[static WIRE_PATH_LEN])
{
	out[0] = '\0';
	path_append(p, out, WIRE_PATH_LEN);
	return out;
}
