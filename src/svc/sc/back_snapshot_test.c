/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot as a back end of a stack, over S3 as HTTP speaks it: a stand-in for Walrus with faults of its own. */
#include "svc/sc/back_snapshot.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"
#include "block/core/stack.h"
#include "os/file.h"
#include "svc/sc/testkit_priv.h"
#include "wire/http_server.h"

#define SIZE (UINT64_C(90) * KIT_CHUNK)

struct fixture {
	struct bucket bucket;
	struct http_server *server;
	_Atomic unsigned status_percent; /* 503 instead */
	_Atomic unsigned break_percent;  /* of GETs: the body breaks off */
	_Atomic int status;              /* every time */
	_Atomic unsigned requests, unsigned_requests;
	uint64_t seed, server_seed;
	char dir[64], config[96], spec[400], endpoint[64];
	struct objects *objects;
	unsigned char *data;
};

struct body {
	unsigned char *data;
	size_t len, breaks_at;
};

static ssize_t give(void *ctx, uint64_t off, void *out, size_t max)
{
	struct body *b = ctx;
	size_t end = b->breaks_at ? b->breaks_at : b->len;

	if (off >= end)
		return b->breaks_at ? -EIO : 0;
	max = MIN_OF(max, end - off);
	memcpy(out, b->data + off, max);
	return (ssize_t)max;
}

static void body_free(void *ctx)
{
	struct body *b = ctx;

	free(b->data);
	free(b);
}

static void answer(struct http_request *r, int status, const char *code)
{
	char text[100];

	snprintf(text, sizeof(text), "<Error><Code>%s</Code></Error>", code);
	http_reply(r, status, "application/xml", text, strlen(text));
}

/* Bucket's lock held. */
static void serve_get(struct fixture *f, struct http_request *r, const struct bucket_object *o)
{
	const char *range = http_header(r, "Range");
	struct body *b = calloc(1, sizeof(*b));
	uint64_t from = 0, to = 0;

	assert_non_null(range);
	assert_int_equal(sscanf(range, "bytes=%" SCNu64 "-%" SCNu64, &from, &to), 2);
	if (from >= o->len) {
		free(b);
		answer(r, 416, "InvalidRange");
		return;
	}
	b->len = MIN_OF(to + 1, o->len) - from;
	b->data = malloc(b->len);
	memcpy(b->data, o->data + from, b->len);
	if (b->len > 1 && bucket_random(&f->server_seed) % 100 < f->break_percent)
		b->breaks_at = 1 + bucket_random(&f->server_seed) % (b->len - 1);
	http_reply_stream(r, 206, "application/octet-stream", b->len, give, body_free, b);
}

static void serve_list(struct fixture *f, struct http_request *r)
{
	struct buf xml = BUF_INIT;
	char *prefix = strstr(http_query(r), "prefix="), key[2][3 * OBJECT_KEY_MAX] = { "", "" };
	char *after = strstr(http_query(r), "start-after=");
	unsigned count = 0;

	sscanf(prefix + 7, "%200[^&]", key[0]);
	sscanf(after + 12, "%200[^&]", key[1]);
	for (unsigned i = 0; i < 2; i++) {
		char *raw;
		size_t len;

		assert_int_equal(uri_decode(http_arena(r), key[i], strlen(key[i]), false, &raw, &len), 0);
		snprintf(key[i], sizeof(key[i]), "%.*s", (int)len, raw);
	}
	buf_puts(&xml, "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><Prefix>x</Prefix>");
	for (size_t i = 0; i < f->bucket.count && count < 500; i++) {
		const struct bucket_object *o = &f->bucket.objects[i];

		if (!str_prefix(o->key, key[0]) || strcmp(o->key, key[1]) <= 0)
			continue;
		buf_printf(&xml, "<Contents><Key>%s</Key><LastModified>x</LastModified><Size>%zu</Size></Contents>", o->key, o->len);
		count++;
	}
	buf_puts(&xml, "</ListBucketResult>");
	http_reply(r, 200, "application/xml", xml.data, xml.len);
	buf_done(&xml);
}

