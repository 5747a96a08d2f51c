/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_CORE_OPTION_H
#define MALLEE_BLOCK_CORE_OPTION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

/*
 * A layer or front end as an operator writes it: `file:path=/srv/a.raw,direct=on`. A comma inside a value is written twice.
 * Each driver declares its options in one table; what is not in it, given twice, out of range or missing is refused, by name.
 */
enum blk_option_type {
	BLK_OPT_TEXT,
	BLK_OPT_BOOL,  /* on, off */
	BLK_OPT_UINT,  /* decimal */
	BLK_OPT_BYTES, /* decimal with an optional k, M, G, T (powers of 1024) */
	BLK_OPT_MS,    /* decimal, ms */
	BLK_OPT_CHOICE /* one of choices */
};

struct blk_option {
	const char *name; /* NULL ends a table */
	enum blk_option_type type;
	bool required;
	const char *fallback;   /* as it would be written; NULL: unset */
	uint64_t min, max;      /* numbers; max 0: no limit */
	const char *choices;    /* "a|b|c" */
	const char *doc;        /* one line; --help prints it */
};

struct blk_values; /* of one driver */

/* The driver's name and its options out of text. *ret_name has room for 32 bytes. */
int blk_spec_name(const char *text, char ret_name[32], struct error *e);
int blk_values_parse(const char *text, const struct blk_option *table, struct blk_values **ret, struct error *e);
void blk_values_free(struct blk_values *v);
DEFINE_CLEANUP(struct blk_values *, blk_values_free, blk_values_freep)

/* Asking for a name that is not in the table, or for another type than its own, is our mistake: asserts. */
bool blk_values_has(const struct blk_values *v, const char *name); /* given, or with a fallback */
const char *blk_values_text(const struct blk_values *v, const char *name); /* TEXT, CHOICE; NULL when unset */
uint64_t blk_values_number(const struct blk_values *v, const char *name); /* UINT, BYTES, MS; 0 when unset */
bool blk_values_bool(const struct blk_values *v, const char *name);

void blk_options_describe(const struct blk_option *table, struct buf *out); /* for --help */

#endif
