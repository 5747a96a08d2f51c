/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/sc/testkit_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"
#include "os/file.h"
#include "svc/sc/snap_store_priv.h"

uint64_t bucket_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

void bucket_init(struct bucket *b, uint64_t seed)
{
	memset(b, 0, sizeof(*b));
	pthread_mutex_init(&b->lock, NULL);
	b->seed = seed | 1;
}

void bucket_done(struct bucket *b)
{
	for (size_t i = 0; i < b->count; i++)
		free(b->objects[i].data);
	free(b->objects);
	pthread_mutex_destroy(&b->lock);
}

/* The first object whose key is not before `key`. */
static size_t position(const struct bucket *b, const char *key)
{
	size_t lo = 0, hi = b->count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(b->objects[mid].key, key) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct bucket_object *bucket_find(struct bucket *b, const char *key)
{
	size_t at = position(b, key);

	return at < b->count && str_eq(b->objects[at].key, key) ? &b->objects[at] : NULL;
}

size_t bucket_count(struct bucket *b, const char *prefix)
{
	size_t n = 0;

	pthread_mutex_lock(&b->lock);
	for (size_t i = 0; i < b->count; i++)
		n += str_prefix(b->objects[i].key, prefix);
	pthread_mutex_unlock(&b->lock);
	return n;
}

static bool chance(struct bucket *b, unsigned percent)
{
	return percent && bucket_random(&b->seed) % 100 < percent;
}

/* Lock held. Whether this call does nothing but fail. */
static int refuse(struct bucket *b)
{
	if (b->dead)
		return -EINVAL; /* a process that is gone tries nothing again */
	return b->unreachable || chance(b, b->fail_percent) ? -EHOSTUNREACH : 0;
}

/* Lock held, for changes: -EINVAL when the process dies here; *ret_done: after the change all the same. */
static int die(struct bucket *b, bool *ret_done)
{
	*ret_done = true;
	if (b->kill_in <= 0 || --b->kill_in > 0)
		return 0;
	b->dead = true;
	*ret_done = bucket_random(&b->seed) % 2;
	return -EINVAL;
}

static void insert(struct bucket *b, const char *key, const void *data, size_t len)
{
	size_t at = position(b, key);
	struct bucket_object *o = bucket_find(b, key);

	if (!o) {
		if (b->count == b->cap) {
			b->cap = b->cap ? 2 * b->cap : 64;
			b->objects = realloc(b->objects, b->cap * sizeof(*b->objects));
		}
		o = &b->objects[at];
		memmove(o + 1, o, (b->count - at) * sizeof(*o));
		b->count++;
		*o = (struct bucket_object){ 0 };
		strcpy(o->key, key);
	}
	free(o->data);
	o->data = malloc(len + 1);
	memcpy(o->data, data, len);
	o->len = len;
}

static int put(void *ctx, const char *key, const void *data, size_t len, bool only_if_absent, struct error *e)
{
	struct bucket *b = ctx;
	bool done;
	int err;

	if (b->delay_us)
		usleep(b->delay_us);
	pthread_mutex_lock(&b->lock);
	b->puts++;
	err = refuse(b);
	if (!err && only_if_absent && bucket_find(b, key))
		err = -EEXIST;
	if (!err) {
		err = die(b, &done);
		if (done)
			insert(b, key, data, len);
		if (!err && chance(b, b->lost_percent))
			err = -ECONNRESET;
	}
	pthread_mutex_unlock(&b->lock);
	if (err)
		error_set(e, "Double", "PUT %s: %d", key, err);
	return err;
}

static unsigned char *damaged_at(struct bucket *b, const char *key, uint64_t off)
{
	uint64_t hash = off * 0x9e3779b97f4a7c15u;

	for (; *key; key++)
		hash = (hash ^ (unsigned char)*key) * 0x100000001b3u;
	return &b->damaged[(hash >> 20) % sizeof(b->damaged)];
}

/* Lock held. What is at `at` was asked for, and n bytes of it are answered, or fewer. */
static void answer(struct bucket *b, unsigned char *in_a_row, const unsigned char *at, size_t n, struct buf *out)
{
	bool may = *in_a_row + 1 < SNAP_READ_ATTEMPTS, cut = may && chance(b, b->short_percent);
	size_t before = out->len;

	if (cut)
		n = n ? bucket_random(&b->seed) % n : 0;
	buf_append(out, at, n);
	bool flip = may && n && chance(b, b->corrupt_percent);
	if (flip)
		out->data[before + bucket_random(&b->seed) % n] ^= (char)(1 << bucket_random(&b->seed) % 8);
	*in_a_row = cut || flip ? *in_a_row + 1 : 0;
}

static int get(void *ctx, const char *key, uint64_t off, uint64_t len, struct buf *out, struct error *e)
{
	struct bucket *b = ctx;
	int err;

	if (b->delay_us)
		usleep(b->delay_us);
	pthread_mutex_lock(&b->lock);
	b->gets++;
	struct bucket_object *o = bucket_find(b, key);
	err = refuse(b);
	if (!err && !o)
		err = -ENOENT;
	if (!err && off < o->len) {
		answer(b, damaged_at(b, key, off), o->data + off, MIN_OF(len, o->len - off), out);
		if (chance(b, b->lost_percent))
			err = -ECONNRESET;
	}
	pthread_mutex_unlock(&b->lock);
	if (err)
		error_set(e, "Double", "GET %s: %d", key, err);
	return err;
}

static int remove_object(void *ctx, const char *key, struct error *e)
{
	struct bucket *b = ctx;
	bool done;
	int err;

	pthread_mutex_lock(&b->lock);
	b->removes++;
	err = refuse(b);
	if (!err) {
		err = die(b, &done);
		struct bucket_object *o = done ? bucket_find(b, key) : NULL;
		if (o) {
			free(o->data);
			memmove(o, o + 1, (size_t)(b->objects + b->count - o - 1) * sizeof(*o));
			b->count--;
		}
		if (!err && chance(b, b->lost_percent))
			err = -ECONNRESET;
	}
	pthread_mutex_unlock(&b->lock);
	if (err)
		error_set(e, "Double", "DELETE %s: %d", key, err);
	return err;
}

static int list(void *ctx, const char *prefix, const char *after, struct object_entry *out, unsigned max, unsigned *ret_count,
		struct error *e)
{
	struct bucket *b = ctx;
	unsigned n = 0;
	int err;

	pthread_mutex_lock(&b->lock);
	err = refuse(b);
	for (size_t i = 0; !err && i < b->count && n < max; i++) {
		const struct bucket_object *o = &b->objects[i];

		if (!str_prefix(o->key, prefix) || strcmp(o->key, after) <= 0)
			continue;
		strcpy(out[n].key, o->key);
		out[n++].size_bytes = o->len;
	}
	pthread_mutex_unlock(&b->lock);
	if (err)
		error_set(e, "Double", "LIST %s: %d", prefix, err);
	*ret_count = n;
	return err;
}

struct objects *bucket_objects(struct bucket *b)
{
	static const struct objects_ops ops = { .put = put, .get = get, .remove = remove_object, .list = list };
	struct objects_retry retry = { .attempts = 12, .first_ms = 1, .max_ms = 2 };

	return objects_new(&ops, b, &retry);
}

void kit_keys_init(struct kit_keys *k)
{
	struct error e = { 0 };

	strcpy(k->dir, "/tmp/mallee-keys-XXXXXX");
	assert_non_null(mkdtemp(k->dir));
	if (keys_open(k->dir, &k->keys, &e))
		fail_msg("%s", e.message);
}

void kit_keys_done(struct kit_keys *k)
{
	keys_close(k->keys);
	if (k->keys)
		dir_remove(k->dir);
	*k = (struct kit_keys){ 0 };
}

void kit_snapshot(struct snap_store *s, const char *id, const char *parent, const unsigned char *data, uint64_t size)
{
	struct snap_writer_config c = { .snapshot = id, .volume = "vol-1", .parent = parent, .size_bytes = size,
					.chunk_bytes = KIT_CHUNK, .page_chunks = KIT_PAGE, .pack_bytes = 5 * KIT_CHUNK, .encrypted = s->keys };
	struct snap_writer *w;
	struct error e = { 0 };

	if (snap_writer_begin(s, &c, &w, &e))
		fail_msg("%s", e.message);
	for (uint64_t off = 0; off < size; off += KIT_CHUNK) {
		if (snap_writer_put(w, off / KIT_CHUNK, data + off, MIN_OF((uint64_t)KIT_CHUNK, size - off), &e))
			fail_msg("%s", e.message);
	}
	if (snap_writer_commit(w, NULL, &e))
		fail_msg("%s", e.message);
	snap_writer_free(w);
}

void kit_fill(uint64_t *seed, unsigned char *data, uint64_t size)
{
	for (uint64_t off = 0; off < size; off += KIT_CHUNK) {
		uint64_t len = MIN_OF((uint64_t)KIT_CHUNK, size - off), kind = bucket_random(seed) % 3;

		for (uint64_t i = 0; i < len; i++)
			data[off + i] = (unsigned char)(kind == 0 ? 0 : kind == 1 ? 'a' + i % 17 : bucket_random(seed) >> 20);
		if (kind)
			memcpy(data + off, &off, sizeof(off));
	}
}
