/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OBJECT_TEST_UTIL_PRIV_H
#define MALLEE_OBJECT_TEST_UTIL_PRIV_H

/* For this folder's tests only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "object/store.h"
#include "os/file.h"

struct fixture {
	char dir[64];
	struct store *s;
	struct arena *a;
	struct store_bucket b; /* "bucket", of account "1" */
};

#define assert_ok(e, expr)                                                                         \
	do {                                                                                       \
		int r_ = (expr);                                                                   \
		if (r_ < 0)                                                                        \
			fail_msg("%s = %d: %s: %s", #expr, r_, (e)->code, (e)->message);           \
	} while (0)

#define assert_code(expr, wanted)                                                                  \
	do {                                                                                       \
		struct error e_ = {0};                                                             \
		assert_true((expr) < 0);                                                           \
		if (strcmp(e_.code, wanted) != 0)                                                  \
			fail_msg("%s, not %s: %s", e_.code, wanted, e_.message);                   \
	} while (0)

static inline int fixture_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	struct error e = {0};

	snprintf(f->dir, sizeof(f->dir), "%s/mallee-object-XXXXXX", tmp);
	if (!mkdtemp(f->dir))
		return -1;
	f->a = arena_new();
	assert_ok(&e, store_open(f->dir, &f->s, &e));
	assert_ok(
	    &e,
	    store_bucket_create(
		f->s, &(struct store_bucket){.name = "bucket", .account = "1", .owner = "o1"}, &e));
	assert_ok(&e, store_bucket_get(f->s, f->a, "bucket", &f->b, &e));
	*state = f;
	return 0;
}

static inline int fixture_down(void **state)
{
	struct fixture *f = *state;

	store_close(f->s);
	arena_free(f->a);
	dir_remove(f->dir);
	free(f);
	return 0;
}

static inline void fixture_reopen(struct fixture *f)
{
	struct error e = {0};

	store_close(f->s);
	f->s = NULL;
	assert_ok(&e, store_open(f->dir, &f->s, &e));
}

/* Data files on disk. */
static inline int fixture_files(const struct fixture *f)
{
	int count = 0;

	for (unsigned i = 0; i < 256; i++) {
		char path[128];

		snprintf(path, sizeof(path), "%s/data/%02x", f->dir, i);
		DIR *d = opendir(path);

		assert_non_null(d);
		for (struct dirent *entry; (entry = readdir(d));)
			count += entry->d_name[0] != '.';
		closedir(d);
	}
	return count;
}

/* Bytes that tell where they come from. */
static inline void pattern_fill(unsigned char *p, size_t len, uint64_t off, uint64_t seed)
{
	for (size_t i = 0; i < len; i++) {
		uint64_t at = off + i;
		uint64_t word = (at / 8 + seed * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;

		p[i] = (unsigned char)(word >> (8 * (at % 8)));
	}
}

static inline struct store_writer *pattern_writer(struct store *s, uint64_t size, uint64_t seed,
						  struct error *e)
{
	struct store_writer *w = NULL;
	unsigned char *piece = malloc(64 << 10);

	if (store_writer_new(s, size, 0, &w, e) < 0)
		goto out;
	for (uint64_t off = 0; off < size;) {
		size_t n = (size_t)MIN_OF(size - off, (uint64_t)(64 << 10));

		pattern_fill(piece, n, off, seed);
		if (store_writer_write(w, piece, n, e) < 0) {
			store_writer_free(w);
			w = NULL;
			goto out;
		}
		off += n;
	}
out:
	free(piece);
	return w;
}

static inline int pattern_put(struct store *s, struct arena *a, int64_t bucket, const char *key,
			      uint64_t size, uint64_t seed, struct store_condition condition,
			      struct error *e)
{
	_cleanup_(store_writer_freep) struct store_writer *w = pattern_writer(s, size, seed, e);
	struct store_put put = {.bucket = bucket, .key = key, .condition = condition};

	return w ? store_writer_commit(w, a, &put, NULL, e) : -1;
}

/* Whether the reader gives exactly size bytes of the pattern, from off on. */
static inline bool pattern_read(struct store_reader *r, uint64_t off, uint64_t size, uint64_t seed)
{
	unsigned char *got = malloc(64 << 10), *wanted = malloc(64 << 10);
	bool same = true;

	while (same && off < size) {
		ssize_t n = store_reader_read(r, off, got, 64 << 10);

		same = n > 0;
		if (same) {
			pattern_fill(wanted, (size_t)n, off, seed);
			same = memcmp(got, wanted, (size_t)n) == 0;
			off += (uint64_t)n;
		}
	}
	same = same && off == size && store_reader_read(r, size, got, 1) == 0;
	free(got);
	free(wanted);
	return same;
}

#endif
