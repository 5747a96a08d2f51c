/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/sc/objects.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/id.h"
#include "svc/sc/objects_priv.h"

#define LIST_PAGE 500

struct objects {
	const struct objects_ops *ops;
	void *ctx;
	struct objects_retry retry;
	pthread_mutex_t lock;
	pthread_cond_t cancel_cond;
	_Atomic bool cancelled;
	struct objects_counters count;
};

struct objects *objects_new(const struct objects_ops *ops, void *ctx, const struct objects_retry *retry)
{
	struct objects *o = calloc(1, sizeof(*o));
	pthread_condattr_t attr;

	if (!o)
		abort();
	o->ops = ops;
	o->ctx = ctx;
	if (retry)
		o->retry = *retry;
	o->retry.attempts = o->retry.attempts ? o->retry.attempts : 8;
	o->retry.first_ms = o->retry.first_ms ? o->retry.first_ms : 100;
	o->retry.max_ms = o->retry.max_ms ? o->retry.max_ms : 5000;
	pthread_mutex_init(&o->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&o->cancel_cond, &attr);
	pthread_condattr_destroy(&attr);
	return o;
}

void objects_free(struct objects *o)
{
	if (!o)
		return;
	if (o->ops->free)
		o->ops->free(o->ctx);
	pthread_cond_destroy(&o->cancel_cond);
	pthread_mutex_destroy(&o->lock);
	free(o);
}

void *objects_ctx(struct objects *o, const struct objects_ops *ops)
{
	assert(o->ops == ops);
	return o->ctx;
}

const struct objects_counters *objects_counters(const struct objects *o)
{
	return &o->count;
}

bool objects_cancelled(struct objects *o)
{
	return atomic_load(&o->cancelled);
}

void objects_cancel(struct objects *o)
{
	pthread_mutex_lock(&o->lock);
	atomic_store(&o->cancelled, true);
	pthread_cond_broadcast(&o->cancel_cond);
	pthread_mutex_unlock(&o->lock);
	if (o->ops->cancel)
		o->ops->cancel(o->ctx);
}

static bool may_pass(int err)
{
	switch (err) {
	case 0:
	case -ENOENT:
	case -EEXIST:
	case -EACCES:
	case -ENOSPC:
	case -EINVAL:
	case -ECANCELED:
		return false;
	default:
		return true;
	}
}

/* Waits before attempt number `attempt` (from 1 on); false: cancelled. */
static bool wait_for_turn(struct objects *o, unsigned attempt)
{
	uint64_t ms = o->retry.first_ms;
	uint32_t random;
	struct timespec t;
	bool go_on;

	for (unsigned i = 1; i < attempt && ms < o->retry.max_ms; i++)
		ms *= 2;
	ms = MIN_OF(ms, (uint64_t)o->retry.max_ms);
	random_bytes(&random, sizeof(random));
	ms = ms / 2 + random % (ms / 2 + 1); /* spread, so that callers that failed together do not come back together */
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += (time_t)(ms / 1000);
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	pthread_mutex_lock(&o->lock);
	while (!o->cancelled && pthread_cond_timedwait(&o->cancel_cond, &o->lock, &t) == 0)
		;
	go_on = !o->cancelled;
	pthread_mutex_unlock(&o->lock);
	return go_on;
}

/* After an attempt: whether there is to be another. *attempt counts them; *err is the last one's. */
static bool again(struct objects *o, unsigned *attempt, int *err, struct error *e)
{
	if (objects_cancelled(o) && *err) {
		*err = -ECANCELED;
		return false;
	}
	if (!may_pass(*err))
		return false;
	if (++*attempt >= o->retry.attempts) {
		o->count.failures++;
		return false;
	}
	o->count.retries++;
	if (!wait_for_turn(o, *attempt)) {
		*err = -ECANCELED;
		return false;
	}
	error_clear(e);
	return true;
}

static int cancelled_error(struct objects *o, const char *key, struct error *e)
{
	if (!objects_cancelled(o))
		return 0;
	error_set(e, "Cancelled", "%s: stopped", key);
	return -ECANCELED;
}

int objects_put(struct objects *o, const char *key, const void *data, size_t len, bool only_if_absent, struct error *e)
{
	struct error why = { 0 };
	unsigned attempt = 0;
	int err = cancelled_error(o, key, e);

	if (err)
		return err;
	do {
		o->count.puts++;
		err = o->ops->put(o->ctx, key, data, len, only_if_absent, &why);
		if (err == -EEXIST && attempt > 0) { /* perhaps our own, whose answer was lost */
			_cleanup_(buf_done) struct buf there = BUF_INIT;

			err = o->ops->get(o->ctx, key, 0, len + 1, &there, &why);
			if (err == 0 && (there.len != len || memcmp(there.data, data, len) != 0))
				err = -EEXIST;
		}
	} while (again(o, &attempt, &err, &why));
	if (err == 0)
		o->count.bytes_sent += len;
	else if (e && !error_is_set(e))
		*e = why;
	return err;
}

int objects_get(struct objects *o, const char *key, uint64_t off, uint64_t len, struct buf *out, struct error *e)
{
	struct error why = { 0 };
	unsigned attempt = 0;
	size_t before = out->len;
	int err = cancelled_error(o, key, e);

	if (err)
		return err;
	do {
		o->count.gets++;
		out->len = before; /* what a broken attempt brought */
		err = o->ops->get(o->ctx, key, off, len, out, &why);
	} while (again(o, &attempt, &err, &why));
	if (err == 0)
		o->count.bytes_received += out->len - before;
	else {
		out->len = before;
		if (e && !error_is_set(e))
			*e = why;
	}
	return err;
}

int objects_remove(struct objects *o, const char *key, struct error *e)
{
	struct error why = { 0 };
	unsigned attempt = 0;
	int err = cancelled_error(o, key, e);

	if (err)
		return err;
	do {
		o->count.removes++;
		err = o->ops->remove(o->ctx, key, &why);
		if (err == -ENOENT)
			err = 0;
	} while (again(o, &attempt, &err, &why));
	if (err && e && !error_is_set(e))
		*e = why;
	return err;
}

static int list_page(struct objects *o, const char *prefix, const char *after, struct object_entry *page, unsigned *ret_count,
		     struct error *e)
{
	struct error why = { 0 };
	unsigned attempt = 0;
	int err = cancelled_error(o, prefix, e);

	if (err)
		return err;
	do {
		o->count.lists++;
		err = o->ops->list(o->ctx, prefix, after, page, LIST_PAGE, ret_count, &why);
	} while (again(o, &attempt, &err, &why));
	if (err && e && !error_is_set(e))
		*e = why;
	return err;
}

int objects_list(struct objects *o, const char *prefix, objects_fn *fn, void *ctx, struct error *e)
{
	_cleanup_(freep) struct object_entry *page = calloc(LIST_PAGE, sizeof(*page));
	char after[OBJECT_KEY_MAX] = "";
	unsigned count = LIST_PAGE;

	if (!page)
		abort();
	while (count == LIST_PAGE) {
		int err = list_page(o, prefix, after, page, &count, e);

		for (unsigned i = 0; !err && i < count; i++)
			err = fn(ctx, &page[i]);
		if (err)
			return err;
		if (count)
			memcpy(after, page[count - 1].key, sizeof(after));
	}
	return 0;
}
