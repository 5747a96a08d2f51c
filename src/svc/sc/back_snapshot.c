/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests are handed to the snapshot's reader, whose threads complete them. The reader's part of each is out of a stock that a queue
 * makes when it starts; a request that finds it empty (background children come past the gate) waits in the queue's list. That list
 * and the stock are what a queue's `lock` guards: requests end on the reader's threads.
 */
#include "svc/sc/back_snapshot.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/text.h"
#include "os/file.h"
#include "os/locked.h"
#include "svc/sc/snap_reader.h"

#define CONFIG_MAX 65536
#define READS 256u /* of a queue at once */

struct snapshot {
	struct objects *objects;
	struct snap_store *store;
	struct chunk_cache *cache;
	struct snap_reader *reader;
};

struct snapshot_queue {
	struct snapshot *snapshot;
	pthread_mutex_t lock;
	struct snap_read *stock;
	struct blk_list waiting;
	struct snap_read reads[READS];
};

static const struct blk_option options[] = {
	{ .name = "id", .type = BLK_OPT_TEXT, .required = true, .doc = "the snapshot" },
	{ .name = "config", .type = BLK_OPT_TEXT, .required = true, .doc = "file that says where Walrus is, and the key" },
	{ .name = "key-file", .type = BLK_OPT_TEXT, .doc = "of an encrypted one: 32 bytes, of a file of this user or root that nobody else has rights on" },
	{ .name = "cache", .type = BLK_OPT_TEXT, .doc = "folder for chunks that were fetched; one process each" },
	{ .name = "cache-size", .type = BLK_OPT_BYTES, .fallback = "1G", .min = 1 << 20, .doc = "how large it may grow" },
	{ .name = "threads", .type = BLK_OPT_UINT, .fallback = "4", .min = 1, .max = 64, .doc = "fetches at once" },
	{ .name = "chunks", .type = BLK_OPT_UINT, .fallback = "32", .min = 2, .max = 1024, .doc = "chunks of 512 kB in memory" },
	{ .name = "readahead", .type = BLK_OPT_UINT, .fallback = "8", .max = 512, .doc = "chunks; 0: none" },
	{ 0 },
};

/* ---- where Walrus is ---- */

enum field { ENDPOINT, REGION, BUCKET, KEY_ID, SECRET, FIELDS };

static int parse_config(char *text, const char *path, const char *values[FIELDS], struct error *e)
{
	static const char *const names[FIELDS] = { "endpoint", "region", "bucket", "access-key-id", "secret-access-key" };
	char *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *name = line + strspn(line, " \t"), *value = strchr(name, '=');
		unsigned i = 0;

		if (*name == '#' || !*name)
			continue;
		if (value) {
			name[strcspn(name, " \t=")] = '\0';
			value += 1 + strspn(value + 1, " \t");
			value[strcspn(value, " \t\r")] = '\0';
			while (i < FIELDS && !str_eq(names[i], name))
				i++;
		}
		if (!value || i == FIELDS)
			return error_set(e, "InvalidOption", "%s: \"%s\" is not one of endpoint, region, bucket, access-key-id, "
					 "secret-access-key", path, value ? name : "a line without =");
		values[i] = value;
	}
	for (unsigned i = 0; i < FIELDS; i++) {
		if (!values[i])
			return error_set(e, "InvalidOption", "%s: %s is missing", path, names[i]);
	}
	return 0;
}

/* A guest waits behind each request, and a failed one is an error of its disk: a quarter of an hour, for an object store that is
 * started anew or comes back. */
static const struct objects_retry patience = { .attempts = 180 };

static int connect_walrus(const char *path, struct objects **ret, struct error *e)
{
	const char *values[FIELDS] = { NULL };
	struct stat st;
	char *text;
	size_t len;
	int err = stat(path, &st) < 0 ? -errno : 0;

	if (!err && (st.st_mode & 077))
		return error_set(e, "InvalidOption", "%s holds a key and may be read by others: chmod 600 it", path);
	if (!err)
		err = file_read(path, CONFIG_MAX, &text, &len);
	if (err)
		return error_errno(e, err, "cannot read %s", path);
	err = parse_config(text, path, values, e);
	if (!err) {
		struct objects_s3_config c = { .endpoint = values[ENDPOINT], .region = values[REGION], .bucket = values[BUCKET],
					       .access_key_id = values[KEY_ID], .secret_key = secret_new(values[SECRET]) };
		err = objects_s3_new(&c, &patience, ret, e);
		secret_done(&c.secret_key);
	}
	explicit_bzero(text, len);
	free(text);
	return err;
}

