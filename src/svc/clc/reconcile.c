/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/text.h"
#include "svc/clc/clc_priv.h"
#include "svc/clc/notice.h"
#include "svc/clc/reconcile.h"

enum {
	TICK_MS = 1000,	    /* between passes when nothing wakes the applier, and after a failure */
	POLL_WAIT_MS = 2000 /* how long a question stays open: also what a stop may take */
};

/* What the two sides do differently. The parts are made and freed by their own thread. */
struct side_ops {
	const char *cannot_tell, *cannot_ask, *answers_again;
	void *(*applier_new)(struct clc *c);
	void (*applier_free)(void *applier);
	int (*applier_pass)(void *applier, struct error *e);
	void (*applier_note_epoch)(void *applier, const char *epoch);
	void (*applier_forget)(void *applier, const char *id);
	void *(*observer_new)(struct clc *c);
	void (*observer_free)(void *observer);
	int (*observer_pass)(void *observer, struct arena *arena, int wait_ms,
			     struct observer_findings *ret, struct error *e);
};

struct side {
	struct reconciler *owner;
	const struct side_ops *ops;
	pthread_t applier_thread, observer_thread;
	bool applier_runs, observer_runs;
	/* The rest is guarded by the owner's lock. */
	pthread_cond_t changed;
	bool wake;
	char *epoch;  /* the observer's last, until the applier has taken it */
	char **ended; /* ids for applier_forget, until it has taken them */
	size_t ended_count;
};

struct reconciler {
	struct clc *clc;
	pthread_mutex_t lock; /* never held over a call */
	bool stop;
	struct side sides[RECONCILE_SIDES];
};

/* ---- the sides ---- */

static void *cluster_applier_new(struct clc *c)
{
	return applier_new(c);
}

static void cluster_applier_free(void *a)
{
	applier_free(a);
}

static int cluster_applier_pass(void *a, struct error *e)
{
	return applier_pass(a, e);
}

static void cluster_applier_note_epoch(void *a, const char *epoch)
{
	applier_note_epoch(a, epoch);
}

static void cluster_applier_forget(void *a, const char *id)
{
	applier_forget(a, id);
}

static void *cluster_observer_new(struct clc *c)
{
	return observer_new(c);
}

static void cluster_observer_free(void *o)
{
	observer_free(o);
}

static int cluster_observer_pass(void *o, struct arena *arena, int wait_ms,
				 struct observer_findings *ret, struct error *e)
{
	return observer_pass(o, arena, wait_ms, ret, e);
}

static void *sc_applier_new(struct clc *c)
{
	return storage_applier_new(c);
}

static void sc_applier_free(void *a)
{
	storage_applier_free(a);
}

static int sc_applier_pass(void *a, struct error *e)
{
	return storage_applier_pass(a, e);
}

static void sc_applier_note_epoch(void *a, const char *epoch)
{
	storage_applier_note_epoch(a, epoch);
}

static void sc_applier_forget(void *a, const char *id)
{
	storage_applier_forget(a, id);
}

static void *sc_observer_new(struct clc *c)
{
	return storage_observer_new(c);
}

static void sc_observer_free(void *o)
{
	storage_observer_free(o);
}

static int sc_observer_pass(void *o, struct arena *arena, int wait_ms,
			    struct observer_findings *ret, struct error *e)
{
	return storage_observer_pass(o, arena, wait_ms, ret, e);
}

static const struct side_ops side_ops[RECONCILE_SIDES] = {
    [RECONCILE_CLUSTER] =
	{
	    .cannot_tell = "cannot tell the cluster controller",
	    .cannot_ask = "cannot ask the cluster controller",
	    .answers_again = "the cluster controller answers again",
	    .applier_new = cluster_applier_new,
	    .applier_free = cluster_applier_free,
	    .applier_pass = cluster_applier_pass,
	    .applier_note_epoch = cluster_applier_note_epoch,
	    .applier_forget = cluster_applier_forget,
	    .observer_new = cluster_observer_new,
	    .observer_free = cluster_observer_free,
	    .observer_pass = cluster_observer_pass,
	},
    [RECONCILE_STORAGE] =
	{
	    .cannot_tell = "cannot tell the storage controller",
	    .cannot_ask = "cannot ask the storage controller",
	    .answers_again = "the storage controller answers again",
	    .applier_new = sc_applier_new,
	    .applier_free = sc_applier_free,
	    .applier_pass = sc_applier_pass,
	    .applier_note_epoch = sc_applier_note_epoch,
	    .applier_forget = sc_applier_forget,
	    .observer_new = sc_observer_new,
	    .observer_free = sc_observer_free,
	    .observer_pass = sc_observer_pass,
	},
};

/* ---- the threads ---- */

/* Sleep until woken, stopped or the tick. */
static bool wait_tick(struct side *s, bool observer)
{
	struct reconciler *r = s->owner;
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += TICK_MS / 1000;
	pthread_mutex_lock(&r->lock);
	while (!r->stop && (observer || !s->wake))
		if (pthread_cond_timedwait(&s->changed, &r->lock, &until) != 0)
			break;
	if (!observer)
		s->wake = false;
	bool go_on = !r->stop;
	pthread_mutex_unlock(&r->lock);
	return go_on;
}

static bool stopping(struct reconciler *r)
{
	pthread_mutex_lock(&r->lock);
	bool stop = r->stop;
	pthread_mutex_unlock(&r->lock);
	return stop;
}

