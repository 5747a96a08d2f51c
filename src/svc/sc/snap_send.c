/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pack is free, open (one a kind of blob: chunks, pages), sealed (in the queue) or being sent. `lock` guards the queue, the free
 * list and the first failure; it is not held over a transfer. An open pack is touched by the filling thread alone.
 */
#include "svc/sc/snap_send_priv.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 16

struct snap_send {
	struct objects *objects;
	struct upload_id id;
	const struct snap_cipher *cipher; /* NULL: plain */
	uint32_t pack_bytes, next_number;
	struct snap_pack *open[2]; /* chunks, pages */
	pthread_mutex_t lock;
	pthread_cond_t work, change;
	struct snap_pack *free_list, *queue, **queue_last;
	unsigned buffers, sending, threads;
	pthread_t thread[THREADS_MAX];
	bool stop;
	int err;
	struct error why;
	_Atomic uint64_t sent_bytes, added_bytes;
};

static void fail(struct snap_send *s, int err, const struct error *why)
{
	if (!s->err) {
		s->err = err;
		s->why = *why;
	}
	pthread_cond_broadcast(&s->change);
}

static int send_one(struct snap_send *s, struct snap_pack *p, struct error *e)
{
	char key[SNAP_KEY_MAX];

	snap_pack_finish(&p->data, p->blobs, p->count, s->cipher, &(struct snap_pack_ref){ s->id, p->number });
	snap_pack_key(&s->id, p->number, key);
	return objects_put(s->objects, key, p->data.data, p->data.len, false, e);
}

static void *sender(void *ctx)
{
	struct snap_send *s = ctx;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		struct snap_pack *p = s->queue;
		struct error e = { 0 };

		if (s->stop)
			break;
		if (!p || s->err) {
			pthread_cond_wait(&s->work, &s->lock);
			continue;
		}
		s->queue = p->next;
		if (!s->queue)
			s->queue_last = &s->queue;
		s->sending++;
		pthread_mutex_unlock(&s->lock);
		int err = send_one(s, p, &e);
		pthread_mutex_lock(&s->lock);
		s->sending--;
		if (err)
			fail(s, err, &e);
		else
			s->sent_bytes += p->data.len;
		p->next = s->free_list;
		s->free_list = p;
		pthread_cond_broadcast(&s->change);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

struct snap_send *snap_send_new(struct objects *o, const struct upload_id *id, unsigned in_flight, uint32_t pack_bytes,
				const struct snap_cipher *cipher)
{
	struct snap_send *s = calloc(1, sizeof(*s));

	if (!s)
		abort();
	s->objects = o;
	s->id = *id;
	s->cipher = cipher;
	s->pack_bytes = pack_bytes;
	s->queue_last = &s->queue;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->work, NULL);
	pthread_cond_init(&s->change, NULL);
	in_flight = MIN_OF(in_flight, (unsigned)THREADS_MAX);
	for (unsigned i = 0; i < in_flight; i++) {
		if (pthread_create(&s->thread[i], NULL, sender, s) != 0)
			break;
		s->threads++;
	}
	if (!s->threads)
		abort();
	s->buffers = s->threads + 2;
	return s;
}

static void pack_free(struct snap_pack *p)
{
	if (!p)
		return;
	buf_done(&p->data);
	free(p->blobs);
	free(p);
}

void snap_send_free(struct snap_send *s)
{
	struct snap_pack *p;

	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->work);
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < s->threads; i++)
		pthread_join(s->thread[i], NULL);
	while ((p = s->queue)) {
		s->queue = p->next;
		pack_free(p);
	}
	while ((p = s->free_list)) {
		s->free_list = p->next;
		pack_free(p);
	}
	pack_free(s->open[0]);
	pack_free(s->open[1]);
	pthread_cond_destroy(&s->work);
	pthread_cond_destroy(&s->change);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void snap_send_cancel(struct snap_send *s)
{
	struct error why = { 0 };

	error_set(&why, "Cancelled", "the upload of snapshot %s was stopped", s->id.snapshot);
	pthread_mutex_lock(&s->lock);
	fail(s, -ECANCELED, &why);
	pthread_mutex_unlock(&s->lock);
}

