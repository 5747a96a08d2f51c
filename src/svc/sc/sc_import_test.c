/* SPDX-License-Identifier: Apache-2.0 */
/* Images become snapshots, or are refused for what they are; and a scrub finds what is damaged. */
#include "svc/sc/sc_fixture.h"

#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"

#define S1 "snap-00000000000000001"
#define V1 "vol-00000000000000001"
#define SIZE (3 * MIB + 512)

static const char *blockd;

struct image {
	struct http_server *server;
	unsigned char data[SIZE];
	size_t len;
	int status;
	_Atomic unsigned asked, cut; /* cut: so many replies break off */
	char url[64], sha[65];
};

static ssize_t cut_off(void *ctx, uint64_t off, void *buf, size_t max)
{
	struct image *m = ctx;

	if (off > SIZE / 2)
		return -EIO;
	memcpy(buf, m->data + off, MIN_OF(max, SIZE - off));
	return (ssize_t)MIN_OF(max, SIZE - off);
}

static void serve(void *ctx, struct http_request *r)
{
	struct image *m = ctx;

	m->asked++;
	if (m->status != 200)
		http_reply(r, m->status, "application/xml", "<Error><Code>AccessDenied</Code></Error>", 40);
	else if (m->cut && m->cut--)
		http_reply_stream(r, 200, "application/octet-stream", m->len, cut_off, NULL, m);
	else
		http_reply(r, 200, "application/octet-stream", m->data, m->len);
}

static const struct http_handler handler = { .end = serve };

static int start(void **state, const char *hypervisor)
{
	struct image *m = calloc(1, sizeof(*m));
	struct http_server_config c = { .address = "127.0.0.1", .handler = &handler, .ctx = m };
	struct sc_fixture *f = sc_fixture_new(blockd, hypervisor);
	struct error e = { 0 };
	uint64_t seed = 5;

	kit_fill(&seed, m->data, SIZE / KIT_CHUNK * KIT_CHUNK);
	m->len = SIZE;
	m->status = 200;
	unsigned char digest[32];
	gnutls_hash_fast(GNUTLS_DIG_SHA256, m->data, m->len, digest);
	hex_encode(digest, 32, m->sha);
	assert_int_equal(http_server_start(&c, &m->server, &e), 0);
	snprintf(m->url, sizeof(m->url), "http://127.0.0.1:%u/b/k?secret", http_server_port(m->server));
	void **both = calloc(2, sizeof(*both));
	both[0] = f;
	both[1] = m;
	*state = both;
	return 0;
}

static int set_up(void **state)
{
	return start(state, "fake");
}

static int tear_down(void **state)
{
	void **both = *state;
	struct image *m = both[1];

	sc_fixture_free(both[0]);
	http_server_stop(m->server, 0);
	free(m);
	free(both);
	return 0;
}

static void wait_for(struct sc_fixture *f, const char *state)
{
	fix_await_snapshot(f, S1, state);
}

static void test_good(void **state)
{
	void **both = *state;
	struct sc_fixture *f = both[0];
	struct image *m = both[1];
	struct storage_snapshot_observed s;
	unsigned char *data = malloc(SIZE);

	m->cut = 1; /* tried again */
	fix_snapshot(f, &(struct fix_snapshot){ .id = S1, .url = m->url, .sha256 = m->sha });
	wait_for(f, "completed");
	assert_int_equal(m->asked, 2);
	fix_read_snapshot(f, S1, SIZE, data);
	assert_memory_equal(data, m->data, SIZE);
	fix_snapshot_state(f, S1, &s);
	assert_int_equal(s.size_bytes.value, SIZE);
	assert_true(s.data_bytes.value < (int64_t)SIZE + 524288 && s.begin_time.set);
	free(data);
}