static void bucket_change(struct fixture *f, struct http_request *r, const char *key)
{
	struct objects *o = bucket_objects(&f->bucket);
	size_t len;
	const char *body = http_body(r, &len);

	if (str_eq(http_method(r), "DELETE")) {
		objects_remove(o, key, NULL);
		http_reply(r, 204, NULL, "", 0);
	} else if (objects_put(o, key, body ? body : "", len, http_header(r, "If-None-Match") != NULL, NULL) == -EEXIST) {
		answer(r, 412, "PreconditionFailed");
	} else {
		http_reply(r, 200, NULL, "", 0);
	}
	objects_free(o);
}

static void serve(void *ctx, struct http_request *r)
{
	struct fixture *f = ctx;
	const char *path = http_path(r), *authorization = http_header(r, "Authorization");

	f->requests++;
	f->unsigned_requests += !authorization || !str_prefix(authorization, "AWS4-HMAC-SHA256 Credential=AKID/");
	pthread_mutex_lock(&f->bucket.lock);
	bool bad = bucket_random(&f->server_seed) % 100 < f->status_percent;
	struct bucket_object *o = str_prefix(path, "/snaps/") ? bucket_find(&f->bucket, path + 7) : NULL;
	bool change = !str_eq(http_method(r), "GET");
	if (f->status)
		answer(r, f->status, "Told");
	else if (bad)
		answer(r, 503, "SlowDown");
	else if (!change && str_eq(path, "/snaps"))
		serve_list(f, r);
	else if (!change && !o)
		answer(r, 404, "NoSuchKey");
	else if (!change)
		serve_get(f, r, o);
	pthread_mutex_unlock(&f->bucket.lock);
	if (change && !http_replied(r))
		bucket_change(f, r, path + 7);
}

static const struct http_handler handler = { .end = serve };

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct http_server_config hc = { .address = "127.0.0.1", .handler = &handler, .ctx = f, .max_body_bytes = 1 << 20 };
	char text[400];
	struct error e = { 0 };

	f->seed = (uint64_t)time(NULL) | 1;
	f->server_seed = f->seed;
	bucket_init(&f->bucket, f->seed);
	if (http_server_start(&hc, &f->server, &e))
		fail_msg("%s", e.message);
	snprintf(f->endpoint, sizeof(f->endpoint), "http://127.0.0.1:%u", http_server_port(f->server));
	strcpy(f->dir, "/tmp/mallee-snap-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->config, sizeof(f->config), "%s/config", f->dir);
	snprintf(text, sizeof(text), "# Walrus\nendpoint = %s\nregion=us-east-1\nbucket = snaps\naccess-key-id = AKID\n"
		 "secret-access-key = s3cret/+=\n", f->endpoint);
	assert_int_equal(file_write_atomic(f->config, text, strlen(text), 0600), 0);
	snprintf(f->spec, sizeof(f->spec), "snapshot:id=snap-a,config=%s,cache=%s/cache", f->config, f->dir);
	f->data = malloc(SIZE);
	kit_fill(&f->seed, f->data, SIZE);
	f->data[0] = 1;
	struct objects_s3_config c = { .endpoint = f->endpoint, .region = "us-east-1", .bucket = "snaps", .access_key_id = "AKID",
				       .secret_key = secret_new("s3cret/+=") };
	struct objects_retry retry = { .attempts = 12, .first_ms = 1, .max_ms = 4 };
	assert_int_equal(objects_s3_new(&c, &retry, &f->objects, &e), 0);
	secret_done(&c.secret_key);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	http_server_stop(f->server, 100);
	objects_free(f->objects);
	bucket_done(&f->bucket);
	dir_remove(f->dir);
	free(f->data);
	free(f);
	return 0;
}

