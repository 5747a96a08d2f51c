/* SPDX-License-Identifier: Apache-2.0 */
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/text.h"
#include "svc/clc/images.h"
#include "wire/http_client.h"

/*
 * The image worker: two threads, so that no guest is kept off for an image's snapshots while a long object is read.
 *
 * One reads the object behind each pending image of the instance-store kind once, to learn its
 * length and SHA-256 (which nodes check what they fetch against), and makes the image available, or
 * failed with a reason. What can't be told now (Walrus does not answer) stays pending and is tried
 * again. It also forgets deregistered images that no live instance was made from. The other takes pending images of snapshots
 * through what is still to be done for them (create_image.c).
 *
 * Level-triggered: they look at the records and not at events, so a wake-up may be lost or come too
 * often.
 */
enum {
	RETRY_MS = 5000,    /* between looks, while an image is pending and Walrus does not answer */
	STEP_MS = 1000,	    /* while snapshots are made */
	IDLE_MS = 300000,   /* and otherwise, for what is to be forgotten */
	HEAD_BYTES = 16,    /* enough to tell formats that are not raw */
};

struct image_worker;
struct lane {
	struct image_worker *worker;
	bool (*look)(struct image_worker *w); /* true when to look again soon */
	int again_ms;
	pthread_t thread;
	bool started;
	bool wake; /* under the worker's lock */
};

struct image_worker {
	struct clc *clc;
	struct http_client *http;
	pthread_mutex_t lock; /* for stop and wake; never held over work */
	pthread_cond_t cond;
	bool stop;
	struct lane objects, snapshots;
};

/* What is learnt of an object while it streams by. */
struct image_reading {
	gnutls_hash_hd_t hash;
	uint64_t size_bytes;
	unsigned char head[HEAD_BYTES];
	const struct image_worker *worker;
};

static bool stopping(const struct image_worker *w)
{
	return __atomic_load_n(&w->stop, __ATOMIC_RELAXED);
}

static int take_data(void *ctx, const void *data, size_t len)
{
	struct image_reading *r = ctx;

	if (r->size_bytes < HEAD_BYTES)
		memcpy(r->head + r->size_bytes, data,
		       MIN_OF(len, HEAD_BYTES - (size_t)r->size_bytes));
	r->size_bytes += len;
	return gnutls_hash(r->hash, data, len) < 0 || stopping(r->worker) ? -1 : 0;
}

static void set_failed(struct records_image *image, struct arena *a, const char *code,
		       const char *message)
{
	image->state = IMAGE_FAILED;
	image->state_reason_code = code;
	image->state_reason_message = arena_strdup(a, message);
}

/* A disk is whole sectors; some formats tell themselves apart by their first bytes. */
static const char *why_not_raw(const struct image_reading *r)
{
	static const struct {
		const char *magic;
		size_t len;
		const char *why;
	} formats[] = {
	    {"QFI\xfb", 4,
	     "The object is a qcow2 file: convert it to a raw disk image (`mallee image import` does)"},
	    {"KDMV", 4,
	     "The object is a VMDK file: convert it to a raw disk image (`mallee image import` does)"},
	    {"\x1f\x8b", 2, "The object is compressed by gzip: upload the raw disk image"},
	    {"\xfd"
	     "7zXZ",
	     5, "The object is compressed by xz: upload the raw disk image"},
	    {"\x28\xb5\x2f\xfd", 4, "The object is compressed by zstd: upload the raw disk image"},
	};

	if (r->size_bytes < 1024)
		return "The object is too short for a disk image";
	if (r->size_bytes % 512)
		return "The object is not a whole number of 512-byte sectors: it is no raw disk image";
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (memcmp(r->head, formats[i].magic, formats[i].len) == 0)
			return formats[i].why;
	return NULL;
}

static void settle(struct records_image *image, struct arena *a, struct image_reading *r,
		   unsigned char digest[static 32])
{
	const char *why = why_not_raw(r);
	char *hex;

	if (why) {
		set_failed(image, a, "Client.InvalidImage", why);
		return;
	}
	hex = arena_alloc(a, 65);
	hex_encode(digest, 32, hex);
	image->state = IMAGE_AVAILABLE;
	image->size_bytes = WIRE_INT_OF((int64_t)r->size_bytes);
	image->sha256 = hex;
}