static void expect_error(struct sc_fixture *f, struct image *m, const char *sha, const char *why)
{
	struct storage_snapshot_observed s;

	fix_snapshot(f, &(struct fix_snapshot){ .id = S1, .url = m->url, .sha256 = sha });
	wait_for(f, "error");
	fix_snapshot_state(f, S1, &s);
	if (!strstr(s.reason, why))
		fail_msg("\"%s\" does not say \"%s\"", s.reason, why);
	assert_null(strstr(s.reason, "secret"));
	fix_snapshot(f, &(struct fix_snapshot){ .id = S1, .deleted = true });
	wait_for(f, "deleted");
	assert_int_equal(bucket_count(&f->bucket, "packs/"), 0);
	fix_forget(f, NULL, S1);
}

static void test_bad(void **state)
{
	void **both = *state;
	struct image *m = both[1];
	static const struct {
		const char *magic;
		size_t len;
		const char *why;
	} formats[] = { { "QFI\xfb", 4, "qcow2" }, { "KDMV", 4, "VMDK" }, { "\x1f\x8b", 2, "gzip" }, { "\xfd" "7zXZ", 5, "xz" },
			{ "\x28\xb5\x2f\xfd", 4, "zstd" }, { "vhdxfile", 8, "VHDX" } };

	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		memcpy(m->data, formats[i].magic, formats[i].len);
		expect_error(both[0], m, NULL, formats[i].why);
		memset(m->data, 0, 64);
	}
}

static void test_lengths(void **state)
{
	void **both = *state;
	struct sc_fixture *f = both[0];
	struct image *m = both[1];

	m->len = 100;
	expect_error(f, m, NULL, "too short");
}

static void test_odd_length(void **state)
{
	void **both = *state;
	struct image *m = both[1];

	m->len = SIZE - 1;
	expect_error(both[0], m, NULL, "512-byte sectors");
}

static void test_missing(void **state)
{
	void **both = *state;
	struct image *m = both[1];

	m->status = 404;
	expect_error(both[0], m, NULL, "404 AccessDenied");
}

static void test_another_sum(void **state)
{
	void **both = *state;
	struct image *m = both[1];

	m->data[MIB] ^= 1;
	expect_error(both[0], m, m->sha, "SHA-256");
}

static bool is_pending_twice(struct sc_fixture *f, const void *arg)
{
	const struct image *m = arg;

	return m->asked >= 2;
}

/* A URL that has run out: another one is sent. */
static void test_new_url(void **state)
{
	void **both = *state;
	struct sc_fixture *f = both[0];
	struct image *m = both[1];

	m->status = 403;
	fix_snapshot(f, &(struct fix_snapshot){ .id = S1, .url = m->url });
	assert_true(fix_until(is_pending_twice, f, m));
	assert_string_equal(fix_snapshot_state(f, S1, NULL), "pending");
	sc_fixture_restart(f);
	m->status = 200;
	fix_snapshot(f, &(struct fix_snapshot){ .id = S1, .url = m->url, .sha256 = m->sha });
	wait_for(f, "completed");
}

/* ---- scrub ---- */

static void scrub(struct sc_fixture *f, const char *only, struct storage_describe_scrub_response *ret)
{
	struct storage_start_scrub_request in = { 0 };
	struct error e = { 0 };

	if (only)
		in.snapshot_ids = (__typeof__(in.snapshot_ids)){ .set = true, .count = 1, .items = (void *)&only };
	assert_int_equal(scrub_job_start(f->sc->scrub, &in, &e), 0);
	do {
		usleep(5000);
		scrub_job_describe(f->sc->scrub, f->arena, ret);
	} while (str_eq(ret->state, "running"));
}

/* A scrub passes over what a worker is at. */
static bool is_idle(struct sc_fixture *f, const void *id)
{
	pthread_mutex_lock(&f->sc->lock);
	const struct sc_item *item = sc_find(f->sc, id);
	bool idle = item && !item->busy && !item->queued;
	pthread_mutex_unlock(&f->sc->lock);
	return idle;
}

