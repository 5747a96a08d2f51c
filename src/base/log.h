/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BASE_LOG_H
#define MALLEE_BASE_LOG_H

#include "base/macros.h"

/*
 * Structured logs in logfmt, a line an event, to stderr (the supervisor sends it to a file):
 *   ts=2026-11-22T10:00:00.123Z level=info svc=nc msg="instance started" id=i-0123 node=n1
 * Programs log, libraries do not: only svc/ and cmd/ call these. The level and the service's name are set
 * once in main() before any thread starts: the only file-scope state, since a log that must be handed
 * through every call would be handed through every call.
 */
enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

void log_init(const char *service, enum log_level level);
/* level by name: debug info warn error; -EINVAL otherwise */
int log_level_parse(const char *name, enum log_level *ret_level);

/* `fields_fmt` makes the rest of the line, e.g. "id=%s err=%s"; NULL for none. Values with spaces are
 * passed through log_quote() by the caller. Line breaks and control bytes are escaped. */
void log_write(enum log_level level, const char *msg, const char *fields_fmt, ...) _printf_(3, 4);

#define log_debug(msg, ...) log_write(LOG_LEVEL_DEBUG, msg, __VA_ARGS__)
#define log_info(msg, ...) log_write(LOG_LEVEL_INFO, msg, __VA_ARGS__)
#define log_warn(msg, ...) log_write(LOG_LEVEL_WARN, msg, __VA_ARGS__)
#define log_error(msg, ...) log_write(LOG_LEVEL_ERROR, msg, __VA_ARGS__)

/* Quote s for a logfmt value into a thread-local ring of four buffers (valid until four later calls). */
const char *log_quote(const char *s);

#endif
