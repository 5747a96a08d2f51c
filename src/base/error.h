/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BASE_ERROR_H
#define MALLEE_BASE_ERROR_H

#include <errno.h>
#include <stdbool.h>

#include "base/macros.h"

/*
 * An error that a user will read: a service's error code ("InvalidInstanceID.NotFound") and a message
 * that says what was tried and what to do. The HTTP status of a code is looked up by the protocol
 * layer (api/overlay), never set by handlers. Library functions that can fail for reasons a user must
 * learn take a `struct error *`; others return a bare negative errno.
 */
struct error {
	char code[64];
	char message[512];
};

/* Fill *e (e may be NULL) and return -EREMOTEIO, so that `return error_set(e, …)` reads well. The first
 * error stays: a second call on a filled error changes nothing. */
int error_set(struct error *e, const char *code, const char *fmt, ...) _printf_(3, 4);
/* The same with code "InternalError", ": strerror(err)" appended; err may be negative. Returns -abs(err). */
int error_errno(struct error *e, int err, const char *fmt, ...) _printf_(3, 4);
void error_clear(struct error *e); /* e may be NULL */
static inline bool error_is_set(const struct error *e)
{
	return e->code[0] != '\0';
}

#endif