static void hand_over(struct side *s, void *applier)
{
	pthread_mutex_lock(&s->owner->lock);
	char *epoch = TAKE_PTR(s->epoch);
	char **ended = TAKE_PTR(s->ended);
	size_t count = s->ended_count;
	s->ended_count = 0;
	pthread_mutex_unlock(&s->owner->lock);
	s->ops->applier_note_epoch(applier, epoch);
	for (size_t i = 0; i < count; i++) {
		s->ops->applier_forget(applier, ended[i]);
		free(ended[i]);
	}
	free(ended);
	free(epoch);
}

/* One line when it stops working and one when it works again. */
static void note_result(const struct side *s, int result, const struct error *e, const char *what,
			bool *failing)
{
	if (result < 0 && !*failing)
		log_warn(what, "code=%s err=%s", log_quote(e->code), log_quote(e->message));
	else if (result >= 0 && *failing)
		log_info(s->ops->answers_again, NULL);
	*failing = result < 0;
}

static void *applier_main(void *ctx)
{
	struct side *s = ctx;
	void *a = s->ops->applier_new(s->owner->clc);
	bool failing = false;

	do {
		struct error e = {0};

		hand_over(s, a);
		note_result(s, s->ops->applier_pass(a, &e), &e, s->ops->cannot_tell, &failing);
	} while (wait_tick(s, false));
	s->ops->applier_free(a);
	return NULL;
}

static char *must_strdup(const char *s)
{
	char *copy = strdup(s);

	if (!copy)
		abort();
	return copy;
}

static void report(struct side *s, const struct observer_findings *f)
{
	pthread_mutex_lock(&s->owner->lock);
	free(s->epoch);
	s->epoch = must_strdup(f->epoch);
	if (f->ended_count) {
		s->ended = realloc(s->ended, (s->ended_count + f->ended_count) * sizeof(char *));
		if (!s->ended)
			abort();
		for (size_t i = 0; i < f->ended_count; i++)
			s->ended[s->ended_count++] = must_strdup(f->ended[i]);
	}
	pthread_mutex_unlock(&s->owner->lock);
}

/* Who has to know of what an observer wrote. */
static void tell(struct side *s, const struct observer_findings *f)
{
	struct reconciler *r = s->owner;
	enum reconcile_side this = (enum reconcile_side)(s - r->sides);

	if (f->changed || f->ended_count)
		reconciler_wake(r, this);
	if (f->other_side)
		reconciler_wake(r, this == RECONCILE_CLUSTER ? RECONCILE_STORAGE
							     : RECONCILE_CLUSTER);
	if (f->changed && this == RECONCILE_STORAGE)
		notice_post(r->clc->storage_notice);
	if (f->snapshots)
		image_worker_wake(r->clc->image_worker);
}

static void *observer_main(void *ctx)
{
	struct side *s = ctx;
	void *o = s->ops->observer_new(s->owner->clc);
	bool failing = false, go_on = true;

	while (go_on) {
		_cleanup_(arena_freep) struct arena *arena = arena_new();
		struct observer_findings found = {0};
		struct error e = {0};
		int n = s->ops->observer_pass(o, arena, POLL_WAIT_MS, &found, &e);

		note_result(s, n, &e, s->ops->cannot_ask, &failing);
		if (n >= 0) {
			report(s, &found);
			tell(s, &found);
		}
		go_on = n >= 0 ? !stopping(s->owner) : wait_tick(s, true);
	}
	s->ops->observer_free(o);
	return NULL;
}

void reconciler_wake(struct reconciler *r, enum reconcile_side side)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->sides[side].wake = true;
	pthread_cond_broadcast(&r->sides[side].changed);
	pthread_mutex_unlock(&r->lock);
}

/* ---- from new to free ---- */

struct reconciler *reconciler_new(struct clc *c)
{
	struct reconciler *r = calloc(1, sizeof(*r));
	pthread_condattr_t attr;

	if (!r)
		abort();
	r->clc = c;
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	for (int i = 0; i < RECONCILE_SIDES; i++) {
		r->sides[i].owner = r;
		r->sides[i].ops = &side_ops[i];
		pthread_cond_init(&r->sides[i].changed, &attr);
	}
	pthread_condattr_destroy(&attr);
	return r;
}

int reconciler_start(struct reconciler *r, struct error *e)
{
	for (int i = 0; i < RECONCILE_SIDES; i++) {
		struct side *s = &r->sides[i];
		int n = pthread_create(&s->applier_thread, NULL, applier_main, s);

		s->applier_runs = n == 0;
		if (n == 0) {
			n = pthread_create(&s->observer_thread, NULL, observer_main, s);
			s->observer_runs = n == 0;
		}
		if (n != 0)
			return error_errno(e, n, "cannot start the reconciler");
	}
	return 0;
}

void reconciler_stop(struct reconciler *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	for (int i = 0; i < RECONCILE_SIDES; i++)
		pthread_cond_broadcast(&r->sides[i].changed);
	pthread_mutex_unlock(&r->lock);
	for (int i = 0; i < RECONCILE_SIDES; i++) {
		struct side *s = &r->sides[i];

		if (s->applier_runs)
			pthread_join(s->applier_thread, NULL);
		if (s->observer_runs)
			pthread_join(s->observer_thread, NULL);
		s->applier_runs = s->observer_runs = false;
	}
}

static void side_done(struct side *s)
{
	for (size_t i = 0; i < s->ended_count; i++)
		free(s->ended[i]);
	free(s->ended);
	free(s->epoch);
	pthread_cond_destroy(&s->changed);
}

void reconciler_free(struct reconciler *r)
{
	if (!r)
		return;
	for (int i = 0; i < RECONCILE_SIDES; i++)
		side_done(&r->sides[i]);
	pthread_mutex_destroy(&r->lock);
	free(r);
}