static int failed(struct snap_send *s, struct error *e)
{
	if (s->err && e && !error_is_set(e))
		*e = s->why;
	return s->err;
}

/* A free buffer, or a new one while there may be more. */
static int take_buffer(struct snap_send *s, struct snap_pack **ret, struct error *e)
{
	struct snap_pack *p = NULL;
	int err;

	pthread_mutex_lock(&s->lock);
	while (!s->err && !s->free_list && s->buffers == 0)
		pthread_cond_wait(&s->change, &s->lock);
	err = failed(s, e);
	if (!err && s->free_list) {
		p = s->free_list;
		s->free_list = p->next;
	} else if (!err) {
		s->buffers--;
	}
	pthread_mutex_unlock(&s->lock);
	if (err)
		return err;
	if (!p)
		p = calloc(1, sizeof(*p));
	if (!p)
		abort();
	snap_pack_begin(&p->data, s->cipher);
	p->count = 0;
	p->number = s->next_number++;
	p->next = NULL;
	*ret = p;
	return 0;
}

static void seal(struct snap_send *s, unsigned kind)
{
	struct snap_pack *p = s->open[kind];

	if (!p)
		return;
	s->open[kind] = NULL;
	pthread_mutex_lock(&s->lock);
	p->next = NULL;
	*s->queue_last = p;
	s->queue_last = &p->next;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
}

/* Appends it as it is stored. */
static void append(const struct snap_send *s, struct snap_pack *p, struct snap_blob *what, const void *data)
{
	static const char tag[SNAP_TAG];

	what->off = (uint32_t)p->data.len;
	buf_append(&p->data, data, what->len);
	if (s->cipher) {
		struct snap_place at = { &s->id, p->number, what->off, what->kind, what->codec, what->number };

		buf_append(&p->data, tag, sizeof(tag));
		snap_seal(s->cipher, &at, data, what->len, p->data.data + what->off);
		what->len += SNAP_TAG;
	}
	if (what->kind == SNAP_BLOB_PAGE)
		snap_sha256(p->data.data + what->off, what->len, what->sha);
}

int snap_send_add(struct snap_send *s, struct snap_blob *what, const void *data, uint32_t *ret_pack, struct error *e)
{
	unsigned kind = what->kind == SNAP_BLOB_PAGE;
	struct snap_pack *p = s->open[kind];
	size_t more = s->cipher ? 2 * SNAP_TAG : 0; /* the blob's and the index' */

	if (p && p->data.len + what->len + more + (p->count + 1ul) * SNAP_BLOB_LEN + SNAP_PACK_FOOTER > s->pack_bytes)
		seal(s, kind);
	p = s->open[kind];
	if (!p) {
		int err = take_buffer(s, &p, e);
		if (err)
			return err;
		s->open[kind] = p;
	}
	if (p->count == p->cap) {
		p->cap = p->cap ? 2 * p->cap : 64;
		p->blobs = realloc(p->blobs, p->cap * sizeof(*p->blobs));
		if (!p->blobs)
			abort();
	}
	append(s, p, what, data);
	p->blobs[p->count++] = *what;
	s->added_bytes += what->len;
	*ret_pack = p->number;
	return 0;
}

int snap_send_finish(struct snap_send *s, struct error *e)
{
	int err;

	seal(s, 0);
	seal(s, 1);
	pthread_mutex_lock(&s->lock);
	while (!s->err && (s->queue || s->sending))
		pthread_cond_wait(&s->change, &s->lock);
	err = failed(s, e);
	pthread_mutex_unlock(&s->lock);
	return err;
}

uint64_t snap_send_sent(struct snap_send *s)
{
	return s->sent_bytes;
}

uint64_t snap_send_added(struct snap_send *s)
{
	return s->added_bytes;
}
