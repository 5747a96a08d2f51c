/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One view at a time. It begins between two ticks of the clock: what was complete before the first is in it, what was submitted
 * after the second is not. A view that is given up with commit=on becomes the base: its stamps stay in shared memory, by name, so that
 * the next one's map of changes can be held against them, also in a process after a kill or a loss of power.
 */
#include "snapshots.h"

#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/macros.h"

#define READ_SECTORS 512u
#define EXTENTS 64u

struct kept_base {
	char name[32];
	uint64_t stamp[];
};

/* In shared memory: kept over processes. */
struct snapshots {
	unsigned names;
	struct kept_base *base[2];
	unsigned newest;
};

/* The process's own. */
struct open_view {
	char name[32], base[32];
	struct blk_layer *layer;
	struct history_view when;
	bool may_fail;          /* its scratch is short */
	uint64_t *stamps;
	uint8_t *data;
};

static struct snapshots *shared_of(struct harness *h)
{
	size_t bytes = sizeof(struct kept_base) + h->model->sectors * sizeof(uint64_t);

	if (!h->snapshots) /* harness_new() left the room */
		die("no room for snapshots");
	if (!h->snapshots->base[0]) {
		h->snapshots->base[0] = (struct kept_base *)(h->snapshots + 1);
		h->snapshots->base[1] = (struct kept_base *)((char *)(h->snapshots + 1) + (bytes + 63) / 64 * 64);
	}
	return h->snapshots;
}

size_t snapshots_bytes(uint64_t sectors)
{
	return sizeof(struct snapshots) + 2 * (sizeof(struct kept_base) + sectors * sizeof(uint64_t) + 64);
}

static bool command(struct load *l, const char *verb, const char *args, char *answer, size_t max)
{
	struct error e = { 0 };
	struct buf out = BUF_INIT;
	int err = blk_stack_command(l->stack, "snap", verb, args, &out, &e);

	if (err && !l->world->fail_permille)
		die("snap %s %s: %s", verb, args, e.message);
	if (answer)
		snprintf(answer, max, "%s", out.data ? out.data : "");
	buf_done(&out);
	error_clear(&e);
	return !err;
}

/* ---- reading a view, on queue 0 ---- */

struct view_call {
	struct blk_layer *layer;
	struct blk_req req;
	struct iovec iov;
	sem_t ended;
	struct blk_extent extent[EXTENTS];
	int count;
};

static void call_ended(struct blk_req *r)
{
	sem_post(&((struct view_call *)r->ctx)->ended);
}

static void submit_read(void *ctx)
{
	struct view_call *c = ctx;

	blk_submit(c->layer, &c->req);
}

static int read_view(struct load *l, struct open_view *v, uint64_t sector, uint64_t sectors)
{
	struct view_call c = { .layer = v->layer, .iov = { v->data, sectors * SECTOR } };

	c.req = (struct blk_req){ .op = BLK_READ, .off_bytes = sector * SECTOR, .len_bytes = sectors * SECTOR, .iov = &c.iov, .iov_count = 1,
				  .queue = blk_stack_queue(l->stack, 0), .done = call_ended, .ctx = &c };
	sem_init(&c.ended, 0, 0);
	blk_queue_call(c.req.queue, submit_read, &c);
	while (sem_wait(&c.ended))
		;
	sem_destroy(&c.ended);
	return c.req.result;
}

static bool check_view(struct load *l, struct open_view *v, uint64_t sector, uint64_t sectors)
{
	uint64_t now[READ_SECTORS];
	int err = read_view(l, v, sector, sectors);

	if (err && !v->may_fail && !l->world->fail_permille)
		die("reading view %s: %s", v->name, strerror(-err));
	if (err)
		return false;
	model_check(l->model, &v->when, sector, sectors, v->data, now, "a view");
	for (uint64_t s = 0; s < sectors; s++) {
		uint64_t before = v->stamps[sector + s];
		if (before != STAMP_BAD && before != STAMP_ANY && now[s] != STAMP_ANY && before != now[s])
			die("sector %llu of view %s was %llu and is %llu", (unsigned long long)(sector + s), v->name, (unsigned long long)before,
			    (unsigned long long)now[s]);
		v->stamps[sector + s] = now[s];
	}
	return true;
}

/* ---- the map of changes ---- */

static void ask_extents(void *ctx)
{
	struct view_call *c = ctx;

	c->count = c->layer->ops->extents(c->layer, BLK_MAP_CHANGED, c->req.off_bytes, c->req.len_bytes, c->extent, EXTENTS);
}

static void check_same(struct harness *h, struct open_view *v, const uint64_t *base, uint64_t sector, uint64_t sectors)
{
	for (uint64_t s = sector; s < sector + sectors; s++) {
		if (base[s] != v->stamps[s] && base[s] != STAMP_ANY && v->stamps[s] != STAMP_ANY)
			die("sector %llu is %llu in view %s and %llu in its base %s, and is not in the map of changes", (unsigned long long)s,
			    (unsigned long long)v->stamps[s], v->name, (unsigned long long)base[s], v->base);
	}
	h->results[RESULT_UNCHANGED] += sectors;
}

