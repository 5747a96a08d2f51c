/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"
#include "os/file.h"
#include "svc/nc/image_cache.h"
#include "wire/http_server.h"

#define IMAGE_LEN 3000000u

/* A stand-in for Walrus: one image, and ways to fail. */
struct fixture {
	char dir[64], url[64], sha[65];
	char *image;
	struct http_server *server;
	struct image_cache *cache;
	atomic_int requests, ranged;
	atomic_int status;     /* 0: serve */
	atomic_uint break_at;  /* send this much, then break the connection; 0: all */
	atomic_bool no_ranges; /* answer 200 to a range */
	atomic_int delay_ms;
};

struct reply {
	struct fixture *f;
	size_t start;
};

static ssize_t read_image(void *ctx, uint64_t off, void *buf, size_t max)
{
	struct reply *r = ctx;
	size_t at = r->start + off, limit = r->f->break_at ? r->f->break_at : IMAGE_LEN;

	if (at >= limit)
		return limit < IMAGE_LEN ? -EIO : 0;
	max = MIN_OF(MIN_OF(max, (size_t)65536), limit - at);
	memcpy(buf, r->f->image + at, max);
	return (ssize_t)max;
}

static void serve(void *ctx, struct http_request *req)
{
	struct fixture *f = ctx;
	const char *range = http_header(req, "Range");
	struct reply *r = calloc(1, sizeof(*r));
	size_t start = 0;

	f->requests++;
	usleep((useconds_t)f->delay_ms * 1000);
	if (f->status) {
		static const char text[] = "<Error><Code>NoSuchKey</Code></Error>";

		http_reply(req, f->status, "application/xml", text, sizeof(text) - 1);
		free(r);
		return;
	}
	if (range && sscanf(range, "bytes=%zu-", &start) == 1)
		f->ranged++;
	if (f->no_ranges)
		start = 0;
	r->f = f;
	r->start = start;
	http_reply_stream(req, start ? 206 : 200, "application/octet-stream", IMAGE_LEN - start,
			  read_image, free, r);
}

static const struct http_handler handler = {.end = serve};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct http_server_config hc = {.address = "127.0.0.1", .handler = &handler, .ctx = f};
	struct image_cache_config cc = {.limit_bytes = 7000000};
	unsigned char digest[32];
	struct error e = {0};
	char dir[80];

	strcpy(f->dir, "/tmp/mallee-cache-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->image = malloc(IMAGE_LEN);
	for (size_t i = 0; i < IMAGE_LEN; i++)
		f->image[i] = (char)(i * 2654435761u >> 13);
	gnutls_hash_fast(GNUTLS_DIG_SHA256, f->image, IMAGE_LEN, digest);
	hex_encode(digest, 32, f->sha);
	if (http_server_start(&hc, &f->server, &e) < 0)
		fail_msg("%s", e.message);
	snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u/images/one",
		 http_server_port(f->server));
	snprintf(dir, sizeof(dir), "%s/cache", f->dir);
	cc.dir = dir;
	assert_int_equal(image_cache_open(&cc, &f->cache, &e), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	http_server_stop(f->server, 100);
	image_cache_close(f->cache);
	dir_remove(f->dir);
	free(f->image);
	free(f);
	return 0;
}

static bool go_on(void *ctx, int64_t done, int64_t size)
{
	return false;
}

static int get(struct fixture *f, const char *sha, int *ret_fd, struct error *e)
{
	struct image_source s = {.url = f->url, .sha256 = sha, .size_bytes = IMAGE_LEN};

	*ret_fd = -1;
	return image_cache_get(f->cache, &s, go_on, NULL, ret_fd, e);
}

static void assert_image(struct fixture *f, int fd)
{
	char *got = malloc(IMAGE_LEN + 1);

	assert_int_equal(pread(fd, got, IMAGE_LEN + 1, 0), IMAGE_LEN);
	assert_memory_equal(got, f->image, IMAGE_LEN);
	free(got);
	close(fd);
}

static void test_fetch_once(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};
	int fd;

	assert_int_equal(get(f, f->sha, &fd, &e), 0);
	assert_image(f, fd);
	assert_int_equal(get(f, f->sha, &fd, &e), 0);
	assert_image(f, fd);
	assert_int_equal(f->requests, 1);
	assert_true(image_cache_size(f->cache) >= IMAGE_LEN);
}

static void *get_in_thread(void *ctx)
{
	struct fixture *f = ctx;
	struct error e = {0};
	int fd, r = get(f, f->sha, &fd, &e);

	if (fd >= 0)
		close(fd);
	return (void *)(intptr_t)r;
}

