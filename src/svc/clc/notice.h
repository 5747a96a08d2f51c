/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_NOTICE_H
#define MALLEE_SVC_CLC_NOTICE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * "Something may have changed: look again." A count that only grows, and a way to sleep until it
 * does. Read the count, look, and wait for more than that count: so nothing is missed between.
 */
struct notice;

struct notice *notice_new(void);
void notice_free(struct notice *n); /* NULL is fine; nobody waits any more */
uint64_t notice_count(struct notice *n);
void notice_post(struct notice *n); /* NULL is fine */
/* Whoever waits, and will, is woken at once: the service stops. NULL is fine. */
void notice_close(struct notice *n);
bool notice_closed(struct notice *n);
/* Until the count is not `seen`; false when that took timeout_ms, or it is closed. */
bool notice_wait(struct notice *n, uint64_t seen, int timeout_ms);

#endif
