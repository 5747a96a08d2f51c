/* SPDX-License-Identifier: Apache-2.0 */
#include <netinet/in.h>
#include <linux/tcp.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"
#include "wire/http_server_priv.h"

/*
 * Theory of operation. MHD's own time-out counts from the last byte, so a client that sends (or
 * takes) one byte a minute would hold its connection for days. One thread per server looks at every
 * connection each five seconds, and cuts those whose headers are not complete in time, and those on
 * which the client, whenever it is the client's turn, moves less than 1 KiB a minute (HTTP_PACE).
 * The kernel counts the bytes, so that this sees through TLS and sendfile.
 *
 * Cutting is shutdown(2) under the list's lock: MHD takes a connection off the list
 * (http_watch_remove) before it closes the descriptor, so the number cannot have been given to
 * another connection.
 */

static uint64_t bytes_moved(int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return 0;
	return info.tcpi_bytes_received + info.tcpi_bytes_acked;
}

static bool too_slow(const struct http_pace *pace, struct http_conn *c, int64_t now_ms)
{
	int turn = atomic_load(&c->turn);
	uint64_t bytes;

	if (turn == HTTP_TURN_HEAD && now_ms - atomic_load(&c->head_since_ms) > pace->head_ms)
		return true;
	bytes = bytes_moved(c->fd);
	if (turn == HTTP_TURN_HANDLER) {
		c->window_since_ms = now_ms;
		c->window_bytes = bytes;
		return false;
	}
	if (now_ms - c->window_since_ms < pace->window_ms)
		return false;
	if (bytes - c->window_bytes < (uint64_t)pace->window_bytes)
		return true;
	c->window_since_ms = now_ms;
	c->window_bytes = bytes;
	return false;
}

static void *watch(void *arg)
{
	struct http_server *s = arg;

	pthread_mutex_lock(&s->lock);
	while (s->watching) {
		int64_t now_ms = clock_mono_ms();
		struct timespec until;

		for (struct http_conn *c = s->conns; c; c = c->next) {
			if (too_slow(&s->pace, c, now_ms))
				shutdown(c->fd, SHUT_RDWR);
		}
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += s->pace.watch_ms / 1000;
		until.tv_nsec += (s->pace.watch_ms % 1000) * 1000000L;
		if (until.tv_nsec >= 1000000000L) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000L;
		}
		while (s->watching && pthread_cond_timedwait(&s->changed, &s->lock, &until) == 0)
			;
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

int http_watch_start(struct http_server *s)
{
	int r;

	s->watching = true;
	r = pthread_create(&s->watch_thread, NULL, watch, s);
	if (r)
		s->watching = false;
	return -r;
}

void http_watch_stop(struct http_server *s)
{
	pthread_mutex_lock(&s->lock);
	if (!s->watching) {
		pthread_mutex_unlock(&s->lock);
		return;
	}
	s->watching = false;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->watch_thread, NULL);
}

void http_watch_add(struct http_server *s, struct http_conn *c)
{
	c->window_since_ms = clock_mono_ms();
	atomic_store(&c->head_since_ms, c->window_since_ms);
	pthread_mutex_lock(&s->lock);
	c->next = s->conns;
	if (s->conns)
		s->conns->prev = c;
	s->conns = c;
	pthread_mutex_unlock(&s->lock);
}

void http_watch_remove(struct http_server *s, struct http_conn *c)
{
	pthread_mutex_lock(&s->lock);
	if (c->prev)
		c->prev->next = c->next;
	else
		s->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	pthread_mutex_unlock(&s->lock);
}