static void test_callers_share_a_fetch(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[8];
	void *r;

	f->delay_ms = 200;
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, get_in_thread, f), 0);
	for (int i = 0; i < 8; i++) {
		pthread_join(threads[i], &r);
		assert_null(r);
	}
	assert_int_equal(f->requests, 1);
}

static void test_goes_on_where_it_broke_off(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};
	int fd;

	f->break_at = 1000000;
	assert_int_equal(get(f, f->sha, &fd, &e), -EAGAIN);
	assert_non_null(strstr(e.message, "cannot fetch the image"));
	f->break_at = 0;
	error_clear(&e);
	assert_int_equal(get(f, f->sha, &fd, &e), 0);
	assert_image(f, fd);
	assert_int_equal(f->ranged, 1);
}

static void test_server_without_ranges(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};
	int fd;

	f->break_at = 1000000;
	assert_int_equal(get(f, f->sha, &fd, &e), -EAGAIN);
	f->break_at = 0;
	f->no_ranges = true;
	assert_int_equal(get(f, f->sha, &fd, &e), 0);
	assert_image(f, fd);
}

static void test_wrong_bytes(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};
	char path[160];
	int fd;

	f->image[77] ^= 1;
	assert_int_equal(get(f, f->sha, &fd, &e), -EBADMSG);
	assert_string_equal(e.code, "Server.InternalError");
	assert_non_null(strstr(e.message, "damaged"));
	snprintf(path, sizeof(path), "%s/cache/%s.part", f->dir, f->sha);
	assert_int_equal(access(path, F_OK), -1);
	f->image[77] ^= 1;
	assert_int_equal(get(f, f->sha, &fd, &e), 0);
	close(fd);
}

/* A piece of another image, left by an earlier try: fetched anew from the start. */
static void test_bad_piece_is_dropped(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s/cache/%s.part", f->dir, f->sha);
	assert_int_equal(file_write_atomic(path, "something else", 14, 0600), 0);
	assert_int_equal(get(f, f->sha, &fd, &e), -EAGAIN);
	assert_int_equal(get(f, f->sha, &fd, &e), 0);
	assert_image(f, fd);
}

static void test_statuses(void **state)
{
	static const struct {
		int status, want;
	} rows[] = {
	    {404, -EBADMSG}, {403, -EAGAIN}, {500, -EAGAIN}, {503, -EAGAIN}, {400, -EBADMSG}};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct error e = {0};
		int fd;

		f->status = rows[i].status;
		assert_int_equal(get(f, f->sha, &fd, &e), rows[i].want);
		assert_non_null(strstr(e.message, "NoSuchKey"));
	}
}

static void test_unreachable(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};
	int fd;

	strcpy(f->url, "http://127.0.0.1:9/x");
	assert_int_equal(get(f, f->sha, &fd, &e), -EAGAIN);
	assert_true(error_is_set(&e));
}

static void test_names_are_checked(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};
	int fd;

	assert_int_equal(get(f, "../../../../etc/passwd", &fd, &e), -EBADMSG);
	assert_int_equal(get(f, NULL, &fd, &e), -EBADMSG);
	assert_int_equal(f->requests, 0);
}

/* Room for two images of three: the longest unused goes. */
static void test_longest_unused_goes(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};
	char *zeroes = calloc(1, IMAGE_LEN), path[160];
	struct stat st;
	int fd;

	for (int i = 0; i < 2; i++) {
		struct timespec times[2] = {{.tv_sec = 1000 + i}, {.tv_sec = 1000 + i}};

		snprintf(path, sizeof(path), "%s/cache/%064d.raw", f->dir, i);
		assert_int_equal(file_write_atomic(path, zeroes, IMAGE_LEN, 0600), 0);
		assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	}
	assert_int_equal(get(f, f->sha, &fd, &e), 0);
	close(fd);
	snprintf(path, sizeof(path), "%s/cache/%064d.raw", f->dir, 0);
	assert_int_equal(stat(path, &st), -1);
	snprintf(path, sizeof(path), "%s/cache/%064d.raw", f->dir, 1);
	assert_int_equal(stat(path, &st), 0);
	free(zeroes);
}

static void test_cancel(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;
	struct error e = {0};
	void *r;
	int fd;

	f->delay_ms = 3000;
	assert_int_equal(pthread_create(&thread, NULL, get_in_thread, f), 0);
	usleep(300000);
	image_cache_cancel(f->cache);
	pthread_join(thread, &r);
	assert_int_equal((intptr_t)r, -ECANCELED);
	assert_int_equal(get(f, f->sha, &fd, &e), -ECANCELED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_fetch_once, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_callers_share_a_fetch, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_goes_on_where_it_broke_off, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_server_without_ranges, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_wrong_bytes, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_bad_piece_is_dropped, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_statuses, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_unreachable, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_names_are_checked, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_longest_unused_goes, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