/* 0 when the image's fate is known (in *image), negative to try again later. */
static int read_object(struct image_worker *w, struct arena *a, struct records_image *image,
		       struct error *e)
{
	struct image_reading reading = {.worker = w};
	unsigned char digest[32] = {0};
	struct http_exchange x = {
	    .method = "GET",
	    .timeout_ms = -1,
	    .max_reply_bytes = UINT64_MAX,
	    .on_data = take_data,
	    .on_data_ctx = &reading,
	};
	int r =
	    identity_presign(w->clc, a, image->account_id, image->image_location, 3600, &x.url, e);

	if (r < 0)
		return r;
	if (gnutls_hash_init(&reading.hash, GNUTLS_DIG_SHA256) < 0)
		return error_set(e, "InternalError", "No SHA-256 from GnuTLS");
	r = http_client_do(w->http, &x, e);
	gnutls_hash_deinit(reading.hash, digest);
	buf_done(&x.reply);
	if (r < 0)
		return r;
	if (x.status == 200)
		settle(image, a, &reading, digest);
	else if (x.status == 404)
		set_failed(image, a, "Client.ImageNotFound",
			   arena_printf(a, "There is no object %s", image->image_location));
	else if (x.status == 403)
		set_failed(image, a, "Client.ImageAccessDenied",
			   arena_printf(a, "The image's owner may not read the object %s",
					image->image_location));
	else
		return error_set(e, "ServiceUnavailable", "Walrus answered %d for %s", x.status,
				 image->image_location);
	return 0;
}

/* Under a transaction: only if nothing else changed the image meanwhile. */
static int record_fate(struct clc *c, struct arena *a, const struct records_image *fate,
		       struct error *e)
{
	struct records_image *now;
	struct record rec;
	int r = state_begin(c->state, e);

	if (r < 0)
		return r;
	r = record_get(c, a, KIND_IMAGE, fate->image_id, &rec, e);
	if (r == 0 && str_eq(((struct records_image *)rec.value)->state, IMAGE_PENDING)) {
		now = rec.value;
		now->state = fate->state;
		now->state_reason_code = fate->state_reason_code;
		now->state_reason_message = fate->state_reason_message;
		now->size_bytes = fate->size_bytes;
		now->sha256 = fate->sha256;
		r = image_put(c, now, e);
	}
	if (r < 0) {
		state_rollback(c->state);
		return r == -ENOENT ? 0 : r;
	}
	return state_commit(c->state, e);
}

static bool is_used(const struct record_list *instances, const char *image_id)
{
	for (size_t i = 0; i < instances->count; i++) {
		const struct records_instance *inst = instances->items[i].value;

		if (str_eq(inst->image_id, image_id) && !str_eq(inst->state, "terminated"))
			return true;
	}
	return false;
}

/* Forget deregistered images once no live instance needs them. */
static int forget_unused(struct clc *c, struct arena *a, const struct record_list *images,
			 struct error *e)
{
	struct record_list instances;
	bool loaded = false;
	int r = 0;

	for (size_t i = 0; r == 0 && i < images->count; i++) {
		const struct records_image *image = images->items[i].value;

		if (!str_eq(image->state, IMAGE_DEREGISTERED))
			continue;
		if (!loaded)
			r = record_list(c, a, KIND_INSTANCE, NULL, 0, &instances, e);
		loaded = true;
		if (r == 0 && !is_used(&instances, image->image_id))
			r = record_delete(c, KIND_IMAGE, image->image_id, e);
		if (r == -ENOENT)
			r = 0;
	}
	return r;
}