/* The whole life of snapshots over S3, with answers that fail and bodies that break off. */
static void test_s3(void **state)
{
	struct fixture *f = *state;
	struct snap_store *s = snap_store_open(f->objects);
	struct snap_change changes[100];
	struct snap_removed removed;
	uint64_t from = 0;

	f->status_percent = 10;
	f->break_percent = 10;
	kit_snapshot(s, "snap-a", NULL, f->data, SIZE);
	memset(f->data + 7 * KIT_CHUNK, 'z', KIT_CHUNK);
	kit_snapshot(s, "snap-b", "snap-a", f->data, SIZE);
	assert_int_equal(snap_changes(s, "snap-a", "snap-b", &from, changes, 100, NULL), 1);
	assert_int_equal(changes[0].off_bytes, 7 * KIT_CHUNK);
	assert_int_equal(snap_delete(s, "snap-a", &removed, NULL), 0);
	assert_false(removed.incomplete);
	assert_int_equal(snap_gc(s, 0, &removed, NULL), 0);
	assert_int_equal(removed.packs, 0);
	assert_int_equal(snap_delete(s, "snap-b", &removed, NULL), 0);
	assert_true(bucket_count(&f->bucket, "packs/") == 0 && bucket_count(&f->bucket, "snapshots/") == 0);
	assert_int_equal(f->unsigned_requests, 0);
	snap_store_close(s);
}

static void test_s3_errors(void **state)
{
	static const struct {
		int status, err;
	} cases[] = { { 403, -EACCES }, { 507, -ENOSPC }, { 400, -EINVAL }, { 404, -ENOENT } };
	struct fixture *f = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) { /* trying again would not help */
		struct error e = { 0 };

		f->status = cases[i].status;
		f->requests = 0;
		assert_int_equal(objects_put(f->objects, "a", "b", 1, false, &e), cases[i].err);
		assert_int_equal(f->requests, 1);
		assert_non_null(strstr(e.message, "Told"));
	}
	f->status = 500;
	f->requests = 0;
	assert_int_equal(objects_put(f->objects, "a", "b", 1, false, NULL), -EAGAIN);
	assert_int_equal(f->requests, 12);
}

/* ---- the back end ---- */

static const struct blk_layer_ops *const drivers[] = { &blk_snapshot_ops, NULL };
static unsigned ended;
static bool all_ended;
static unsigned failed;

static void count_end(struct blk_req *r)
{
	failed += r->result != 0;
	all_ended = --ended == 0;
}

/* The file of the snapshot's own key, without which it is refused. */
static void give_key(struct fixture *f, struct snap_store *s)
{
	struct blk_stack_settings settings = { drivers, f->spec, NULL, 1, BLK_IO_AUTO };
	unsigned char key[SNAP_DATA_KEY_BYTES];
	struct blk_stack *stack;
	struct error e = { 0 };
	char path[128];
	size_t len = strlen(f->spec);

	assert_true(blk_stack_open(&settings, &stack, &e) < 0);
	assert_non_null(strstr(e.message, "is encrypted, and there is no key"));
	snprintf(path, sizeof(path), "%s/data-key", f->dir);
	snprintf(f->spec + len, sizeof(f->spec) - len, ",key-file=%s", path);
	assert_int_equal(snap_data_key(s, "snap-a", key, NULL), 0);
	key[0] ^= 1;
	assert_int_equal(file_write_atomic(path, key, sizeof(key), 0400), 0);
	error_clear(&e);
	assert_true(blk_stack_open(&settings, &stack, &e) < 0);
	assert_non_null(strstr(e.message, "was not written with this key"));
	key[0] ^= 1;
	assert_int_equal(file_write_atomic(path, key, sizeof(key), 0400), 0);
}