static void test_scrub(void **state)
{
	void **both = *state;
	struct sc_fixture *f = both[0];
	struct image *m = both[1];
	struct storage_describe_scrub_response d;
	char path[4096];

	scrub_job_describe(f->sc->scrub, f->arena, &d);
	assert_string_equal(d.state, "none");
	fix_snapshot(f, &(struct fix_snapshot){ .id = S1, .url = m->url });
	wait_for(f, "completed");
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 4 * MIB });
	fix_await_volume(f, V1, "available");
	assert_true(fix_until(is_idle, f, V1));
	scrub(f, NULL, &d);
	assert_string_equal(d.state, "done");
	assert_int_equal(d.corrupt.value + d.unreadable.value, 0);
	assert_int_equal(d.volumes.value, 1);
	assert_int_equal(d.snapshots.value, 1);
	assert_true(d.chunks.value > 0);
	/* A bit of a pack, a map, and a file that is too short. */
	pthread_mutex_lock(&f->bucket.lock);
	for (size_t i = 0; i < f->bucket.count; i++) {
		if (str_prefix(f->bucket.objects[i].key, "packs/") && f->bucket.objects[i].len > 2000)
			f->bucket.objects[i].data[2000] ^= 4;
	}
	pthread_mutex_unlock(&f->bucket.lock);
	sc_volume_path(f->sc, V1, "cow.map", path, sizeof(path));
	int fd = open(path, O_WRONLY);
	assert_int_equal(write(fd, "MALLEEBM and what is no header", 30), 30);
	assert_int_equal(ftruncate(fd, 65536), 0);
	close(fd);
	sc_volume_path(f->sc, V1, "data.raw", path, sizeof(path));
	assert_int_equal(truncate(path, 4096), 0);
	scrub(f, NULL, &d);
	assert_string_equal(d.state, "done");
	assert_int_equal(d.corrupt.value, 3);
	assert_int_equal(d.findings.count, 3);
	scrub(f, S1, &d);
	assert_int_equal(d.corrupt.value, 1);
	scrub(f, "snap-0000000000000000e", &d);
	assert_int_equal(d.corrupt.value, 1);
	assert_string_equal(d.findings.items[0].resource_id, "snap-0000000000000000e");
}

static void replace_by_fifo(struct sc_fixture *f, const char *file, char path[static 4096])
{
	sc_volume_path(f->sc, V1, file, path, 4096);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
}

/* A volume that is deleted while it is read is not a damaged one. The scrub waits in open() for who writes to a FIFO. */
static void test_scrub_meets_a_deletion(void **state)
{
	void **both = *state;
	struct sc_fixture *f = both[0];
	struct storage_start_scrub_request in = { 0 };
	struct storage_describe_scrub_response d;
	struct error e = { 0 };
	char first[4096], second[4096], other[128];
	int fd;

	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 4 * MIB });
	fix_await_volume(f, V1, "available");
	assert_true(fix_until(is_idle, f, V1));
	replace_by_fifo(f, "cow.map", first);
	replace_by_fifo(f, "changes.map", second);
	snprintf(other, sizeof(other), "%s/second", f->dir);
	assert_int_equal(link(second, other), 0);
	assert_int_equal(scrub_job_start(f->sc->scrub, &in, &e), 0);
	fd = open(first, O_WRONLY); /* when it reads */
	assert_true(fd >= 0);
	close(fd);
	fix_volume(f, &(struct fix_volume){ .id = V1, .size_bytes = 4 * MIB, .deleted = true });
	fix_await_volume(f, V1, "deleted");
	do {
		fd = open(other, O_WRONLY | O_NONBLOCK);
		if (fd >= 0)
			close(fd);
		usleep(5000);
		scrub_job_describe(f->sc->scrub, f->arena, &d);
	} while (str_eq(d.state, "running"));
	assert_string_equal(d.state, "done");
	assert_int_equal(d.volumes.value, 1);
	assert_int_equal(d.corrupt.value + d.unreadable.value, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_good, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bad, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_lengths, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_odd_length, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_missing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_another_sum, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_new_url, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_scrub, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_scrub_meets_a_deletion, set_up, tear_down),
	};

	blockd = argc > 1 ? argv[1] : "mallee-blockd";
	if (argc > 2)
		cmocka_set_test_filter(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