/* ---- opening ---- */

static void snapshot_close(struct blk_layer *l)
{
	struct snapshot *s = l->state;

	if (!s)
		return;
	if (s->objects)
		objects_cancel(s->objects); /* what is fetched ahead needs nobody any more */
	snap_reader_close(s->reader);
	snap_store_close(s->store);
	chunk_cache_close(s->cache);
	objects_free(s->objects);
	free(s);
	l->state = NULL;
}

static int open_parts(struct snapshot *s, const struct blk_values *v, struct error *e)
{
	struct snap_reader_config c = { .snapshot = blk_values_text(v, "id"), .threads = (unsigned)blk_values_number(v, "threads"),
					.chunks = (unsigned)blk_values_number(v, "chunks"),
					.readahead = (int)blk_values_number(v, "readahead") };
	int err = connect_walrus(blk_values_text(v, "config"), &s->objects, e);

	_cleanup_(locked_freep) void *key = locked_new(SNAP_DATA_KEY_BYTES);
	if (!err && !key)
		err = error_errno(e, ENOMEM, "opening a snapshot");
	if (!err && blk_values_has(v, "key-file")) {
		err = locked_read(blk_values_text(v, "key-file"), key, SNAP_DATA_KEY_BYTES, e);
		c.key = key;
	}
	c.readahead = c.readahead ? c.readahead : -1;
	if (!err && blk_values_has(v, "cache"))
		err = chunk_cache_open(blk_values_text(v, "cache"), blk_values_number(v, "cache-size"), &s->cache, e);
	if (err)
		return err;
	c.cache = s->cache;
	s->store = snap_store_open(s->objects);
	return snap_reader_open(s->store, &c, &s->reader, e);
}

static int snapshot_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	struct snapshot *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return error_errno(e, ENOMEM, "opening a snapshot");
	l->state = s;
	err = open_parts(s, v, e);
	if (err) {
		snapshot_close(l);
		return err;
	}
	l->info = (struct blk_info){ .size_bytes = snap_reader_size(s->reader), .block_bytes = BLK_SECTOR, .physical_bytes = 4096,
				     .optimal_bytes = snap_reader_chunk_bytes(s->reader), .read_only = true };
	return 0;
}

static int snapshot_queue_start(struct blk_layer *l, struct blk_queue *q, struct error *e)
{
	struct snapshot_queue *sq = calloc(1, sizeof(*sq));

	if (!sq)
		return error_errno(e, ENOMEM, "opening a snapshot");
	sq->snapshot = l->state;
	pthread_mutex_init(&sq->lock, NULL);
	for (unsigned i = 0; i < READS; i++) {
		sq->reads[i].next = sq->stock;
		sq->stock = &sq->reads[i];
	}
	l->queue_state[blk_queue_index(q)] = sq;
	return 0;
}

static void snapshot_queue_stop(struct blk_layer *l, struct blk_queue *q)
{
	struct snapshot_queue *sq = l->queue_state[blk_queue_index(q)];

	l->queue_state[blk_queue_index(q)] = NULL;
	if (!sq)
		return;
	pthread_mutex_destroy(&sq->lock);
	free(sq);
}

/* ---- requests ---- */

/* The next request's, or back into stock. */
static struct blk_req *put_back(struct snapshot_queue *sq, struct snap_read *read)
{
	struct blk_req *next;

	pthread_mutex_lock(&sq->lock);
	next = blk_list_pop(&sq->waiting);
	if (!next) {
		read->next = sq->stock;
		sq->stock = read;
	}
	pthread_mutex_unlock(&sq->lock);
	return next;
}

static void read_done(struct snap_read *read);

/* Reads for r, and then for whoever waited, until one does not end at once. */
static void run(struct snapshot_queue *sq, struct snap_read *read, struct blk_req *r)
{
	while (r) {
		*read = (struct snap_read){ .off_bytes = r->off_bytes, .len_bytes = r->len_bytes, .iov = r->iov,
					    .iov_count = r->iov_count, .done = read_done, .ctx = r };
		if (!snap_reader_read(sq->snapshot->reader, read))
			return;
		int result = read->result;
		struct blk_req *next = put_back(sq, read); /* before r ends: then the queue may be gone */
		blk_complete(r, result);
		r = next;
	}
}