static void check_stack(struct fixture *f, bool encrypted)
{
	struct snap_store *s = snap_store_open(f->objects);
	struct kit_keys keys = { 0 };
	struct blk_stack_settings settings = { drivers, f->spec, NULL, 1, BLK_IO_AUTO };
	struct blk_req *r = calloc(600, sizeof(*r));
	unsigned char *out = calloc(600, 8 * KIT_CHUNK);
	struct iovec iov[600];
	struct error e = { 0 };
	struct blk_stack *stack;

	if (encrypted)
		kit_keys_init(&keys);
	snap_store_use_keys(s, keys.keys);
	kit_snapshot(s, "snap-a", NULL, f->data, SIZE);
	if (encrypted)
		give_key(f, s);
	f->break_percent = 5;
	if (blk_stack_open(&settings, &stack, &e))
		fail_msg("%s", e.message);
	const struct blk_info *info = blk_stack_info(stack);
	assert_true(info->read_only && info->size_bytes == SIZE && info->block_bytes == 512);
	ended = 600; /* more than the queue has room for at once */
	failed = 0;
	all_ended = false;
	for (unsigned i = 0; i < 600; i++) {
		uint64_t off = bucket_random(&f->seed) % (SIZE / 512) * 512, len = (1 + bucket_random(&f->seed) % 64) * 512;

		len = MIN_OF(len, SIZE - off);
		iov[i] = (struct iovec){ out + i * 8 * KIT_CHUNK, len };
		r[i] = (struct blk_req){ .op = i == 7 ? BLK_WRITE : i == 8 ? BLK_FLUSH : BLK_READ, .off_bytes = off, .len_bytes = len,
					 .iov = &iov[i], .iov_count = 1, .queue = blk_stack_queue(stack, 0), .done = count_end };
		if (i == 8)
			r[i].off_bytes = r[i].len_bytes = r[i].iov_count = 0;
		blk_stack_submit(stack, &r[i]);
	}
	assert_int_equal(blk_queue_run_until(blk_stack_queue(stack, 0), &all_ended, 20000), 0);
	assert_int_equal(failed, 1);
	assert_int_equal(r[7].result, -EROFS);
	for (unsigned i = 0; i < 600; i++) {
		if (r[i].op == BLK_READ)
			assert_memory_equal(iov[i].iov_base, f->data + r[i].off_bytes, r[i].len_bytes);
	}
	struct blk_extent ext[4];
	struct blk_layer *top = blk_stack_top(stack);
	int n = top->ops->extents(top, BLK_MAP_ALLOCATION, 0, SIZE, ext, 4);
	assert_true(n >= 1 && ext[0].kind == BLK_EXTENT_DATA && ext[0].len_bytes % KIT_CHUNK == 0);
	struct buf json = BUF_INIT;
	blk_stack_stats_json(stack, NULL, 0, &json);
	assert_non_null(strstr(json.data, "fetched_bytes"));
	buf_reset(&json);
	assert_int_equal(blk_stack_command(stack, "snapshot", "last-problem", "", &json, &e), 0);
	buf_done(&json);
	assert_int_equal(blk_stack_close(stack, &e), 0);
	snap_store_close(s);
	kit_keys_done(&keys);
	free(out);
	free(r);
}

static void test_stack(void **state)
{
	check_stack(*state, false);
}

static void test_encrypted_stack(void **state)
{
	check_stack(*state, true);
}

static void test_refused(void **state)
{
	struct fixture *f = *state;
	struct blk_stack_settings settings = { drivers, f->spec, NULL, 1, BLK_IO_AUTO };
	struct blk_stack *stack;
	struct error e = { 0 };

	assert_true(blk_stack_open(&settings, &stack, &e) < 0); /* no such snapshot */
	assert_non_null(strstr(e.message, "snap-a"));
	error_clear(&e);
	assert_int_equal(chmod(f->config, 0644), 0);
	assert_true(blk_stack_open(&settings, &stack, &e) < 0);
	assert_non_null(strstr(e.message, "chmod 600"));
	error_clear(&e);
	assert_int_equal(file_write_atomic(f->config, "endpoint = x\ncolour = red\n", 26, 0600), 0);
	assert_true(blk_stack_open(&settings, &stack, &e) < 0);
	assert_non_null(strstr(e.message, "colour"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_s3, setup, teardown),
		cmocka_unit_test_setup_teardown(test_s3_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stack, setup, teardown),
		cmocka_unit_test_setup_teardown(test_encrypted_stack, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
