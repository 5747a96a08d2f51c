/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BASE_SECRET_H
#define MALLEE_BASE_SECRET_H

#include <stddef.h>

/* A secret string. A type of its own so that it cannot reach a %s by accident; secret_text() for logs is
 * always "***". secret_done() wipes. */
struct secret {
	char *value_;
};

struct secret secret_new(const char *value);        /* copies */
const char *secret_reveal(const struct secret *s);  /* the value: for signing and storing only */
const char *secret_text(const struct secret *s);    /* "***" */
void secret_done(struct secret *s);

/* explicit_bzero() then free() of a NUL-terminated string; NULL is fine. */
void secret_free_string(char *s);

#endif
