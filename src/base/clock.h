/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BASE_CLOCK_H
#define MALLEE_BASE_CLOCK_H

#include <stdint.h>

/* Milliseconds since 1970 UTC (CLOCK_REALTIME), and of a clock that never jumps (CLOCK_MONOTONIC). */
int64_t clock_unix_ms(void);
int64_t clock_mono_ms(void);

#define CLOCK_ISO_LEN 25 /* "2026-11-22T10:00:00.000Z" and NUL */

/* ISO 8601 as EC2 prints it, with milliseconds, UTC. */
void clock_format_iso(int64_t unix_ms, char out[static CLOCK_ISO_LEN]);
/* "20261122T100000Z", as SigV4's X-Amz-Date: 16 characters and NUL. */
void clock_format_basic(int64_t unix_ms, char out[static 17]);
/* RFC 7231 date, "Sun, 22 Nov 2026 10:00:00 GMT": 29 characters and NUL. */
void clock_format_http(int64_t unix_ms, char out[static 30]);

/* Accepts ISO 8601 (with or without fraction; Z or +hh:mm), the basic form, RFC 7231 dates and plain epoch
 * seconds. 0, or -EINVAL. */
int clock_parse(const char *s, int64_t *ret_unix_ms);

#endif
