/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/text.h"
#include "svc/clc/clc_priv.h"
#include "svc/clc/reconcile.h"

enum {
	TICK_MS = 1000,	    /* between passes when nothing wakes the applier, and after a failure */
	POLL_WAIT_MS = 2000 /* how long a question stays open: also what a stop may take */
};

struct reconciler {
	struct clc *clc;
	pthread_t applier_thread, observer_thread;
	bool applier_runs, observer_runs;
	pthread_mutex_t lock; /* guards what follows; never held over a call */
	pthread_cond_t changed;
	bool stop, wake;
	char *epoch;  /* the observer's last, until the applier has taken it */
	char **ended; /* ids for applier_forget, until it has taken them */
	size_t ended_count;
};

/* Sleep until woken, stopped or the tick. */
static bool wait_tick(struct reconciler *r, bool observer)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += TICK_MS / 1000;
	pthread_mutex_lock(&r->lock);
	while (!r->stop && (observer || !r->wake))
		if (pthread_cond_timedwait(&r->changed, &r->lock, &until) != 0)
			break;
	if (!observer)
		r->wake = false;
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

static void hand_over(struct reconciler *r, struct applier *a)
{
	pthread_mutex_lock(&r->lock);
	char *epoch = TAKE_PTR(r->epoch);
	char **ended = TAKE_PTR(r->ended);
	size_t count = r->ended_count;
	r->ended_count = 0;
	pthread_mutex_unlock(&r->lock);
	applier_note_epoch(a, epoch);
	for (size_t i = 0; i < count; i++) {
		applier_forget(a, ended[i]);
		free(ended[i]);
	}
	free(ended);
	free(epoch);
}

/* One line when it stops working and one when it works again. */
static void note_result(int result, const struct error *e, const char *what, bool *failing)
{
	if (result < 0 && !*failing)
		log_warn(what, "code=%s err=%s", log_quote(e->code), log_quote(e->message));
	else if (result >= 0 && *failing)
		log_info("the cluster controller answers again", NULL);
	*failing = result < 0;
}

static void *applier_main(void *ctx)
{
	struct reconciler *r = ctx;
	struct applier *a = applier_new(r->clc);
	bool failing = false;

	do {
		struct error e = {0};

		hand_over(r, a);
		note_result(applier_pass(a, &e), &e, "cannot tell the cluster controller",
			    &failing);
	} while (wait_tick(r, false));
	applier_free(a);
	return NULL;
}

static char *must_strdup(const char *s)
{
	char *copy = strdup(s);

	if (!copy)
		abort();
	return copy;
}

static void report(struct reconciler *r, const struct observer_findings *f)
{
	pthread_mutex_lock(&r->lock);
	free(r->epoch);
	r->epoch = must_strdup(f->epoch);
	if (f->ended_count) {
		r->ended = realloc(r->ended, (r->ended_count + f->ended_count) * sizeof(char *));
		if (!r->ended)
			abort();
		for (size_t i = 0; i < f->ended_count; i++)
			r->ended[r->ended_count++] = must_strdup(f->ended[i]);
	}
	if (f->changed || f->ended_count) {
		r->wake = true;
		pthread_cond_broadcast(&r->changed);
	}
	pthread_mutex_unlock(&r->lock);
}

static void *observer_main(void *ctx)
{
	struct reconciler *r = ctx;
	struct observer *o = observer_new(r->clc);
	bool failing = false, go_on = true;

	while (go_on) {
		_cleanup_(arena_freep) struct arena *arena = arena_new();
		struct observer_findings found;
		struct error e = {0};
		int n = observer_pass(o, arena, POLL_WAIT_MS, &found, &e);

		note_result(n, &e, "cannot ask the cluster controller", &failing);
		if (n >= 0)
			report(r, &found);
		go_on = n >= 0 ? !stopping(r) : wait_tick(r, true);
	}
	observer_free(o);
	return NULL;
}

void reconciler_wake(struct reconciler *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->wake = true;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

int reconciler_start(struct clc *c, struct reconciler **ret, struct error *e)
{
	struct reconciler *r = calloc(1, sizeof(*r));
	pthread_condattr_t attr;
	int n;

	if (!r)
		abort();
	r->clc = c;
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->changed, &attr);
	pthread_condattr_destroy(&attr);
	n = pthread_create(&r->applier_thread, NULL, applier_main, r);
	r->applier_runs = n == 0;
	if (n == 0) {
		n = pthread_create(&r->observer_thread, NULL, observer_main, r);
		r->observer_runs = n == 0;
	}
	if (n != 0) {
		reconciler_stop(r);
		return error_errno(e, n, "cannot start the reconciler");
	}
	*ret = r;
	return 0;
}

void reconciler_stop(struct reconciler *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	if (r->applier_runs)
		pthread_join(r->applier_thread, NULL);
	if (r->observer_runs)
		pthread_join(r->observer_thread, NULL);
	for (size_t i = 0; i < r->ended_count; i++)
		free(r->ended[i]);
	free(r->ended);
	free(r->epoch);
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
	free(r);
}