static void read_done(struct snap_read *read)
{
	struct blk_req *r = read->ctx;
	struct blk_layer *l = (struct blk_layer *)(uintptr_t)r->scratch[0];
	struct snapshot_queue *sq = l->queue_state[blk_queue_index(r->queue)];
	int result = read->result;
	struct blk_req *next = put_back(sq, read);

	blk_complete(r, result);
	if (next)
		run(sq, read, next);
}

static void snapshot_submit(struct blk_layer *l, struct blk_req *r)
{
	struct snapshot_queue *sq = l->queue_state[blk_queue_index(r->queue)];
	struct snap_read *read;

	if (r->op != BLK_READ) {
		blk_complete(r, r->op == BLK_FLUSH ? 0 : -EROFS);
		return;
	}
	r->scratch[0] = (uint64_t)(uintptr_t)l;
	pthread_mutex_lock(&sq->lock);
	read = sq->stock;
	if (read)
		sq->stock = read->next;
	else
		blk_list_push(&sq->waiting, r);
	pthread_mutex_unlock(&sq->lock);
	if (read)
		run(sq, read, r);
}

static int snapshot_extents(struct blk_layer *l, enum blk_extent_map map, uint64_t off, uint64_t len, struct blk_extent *out,
			    unsigned max)
{
	struct snapshot *s = l->state;
	uint64_t size = l->info.size_bytes, end = off + len;
	unsigned count = 0;

	if (map != BLK_MAP_ALLOCATION || !max || off >= size || len > size - off || !len)
		return -EINVAL;
	while (off < end && count < max) {
		bool zero;

		len = snap_reader_extent(s->reader, off, end - off, &zero);
		out[count++] = (struct blk_extent){ len, zero ? BLK_EXTENT_HOLE : BLK_EXTENT_DATA };
		off += len;
	}
	return (int)count;
}

static void snapshot_stats(struct blk_layer *l, struct blk_stats_sink *sink)
{
	struct snapshot *s = l->state;
	struct chunk_cache_stats cache = { 0 };
	struct snap_reader_stats st;

	snap_reader_stats(s->reader, &st);
	if (s->cache)
		chunk_cache_stats(s->cache, &cache);
	const struct {
		const char *name, *help;
		uint64_t value;
	} counters[] = {
		{ "memory_hits", "chunks that were in memory", st.memory_hits },
		{ "cache_hits", "chunks that were in the local cache", st.cache_hits },
		{ "fetches", "chunks fetched from Walrus", st.fetches },
		{ "fetched_bytes", "bytes fetched from Walrus, as stored", st.fetched_bytes },
		{ "joined", "waits for a fetch that had begun", st.joined },
		{ "ahead", "chunks asked for ahead", st.ahead },
		{ "ahead_used", "of those, asked for later", st.ahead_used },
		{ "corrupt", "chunks that are corrupt", st.corrupt },
		{ "failed", "chunks that Walrus did not give", st.failed },
		{ "cache_dropped", "files of the cache that were corrupt", cache.dropped },
		{ "cache_evicted", "files of the cache that made room", cache.evicted },
	};

	for (unsigned i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		blk_stats_emit(sink, "snapshot", counters[i].name, true, counters[i].value, counters[i].help);
	blk_stats_emit(sink, "snapshot", "cache_bytes", false, cache.bytes, "bytes in the local cache");
}

static int snapshot_command(struct blk_layer *l, const char *verb, const struct blk_values *args, struct buf *ret, struct error *e)
{
	struct snapshot *s = l->state;
	char message[512];

	snap_reader_last_problem(s->reader, message);
	buf_puts(ret, "{\"last_problem\":\"");
	for (const char *p = message; *p; p++) {
		if (*p == '"' || *p == '\\')
			buf_putc(ret, '\\');
		buf_putc(ret, (unsigned char)*p < 0x20 ? ' ' : *p);
	}
	buf_puts(ret, "\"}");
	return 0;
}

static const struct blk_verb verbs[] = {
	{ .name = "last-problem", .doc = "what was said of the last chunk that could not be had" },
	{ 0 },
};

const struct blk_layer_ops blk_snapshot_ops = {
	.name = "snapshot",
	.doc = "a snapshot in Walrus, read only",
	.is_back = true,
	.options = options,
	.open = snapshot_open,
	.queue_start = snapshot_queue_start,
	.queue_stop = snapshot_queue_stop,
	.submit = snapshot_submit,
	.command = snapshot_command,
	.verbs = verbs,
	.extents = snapshot_extents,
	.stats = snapshot_stats,
	.close = snapshot_close,
};
