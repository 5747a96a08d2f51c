/* SPDX-License-Identifier: Apache-2.0 */
#include "object/test_util_priv.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/text.h"

/*
 * What is on the disk when a write is acknowledged. A kill does not show that, since the kernel
 * keeps what was written; so this program puts itself in front of the C library's syncs, SQLite's
 * too, and notes which files they reach and in what order.
 */
#define SYNCS_MAX 64

static struct syncs {
	size_t count;
	struct sync {
		char path[128];
		off_t size;
	} items[SYNCS_MAX];
	bool break_log; /* syncs of the database's log fail */
	bool no_links;	/* files have as many names as they can have */
} syncs;

static int note_sync(int fd, long call)
{
	struct sync *s = &syncs.items[syncs.count % SYNCS_MAX];
	struct stat st;
	char link[32];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, s->path, sizeof(s->path) - 1);

	if (n < 0 || fstat(fd, &st) < 0)
		return -1;
	s->path[n] = '\0';
	s->size = st.st_size;
	syncs.count++;
	if (syncs.break_log && str_suffix(s->path, "-wal")) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(call, fd);
}

int fsync(int fd)
{
	return note_sync(fd, SYS_fsync);
}

int fdatasync(int fd)
{
	return note_sync(fd, SYS_fdatasync);
}

int link(const char *from, const char *to)
{
	if (syncs.no_links) {
		errno = EMLINK;
		return -1;
	}
	return (int)syscall(SYS_link, from, to);
}

static const struct store_condition always = {0};
static const struct store_pairs none = {0};

/* The data file of that size, its folder behind it, and the log behind both. */
static void assert_synced(off_t size)
{
	size_t i = 0;

	assert_true(syncs.count <= SYNCS_MAX);
	while (i < syncs.count && !(strstr(syncs.items[i].path, "/data/") &&
				    syncs.items[i].size == size))
		i++;
	assert_true(i + 2 < syncs.count);
	const char *name = strrchr(syncs.items[i].path, '/');
	const char *folder = syncs.items[i + 1].path;

	assert_int_equal(strlen(folder), name - syncs.items[i].path);
	assert_memory_equal(folder, syncs.items[i].path, strlen(folder));
	assert_true(str_suffix(syncs.items[syncs.count - 1].path, "/walrus.db-wal"));
}

static void assert_log_synced(void)
{
	assert_true(syncs.count > 0 && syncs.count <= SYNCS_MAX);
	assert_true(str_suffix(syncs.items[syncs.count - 1].path, "/walrus.db-wal"));
}

static void test_puts(void **state)
{
	struct fixture *f = *state;
	struct error e = {0};

	for (int i = 0; i < 2; i++) { /* the second one replaces the first */
		syncs.count = 0;
		assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "k", 100000, 1, always, &e));
		assert_synced(100000);
	}
	syncs.count = 0;
	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "small", 100, 1, always, &e));
	assert_log_synced();
	syncs.count = 0;
	assert_ok(&e, store_objects_delete(f->s, f->b.id, (const char *[]){"k"}, 1, NULL, &e));
	assert_log_synced();
}

static void test_uploads(void **state)
{
	struct fixture *f = *state;
	char id[STORE_UPLOAD_ID_LEN];
	struct store_object o;
	struct store_part part;
	struct error e = {0};

	syncs.count = 0;
	assert_ok(&e, store_upload_create(f->s, f->b.id, "m", &none, id, &e));
	assert_log_synced();
	_cleanup_(store_writer_freep) struct store_writer *w = pattern_writer(f->s, 200000, 1, &e);

	syncs.count = 0;
	assert_ok(&e,
		  store_writer_commit_part(w, f->a, f->b.id, "m", id, 1, &none, &part, &e));
	assert_synced(200000);
	struct store_part_ref ref = {1, part.etag};
	struct store_complete done = {
	    .bucket = f->b.id, .key = "m", .upload = id, .parts = &ref, .part_count = 1};

	syncs.count = 0;
	assert_ok(&e, store_upload_complete(f->s, f->a, &done, &o, &e));
	assert_log_synced();
}

static void test_copy(void **state)
{
	struct fixture *f = *state;
	_cleanup_(store_reader_freep) struct store_reader *r = NULL;
	struct store_object o, made;
	struct error e = {0};

	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "k", 100000, 1, always, &e));
	assert_ok(&e, store_object_open(f->s, f->a, f->b.id, "k", &o, &r, &e));
	struct store_copy copy = {
	    .from = r, .object = &o, .to = {.bucket = f->b.id, .key = "copy"}};

	syncs.count = 0;
	assert_ok(&e, store_object_copy(f->s, f->a, &copy, &made, &e));
	assert_true(syncs.count >= 2);
	assert_non_null(strstr(syncs.items[0].path, "/data/"));
	assert_log_synced();
}

static void test_copy_without_links(void **state)
{
	struct fixture *f = *state;
	_cleanup_(store_reader_freep) struct store_reader *r = NULL, *again = NULL;
	struct store_object o, made;
	struct error e = {0};

	assert_ok(&e, pattern_put(f->s, f->a, f->b.id, "k", 100000, 1, always, &e));
	assert_ok(&e, store_object_open(f->s, f->a, f->b.id, "k", &o, &r, &e));
	struct store_copy copy = {
	    .from = r, .object = &o, .to = {.bucket = f->b.id, .key = "copy"}};

	syncs.count = 0;
	syncs.no_links = true;
	int rc = store_object_copy(f->s, f->a, &copy, &made, &e);

	syncs.no_links = false;
	assert_ok(&e, rc);
	assert_synced(100000);
	assert_ok(&e, store_object_open(f->s, f->a, f->b.id, "copy", &o, &again, &e));
	assert_true(pattern_read(again, 0, 100000, 1));
}

/* Overwrites k while the log cannot be synced, and dies. */
static void fail_and_die(const char *dir)
{
	struct arena *a = arena_new();
	struct store_bucket b;
	struct store *s;
	struct error e = {0};

	if (store_open(dir, &s, &e) < 0 || store_bucket_get(s, a, "bucket", &b, &e) < 0 ||
	    pattern_put(s, a, b.id, "k", 100000, 1, always, &e) < 0)
		_exit(1);
	syncs.break_log = true;
	_exit(pattern_put(s, a, b.id, "k", 100000, 2, always, &e) < 0 ? 0 : 2);
}

/* Nobody was told that the second version is there; after a crash it may be, but then whole. */
static void test_failing_log(void **state)
{
	_cleanup_(store_reader_freep) struct store_reader *r = NULL;
	struct fixture *f = *state;
	struct store_object o;
	struct error e = {0};
	int status;

	store_close(TAKE_PTR(f->s));
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		fail_and_die(f->dir);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_ok(&e, store_open(f->dir, &f->s, &e));
	assert_ok(&e, store_object_open(f->s, f->a, f->b.id, "k", &o, &r, &e));
	assert_true(pattern_read(r, 0, 100000, 1) || pattern_read(r, 0, 100000, 2));
	assert_int_equal(fixture_files(f), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_puts, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_uploads, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_copy, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_copy_without_links, fixture_up, fixture_down),
	    cmocka_unit_test_setup_teardown(test_failing_log, fixture_up, fixture_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
