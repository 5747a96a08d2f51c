/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OS_LOOP_H
#define MALLEE_OS_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

/*
 * One event loop per thread: descriptors, timers, signals, and a wake-up from other threads. Only loop_wake()
 * and loop_stop() may be called from another thread or a signal handler.
 */
struct loop;
struct loop_source;

int loop_new(struct loop **ret);
void loop_free(struct loop *l);
int loop_run(struct loop *l); /* until loop_stop() */
void loop_stop(struct loop *l);
void loop_wake(struct loop *l); /* runs the function of loop_on_wake() in the loop's thread, soon, once */
void loop_on_wake(struct loop *l, void (*fn)(void *ctx), void *ctx);

int loop_add_fd(struct loop *l, int fd, uint32_t epoll_events, void (*fn)(void *ctx, int fd, uint32_t events),
		void *ctx, struct loop_source **ret);
/* First after delay_ms, then every period_ms (0: once). */
int loop_add_timer(struct loop *l, int64_t delay_ms, int64_t period_ms, void (*fn)(void *ctx), void *ctx,
		   struct loop_source **ret);
/* Blocks signo for the calling thread and delivers it here through signalfd. */
int loop_add_signal(struct loop *l, int signo, void (*fn)(void *ctx, int signo), void *ctx);
void loop_remove(struct loop_source *s); /* NULL is fine; safe inside the source's own callback */

#endif