/* One look at all images; true when something pending has to be tried again soon. */
static bool look(struct image_worker *w)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct record_list images;
	struct error e = {0};
	bool again = false;
	int r = record_list(w->clc, a, KIND_IMAGE, NULL, 0, &images, &e);

	if (r == 0)
		r = forget_unused(w->clc, a, &images, &e);
	for (size_t i = 0; r == 0 && i < images.count && !stopping(w); i++) {
		struct records_image *image = images.items[i].value;

		if (!str_eq(image->state, IMAGE_PENDING) || image_is_ebs(image))
			continue;
		r = read_object(w, a, image, &e);
		if (r == 0)
			r = record_fate(w->clc, a, image, &e);
		if (r == 0) {
			log_info("image read", "id=%s state=%s", image->image_id, image->state);
		} else {
			log_warn("image is still pending, trying again", "id=%s err=%s",
				 image->image_id, log_quote(e.message));
			error_clear(&e);
			again = true;
			r = 0;
		}
	}
	if (r < 0)
		log_error("cannot look at the images, trying again", "err=%s",
			  log_quote(e.message));
	return again || r < 0;
}

/* All pending images of snapshots, as far as they can go now; true while there are any. */
static bool look_at_snapshots(struct image_worker *w)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct record_list images;
	struct error e = {0};
	bool again = false;
	int r = record_list(w->clc, a, KIND_IMAGE, NULL, 0, &images, &e);

	for (size_t i = 0; r == 0 && i < images.count && !stopping(w); i++) {
		const struct records_image *image = images.items[i].value;
		bool wait = !image_is_ebs(image) || !str_eq(image->state, IMAGE_PENDING);

		again = again || !wait;
		while (r == 0 && !wait)
			r = image_step(w->clc, image->image_id, &wait, &e);
		if (r < 0)
			log_warn("image is still pending, trying again", "id=%s err=%s",
				 image->image_id, log_quote(e.message));
		error_clear(&e);
		r = 0;
	}
	if (r < 0)
		log_error("cannot look at the images, trying again", "err=%s",
			  log_quote(e.message));
	return again || r < 0;
}

static void wait_for_work(struct lane *l, bool again)
{
	struct image_worker *w = l->worker;
	int ms = again ? l->again_ms : IDLE_MS;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&w->lock);
	while (!l->wake && !w->stop)
		if (pthread_cond_timedwait(&w->cond, &w->lock, &until) != 0)
			break;
	l->wake = false;
	pthread_mutex_unlock(&w->lock);
}

static void *lane_main(void *arg)
{
	struct lane *l = arg;

	while (!stopping(l->worker))
		wait_for_work(l, l->look(l->worker));
	return NULL;
}

static int lane_start(struct lane *l, struct error *e)
{
	int r = pthread_create(&l->thread, NULL, lane_main, l);

	if (r != 0)
		return error_errno(e, r, "Could not start the image worker");
	l->started = true;
	return 0;
}

int image_worker_start(struct clc *c, struct image_worker **ret, struct error *e)
{
	struct image_worker *w = calloc(1, sizeof(*w));
	int r = w ? http_client_new(NULL, &w->http) : -ENOMEM;

	if (r < 0) {
		free(w);
		return error_errno(e, r, "Could not make an HTTP client for the image worker");
	}
	w->clc = c;
	w->objects = (struct lane){.worker = w, .look = look, .again_ms = RETRY_MS};
	w->snapshots = (struct lane){.worker = w, .look = look_at_snapshots, .again_ms = STEP_MS};
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
	r = lane_start(&w->objects, e);
	if (r == 0)
		r = lane_start(&w->snapshots, e);
	if (r < 0) {
		image_worker_stop(w);
		return r;
	}
	*ret = w;
	return 0;
}

void image_worker_wake(struct image_worker *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->objects.wake = w->snapshots.wake = true;
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

void image_worker_stop(struct image_worker *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	__atomic_store_n(&w->stop, true, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
	http_client_cancel(w->http); /* an object that has stopped streaming */
	if (w->objects.started)
		pthread_join(w->objects.thread, NULL);
	if (w->snapshots.started)
		pthread_join(w->snapshots.thread, NULL);
	pthread_cond_destroy(&w->cond);
	pthread_mutex_destroy(&w->lock);
	http_client_free(w->http);
	free(w);
}
