/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/blockd.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "block/drivers.h"
#include "cmd/blockd_sandbox.h"
#include "os/locked.h"
#include "os/loop.h"
#include "os/privs.h"

struct blockd {
	const struct blockd_settings *settings;
	struct loop *loop;
	struct blk_stack *stack;
	struct blk_front front[BLOCKD_FRONTS_MAX], *opened[BLOCKD_FRONTS_MAX];
	unsigned fronts;
	struct blockd_control *control;
};

static void on_stop(void *ctx, int signo)
{
	log_info("stopping", "signal=%d", signo);
	loop_stop(ctx);
}

static void say(void *ctx, bool is_error, const char *text)
{
	log_write(is_error ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, text, NULL);
}

static int open_fronts(struct blockd *b, struct error *e)
{
	for (; b->settings->fronts[b->fronts]; b->fronts++) {
		struct blk_front *f = &b->front[b->fronts];
		*f = (struct blk_front){ .stack = b->stack, .loop = b->loop, .say = say };
		int err = blk_front_open(blk_fronts, b->settings->fronts[b->fronts], f, e);
		if (err)
			return err;
		b->opened[b->fronts] = f;
	}
	return 0;
}

/* A root without --user keeps what set-up takes; then all threads give up all but serving. */
static int bound(const struct blockd_settings *s, struct error *e)
{
	bool has_fuse = false;

	for (unsigned i = 0; s->fronts[i]; i++)
		has_fuse |= strncmp(s->fronts[i], "fuse", 4) == 0;
	return blockd_sandbox_bound(has_fuse, e);
}

static int enter_sandbox(struct blockd *b, struct error *e)
{
	unsigned needs = blk_stack_needs(b->stack);

	for (unsigned i = 0; i < b->fronts; i++)
		needs |= b->front[i].needs;
	if (needs & BLK_NEEDS_UNMOUNT && geteuid())
		return error_set(e, "InvalidOption", "a mount that is not root's takes a program to undo, which a sandbox forbids: give --sandbox off");
	blk_stack_ready_io(b->stack);
	return blockd_sandbox_enter(needs, e);
}

static bool has_key(const struct blockd_settings *s)
{
	for (unsigned i = 0; s->filters[i]; i++) {
		if (strncmp(s->filters[i], "crypt:", strlen("crypt:")) == 0)
			return true;
	}
	return false;
}

static int begin(struct blockd *b, struct error *e)
{
	const struct blockd_settings *s = b->settings;
	struct blk_stack_settings stack = { s->drivers, s->back, s->filters, s->queues, s->engine };
	int err = 0;

	if (s->has_user)
		err = privs_drop(s->uid, s->gid, 0, e);
	else if (s->sandbox)
		err = bound(s, e);
	if (has_key(s))
		process_seal(); /* after privs_drop(): a change of user sets this anew */
	if (!err && (err = loop_new(&b->loop)))
		error_errno(e, err, "making the event loop");
	/* Blocked before the first thread, for the loop to deliver. */
	if (!err && ((err = loop_add_signal(b->loop, SIGTERM, on_stop, b->loop)) ||
		     (err = loop_add_signal(b->loop, SIGINT, on_stop, b->loop))))
		error_errno(e, err, "watching for signals");
	if (!err)
		err = blk_stack_open(&stack, &b->stack, e);
	if (!err)
		err = blk_stack_start(b->stack, e);
	if (!err)
		err = open_fronts(b, e);
	if (!err && s->control)
		err = blockd_control_open(s->control, s->name, s->started_by, b->stack, b->opened, b->fronts, &b->control, e);
	if (!err && s->sandbox)
		err = enter_sandbox(b, e);
	return err;
}

static int end(struct blockd *b, struct error *e)
{
	int err = 0;

	blockd_control_close(b->control);
	while (b->fronts)
		blk_front_close(&b->front[--b->fronts]);
	if (b->stack)
		err = blk_stack_close(b->stack, e);
	loop_free(b->loop);
	return err;
}

int blockd_run(const struct blockd_settings *s)
{
	struct blockd b = { .settings = s };
	struct error e = { 0 };
	int err = begin(&b, &e);

	if (!err) {
		log_info("serving", "name=%s size_bytes=%llu io=%s queues=%u", *s->name ? s->name : "-",
			 (unsigned long long)blk_stack_info(b.stack)->size_bytes,
			 blk_queue_engine(blk_stack_queue(b.stack, 0)) == BLK_IO_URING ? "uring" : "threads", s->queues);
		err = loop_run(b.loop);
	}
	if (err)
		log_error("cannot serve", "err=%s", log_quote(error_is_set(&e) ? e.message : strerror(-err)));
	error_clear(&e);
	int closed = end(&b, &e);
	if (closed)
		log_error("the volume was not closed cleanly", "err=%s", log_quote(e.message));
	else if (!err)
		log_info("stopped", NULL);
	return err || closed ? 1 : 0;
}