static void check_changes(struct load *l, struct open_view *v, const uint64_t *base)
{
	uint64_t size = l->model->sectors * SECTOR;

	for (uint64_t at = 0; at < size;) {
		struct view_call c = { .layer = v->layer, .req = { .off_bytes = at, .len_bytes = size - at } };
		blk_queue_call(blk_stack_queue(l->stack, 0), ask_extents, &c);
		if (c.count <= 0)
			die("no extents of view %s: %s", v->name, strerror(-c.count));
		for (int i = 0; i < c.count; i++) {
			uint64_t len = c.extent[i].len_bytes;
			if (!len || len % SECTOR || len > size - at)
				die("an extent of %llu bytes at %llu", (unsigned long long)len, (unsigned long long)at);
			if (c.extent[i].kind != BLK_EXTENT_DATA)
				check_same(l->ctx, v, base, at / SECTOR, len / SECTOR);
			at += len;
		}
	}
}

/* ---- begin, end ---- */

static void begin(struct load *l, uint64_t *random)
{
	struct harness *h = l->ctx;
	struct snapshots *s = shared_of(h);
	struct open_view *v = calloc(1, sizeof(*v));
	char args[512], path[256], status[4096], *at;
	struct error e = { 0 };

	snprintf(path, sizeof(path), "%s/scratch", h->dir);
	unlink(path);
	v->may_fail = random_below(random, 4) == 0;
	snprintf(v->name, sizeof(v->name), "s%u", s->names++);
	snprintf(args, sizeof(args), "name=%s,scratch=%s,scratch-size=%s", v->name, path, v->may_fail ? "256k" : "16M");
	v->when = (struct history_view){ .mode = VIEW_READ, .read_start = history_tick(&l->model->history) };
	bool ok = command(l, "begin", args, NULL, 0);
	v->when.at = history_tick(&l->model->history);
	if (!ok || !command(l, "status", "", status, sizeof(status))) {
		free(v);
		return;
	}
	at = strstr(status, "\"base\":\"");
	if (!at || sscanf(at, "\"base\":\"%31[^\"]\"", v->base) != 1)
		v->base[0] = '\0';
	struct blk_layer *snap = blk_stack_layer(l->stack, "snap");
	v->layer = snap->ops->view(snap, v->name, &e);
	if (!v->layer)
		die("view %s cannot be had: %s", v->name, e.message);
	v->stamps = malloc(l->model->sectors * sizeof(*v->stamps));
	for (uint64_t i = 0; i < l->model->sectors; i++)
		v->stamps[i] = STAMP_BAD; /* not read yet */
	v->data = aligned_alloc(4096, READ_SECTORS * SECTOR);
	h->view = v;
	h->results[RESULT_VIEWS]++;
}

static bool read_all(struct load *l, struct open_view *v)
{
	bool whole = true;

	for (uint64_t s = 0; s < l->model->sectors && whole; s += READ_SECTORS)
		whole = check_view(l, v, s, MIN_OF(READ_SECTORS, l->model->sectors - s));
	return whole;
}

static void end(struct load *l, bool commit)
{
	struct harness *h = l->ctx;
	struct snapshots *s = shared_of(h);
	struct open_view *v = TAKE_PTR(h->view);
	struct blk_layer *snap = blk_stack_layer(l->stack, "snap");
	bool whole = commit && read_all(l, v);
	char args[128];

	for (unsigned i = 0; i < 2 && whole; i++) {
		if (v->base[0] && strcmp(s->base[i]->name, v->base) == 0)
			check_changes(l, v, s->base[i]->stamp);
	}
	h->results[RESULT_COMMITTED] += whole;
	if (whole) { /* from before the commit on it may be the base */
		s->newest ^= 1;
		memcpy(s->base[s->newest]->stamp, v->stamps, l->model->sectors * sizeof(*v->stamps));
		memcpy(s->base[s->newest]->name, v->name, sizeof(v->name));
	}
	snap->ops->view_release(snap, v->layer);
	snprintf(args, sizeof(args), "name=%s,commit=%s", v->name, whole ? "on" : "off");
	command(l, "end", args, NULL, 0);
	free(v->stamps);
	free(v->data);
	free(v);
}

void snapshots_meanwhile(struct load *l, uint64_t *random)
{
	struct harness *h = l->ctx;
	uint64_t what = random_below(random, 10);

	if (!h->view && what < 5) {
		begin(l, random);
	} else if (h->view && what < 2) {
		end(l, true);
	} else if (h->view && what < 3) {
		end(l, false);
	} else if (h->view && what < 8) {
		uint64_t sector = random_below(random, l->model->sectors - 64);
		check_view(l, h->view, sector, 1 + random_below(random, 64));
	}
}

void snapshots_finish(struct load *l)
{
	if (((struct harness *)l->ctx)->view)
		end(l, true);
}
