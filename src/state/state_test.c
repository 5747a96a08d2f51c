/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"
#include "os/file.h"
#include "state/state_priv.h"

struct fixture {
	char dir[64], path[96];
	struct state *s;
	struct arena *a;
	struct error e;
};

static struct state *reopen(struct fixture *f)
{
	state_close(f->s);
	f->s = NULL;
	error_clear(&f->e);
	if (state_open(f->path, &f->s, &f->e) < 0)
		fail_msg("%s", f->e.message);
	return f->s;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/mallee-state-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/x.db", f->dir);
	f->a = arena_new();
	*state = f;
	return state_open(f->path, &f->s, &f->e);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	state_close(f->s);
	arena_free(f->a);
	dir_remove(f->dir);
	free(f);
	return 0;
}

static int put(struct fixture *f, const char *id, const char *account, const char *name,
	       const char *doc)
{
	struct state_object o = {
	    .kind = "thing", .id = id, .account = account, .name = name, .doc = doc};

	return state_put(f->s, &o, &f->e);
}

/* The document of a thing, "" when there is none. */
static const char *get(struct fixture *f, const char *id)
{
	struct state_object o;
	int r = state_get(f->s, f->a, "thing", id, &o, &f->e);

	if (r == -ENOENT)
		return "";
	assert_int_equal(r, 0);
	return o.doc;
}

static int64_t count(struct fixture *f)
{
	int64_t n = -1;

	assert_int_equal(state_count(f->s, "thing", NULL, &n, &f->e), 0);
	return n;
}

static void test_put_get_delete(void **state)
{
	struct fixture *f = *state;
	struct state_object o;

	assert_int_equal(put(f, "a", "1", NULL, "{\"x\":\"\xc3\xa9\"}"), 0);
	assert_int_equal(state_get(f->s, f->a, "thing", "a", &o, &f->e), 0);
	assert_string_equal(o.kind, "thing");
	assert_string_equal(o.id, "a");
	assert_string_equal(o.account, "1");
	assert_null(o.name);
	assert_string_equal(o.doc, "{\"x\":\"\xc3\xa9\"}");
	assert_int_equal(o.revision, 1);
	assert_int_equal(state_get(f->s, f->a, "other", "a", &o, &f->e), -ENOENT);
	assert_int_equal(state_delete(f->s, "thing", "b", &f->e), -ENOENT);
	assert_int_equal(state_delete(f->s, "thing", "a", &f->e), 0);
	assert_int_equal(state_delete(f->s, "thing", "a", &f->e), -ENOENT);
	assert_string_equal(get(f, "a"), "");
	assert_false(error_is_set(&f->e));
}

static void test_replace_keeps_the_place(void **state)
{
	struct fixture *f = *state;
	struct state_object *list;
	size_t n;

	assert_int_equal(put(f, "a", "1", NULL, "1"), 0);
	assert_int_equal(put(f, "b", "1", NULL, "2"), 0);
	assert_int_equal(put(f, "a", "1", "named", "3"), 0);
	assert_int_equal(state_list(f->s, f->a, "thing", "1", 0, &list, &n, &f->e), 0);
	assert_int_equal(n, 2);
	assert_string_equal(list[0].id, "a");
	assert_string_equal(list[0].doc, "3");
	assert_string_equal(list[0].name, "named");
	assert_true(list[0].created_seq < list[1].created_seq);
	assert_int_equal(list[0].revision, 3);
}

static void test_list(void **state)
{
	struct fixture *f = *state;
	struct state_object *list;
	int64_t before, some;
	size_t n;

	assert_int_equal(state_list(f->s, f->a, "thing", NULL, 0, &list, &n, &f->e), 0);
	assert_int_equal(n, 0);
	for (int i = 0; i < 200; i++) {
		const char *id = arena_printf(f->a, "%03d", (i * 7) % 200);

		assert_int_equal(put(f, id, i % 2 ? "odd" : "even", NULL, "x"), 0);
	}
	assert_int_equal(put(f, "none", "", NULL, "x"), 0);
	assert_int_equal(state_list(f->s, f->a, "thing", NULL, 0, &list, &n, &f->e), 0);
	assert_int_equal(n, 201);
	for (size_t i = 1; i < n; i++)
		assert_true(list[i - 1].created_seq < list[i].created_seq);
	assert_int_equal(state_list(f->s, f->a, "thing", "odd", 0, &list, &n, &f->e), 0);
	assert_int_equal(n, 100);
	assert_int_equal(state_list(f->s, f->a, "thing", "", 0, &list, &n, &f->e), 0);
	assert_int_equal(n, 1);
	assert_int_equal(state_list(f->s, f->a, "thing", "nobody", 0, &list, &n, &f->e), 0);
	assert_int_equal(n, 0);
	assert_int_equal(state_count(f->s, "thing", "even", &some, &f->e), 0);
	assert_int_equal(some, 100);
	before = state_revision(f->s);
	assert_int_equal(put(f, "007", "odd", NULL, "changed"), 0);
	assert_int_equal(state_list(f->s, f->a, "thing", NULL, before, &list, &n, &f->e), 0);
	assert_int_equal(n, 1);
	assert_string_equal(list[0].doc, "changed");
}

static void test_names_are_unique(void **state)
{
	struct fixture *f = *state;
	struct state_object o;

	assert_int_equal(put(f, "a", "1", "key", "A"), 0);
	assert_int_equal(put(f, "b", "1", "key", "B"), -EEXIST);
	assert_false(error_is_set(&f->e));
	assert_string_equal(get(f, "b"), "");
	assert_int_equal(put(f, "b", "2", "key", "B"), 0);  /* another account */
	assert_int_equal(put(f, "a", "1", "key", "A2"), 0); /* its own */
	assert_int_equal(state_get_by_name(f->s, f->a, "thing", "2", "key", &o, &f->e), 0);
	assert_string_equal(o.id, "b");
	assert_int_equal(state_get_by_name(f->s, f->a, "thing", "1", "Key", &o, &f->e), -ENOENT);
	assert_int_equal(put(f, "a", "1", NULL, "A3"), 0); /* gives the name up */
	assert_int_equal(put(f, "c", "1", "key", "C"), 0);
	/* Taken within a transaction: only that put fails. */
	assert_int_equal(state_begin(f->s, &f->e), 0);
	assert_int_equal(put(f, "d", "1", NULL, "D"), 0);
	assert_int_equal(put(f, "e", "1", "key", "E"), -EEXIST);
	assert_int_equal(state_commit(f->s, &f->e), 0);
	assert_string_equal(get(f, "d"), "D");
	assert_string_equal(get(f, "e"), "");
}

static void test_transactions(void **state)
{
	struct fixture *f = *state;
	int64_t revision;

	assert_int_equal(put(f, "a", "", NULL, "old"), 0);
	revision = state_revision(f->s);
	assert_int_equal(state_begin(f->s, &f->e), 0);
	assert_int_equal(put(f, "a", "", NULL, "new"), 0);
	assert_int_equal(put(f, "b", "", NULL, "new"), 0);
	assert_string_equal(get(f, "b"), "new"); /* seen within */
	assert_true(state_revision(f->s) > revision);
	state_rollback(f->s);
	assert_string_equal(get(f, "a"), "old");
	assert_string_equal(get(f, "b"), "");
	assert_int_equal(state_revision(f->s), revision);
	state_rollback(f->s); /* none is open: nothing happens */
	assert_int_equal(state_begin(f->s, &f->e), 0);
	assert_int_equal(state_delete(f->s, "thing", "a", &f->e), 0);
	assert_int_equal(put(f, "b", "", NULL, "new"), 0);
	assert_int_equal(state_commit(f->s, &f->e), 0);
	reopen(f);
	assert_string_equal(get(f, "a"), "");
	assert_string_equal(get(f, "b"), "new");
}

static void test_misuse_is_an_error(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(state_commit(f->s, &f->e), -EINVAL);
	error_clear(&f->e);
	assert_int_equal(state_begin(f->s, &f->e), 0);
	assert_int_equal(state_begin(f->s, &f->e), -EDEADLK);
	assert_int_equal(put(f, "a", "", NULL, "x"), 0); /* the first is still open */
	assert_int_equal(state_commit(f->s, NULL), 0);
	assert_string_equal(get(f, "a"), "x");
}

static void test_close_undoes_what_is_open(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(state_begin(f->s, &f->e), 0);
	assert_int_equal(put(f, "a", "", NULL, "x"), 0);
	reopen(f);
	assert_string_equal(get(f, "a"), "");
}

static void test_revision_never_goes_back(void **state)
{
	struct fixture *f = *state;
	int64_t revision;

	assert_int_equal(state_revision(f->s), 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(put(f, "a", "", NULL, "x"), 0);
	revision = state_revision(f->s);
	assert_int_equal(state_delete(f->s, "thing", "a", &f->e), 0);
	assert_true(state_revision(f->s) > revision);
	revision = state_revision(f->s);
	reopen(f);
	assert_int_equal(state_revision(f->s), revision);
}

static void test_meta(void **state)
{
	struct fixture *f = *state;
	const char *value = NULL;

	assert_int_equal(state_meta_get(f->s, f->a, "k", &value), -ENOENT);
	assert_int_equal(state_meta_set(f->s, "k", "1", &f->e), 0);
	assert_int_equal(state_meta_set(f->s, "k", "2", &f->e), 0);
	reopen(f);
	assert_int_equal(state_meta_get(f->s, f->a, "k", &value), 0);
	assert_string_equal(value, "2");
}

/* ---- threads ---- */

#define THREADS 4
#define ROUNDS 25

/* Adds one to a counter document ROUNDS times, each in a transaction: nothing may get lost. */
static void *count_up(void *ctx)
{
	struct fixture *f = ctx;

	for (int i = 0; i < ROUNDS; i++) {
		struct arena *a = arena_new();
		struct state_object o = {.kind = "thing", .id = "n", .doc = "0"};
		struct error e = {0};
		int64_t n;

		if (state_begin(f->s, &e) < 0)
			return "begin";
		if (state_get(f->s, a, "thing", "n", &o, &e) < 0 ||
		    parse_i64(o.doc, 0, 1000, &n) < 0)
			return "get";
		o.doc = arena_printf(a, "%lld", (long long)n + 1);
		if (state_put(f->s, &o, &e) < 0 || state_commit(f->s, &e) < 0)
			return "put";
		arena_free(a);
	}
	return NULL;
}

/* What a transaction holds half-done is never seen by others. */
static void *watch_pairs(void *ctx)
{
	struct fixture *f = ctx;

	for (int i = 0; i < ROUNDS * 4; i++) {
		struct arena *a = arena_new();
		struct state_object *list;
		struct error e = {0};
		size_t n;

		if (state_list(f->s, a, "pair", NULL, 0, &list, &n, &e) < 0 || n != 2)
			return "list";
		if (!str_eq(list[0].doc, list[1].doc))
			return "half a transaction";
		arena_free(a);
	}
	return NULL;
}

static void *write_pairs(void *ctx)
{
	struct fixture *f = ctx;

	for (int i = 0; i < ROUNDS; i++) {
		char doc[16];
		struct error e = {0};

		snprintf(doc, sizeof(doc), "%d", i);
		if (state_begin(f->s, &e) < 0 ||
		    state_put(f->s, &(struct state_object){.kind = "pair", .id = "a", .doc = doc},
			      &e) < 0 ||
		    state_put(f->s, &(struct state_object){.kind = "pair", .id = "b", .doc = doc},
			      &e) < 0)
			return "put";
		if (i % 3 == 0)
			state_rollback(f->s);
		else if (state_commit(f->s, &e) < 0)
			return "commit";
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[THREADS + 2];
	int64_t n;

	assert_int_equal(put(f, "n", "", NULL, "0"), 0);
	for (const char *const *id = (const char *const[]){"a", "b", NULL}; *id; id++)
		assert_int_equal(
		    state_put(f->s, &(struct state_object){.kind = "pair", .id = *id, .doc = "-"},
			      &f->e),
		    0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_up, f), 0);
	assert_int_equal(pthread_create(&threads[THREADS], NULL, watch_pairs, f), 0);
	assert_int_equal(pthread_create(&threads[THREADS + 1], NULL, write_pairs, f), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
		void *failed;

		pthread_join(threads[i], &failed);
		if (failed)
			fail_msg("thread %zu: %s", i, (char *)failed);
	}
	assert_int_equal(parse_i64(get(f, "n"), 0, 1000, &n), 0);
	assert_int_equal(n, THREADS * ROUNDS);
}

/* ---- crashes and files that are not as they should be ---- */

/* Writes pairs a<i>, b<i> for ever, telling each i once it is committed. */
static void write_for_ever(struct fixture *f, int fd)
{
	for (int i = 0; i < 100000; i++) {
		char a[16], b[16];

		snprintf(a, sizeof(a), "a%d", i);
		snprintf(b, sizeof(b), "b%d", i);
		if (state_begin(f->s, NULL) < 0 || put(f, a, "", NULL, "x") < 0 ||
		    put(f, b, "", NULL, "x") < 0 || state_commit(f->s, NULL) < 0 ||
		    write(fd, &i, sizeof(i)) != sizeof(i))
			_exit(1);
	}
	_exit(0);
}

static void test_kill_loses_nothing_acknowledged(void **state)
{
	struct fixture *f = *state;

	for (int round = 0; round < 5; round++) {
		int fds[2], last = -1, told, n;
		char id[16];
		pid_t pid;

		unlink(f->path);
		assert_int_equal(pipe(fds), 0);
		state_close(f->s);
		f->s = NULL;
		pid = fork();
		if (pid == 0) {
			if (state_open(f->path, &f->s, &f->e) < 0)
				_exit(1);
			write_for_ever(f, fds[1]);
		}
		close(fds[1]);
		for (n = 0; n < 20 + round * 7 && read(fds[0], &told, sizeof(told)) == sizeof(told);
		     n++)
			last = told;
		kill(pid, SIGKILL);
		while (read(fds[0], &told, sizeof(told)) == sizeof(told))
			last = told;
		waitpid(pid, NULL, 0);
		close(fds[0]);
		assert_true(last >= 19);
		reopen(f);
		for (int i = 0; i <= last; i++) {
			snprintf(id, sizeof(id), "a%d", i);
			assert_string_equal(get(f, id), "x");
			snprintf(id, sizeof(id), "b%d", i);
			assert_string_equal(get(f, id), "x");
		}
		/* The one in flight is there as a whole or not at all. */
		n = (int)count(f);
		assert_int_equal(n % 2, 0);
		assert_true(n / 2 - (last + 1) <= 1);
	}
}

/* Opening must fail with this code and a message that holds the part. */
static void refuse(struct fixture *f, int code, const char *part)
{
	error_clear(&f->e);
	assert_int_equal(state_open(f->path, &f->s, &f->e), code);
	assert_null(f->s);
	assert_non_null(strstr(f->e.message, f->path));
	if (!strstr(f->e.message, part))
		fail_msg("\"%s\" lacks \"%s\"", f->e.message, part);
}

static void close_with(struct fixture *f, const char *statement)
{
	assert_int_equal(sqlite3_exec(f->s->db, statement, NULL, NULL, NULL), SQLITE_OK);
	state_close(f->s);
	f->s = NULL;
}

static void test_newer_schema_is_refused(void **state)
{
	struct fixture *f = *state;
	char *before, *after;
	size_t len, again;

	close_with(f, "PRAGMA user_version = 99");
	assert_int_equal(file_read(f->path, 1 << 20, &before, &len), 0);
	refuse(f, -EPROTONOSUPPORT, "newer Mallee");
	assert_int_equal(file_read(f->path, 1 << 20, &after, &again), 0);
	assert_int_equal(len, again);
	assert_memory_equal(before, after, len); /* and nothing was changed */
	free(before);
	free(after);
}

static void test_foreign_database_is_refused(void **state)
{
	struct fixture *f = *state;

	close_with(f, "PRAGMA application_id = 7");
	refuse(f, -EMEDIUMTYPE, "another program");
}

static void test_rubbish_is_refused(void **state)
{
	struct fixture *f = *state;
	char text[5000];

	state_close(f->s);
	f->s = NULL;
	memset(text, 'x', sizeof(text));
	assert_int_equal(file_write_atomic(f->path, text, sizeof(text), 0600), 0);
	refuse(f, -EUCLEAN, "damaged");
	snprintf(f->path, sizeof(f->path), "%s/none/x.db", f->dir);
	refuse(f, -ENOENT, "Cannot open");
}

static void test_file_is_private(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	char wal[128];

	assert_int_equal(put(f, "a", "", NULL, "secret"), 0);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	snprintf(wal, sizeof(wal), "%s-wal", f->path);
	assert_int_equal(stat(wal, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_full_disk(void **state)
{
	struct fixture *f = *state;
	char *big = arena_alloc(f->a, 300000);

	memset(big, 'x', 299999);
	assert_int_equal(put(f, "a", "", NULL, "kept"), 0);
	assert_int_equal(sqlite3_exec(f->s->db, "PRAGMA max_page_count = 20", NULL, NULL, NULL),
			 SQLITE_OK);
	assert_int_equal(put(f, "b", "", NULL, big), -ENOSPC);
	assert_non_null(strstr(f->e.message, "disk is full"));
	error_clear(&f->e);
	assert_string_equal(get(f, "a"), "kept");
	assert_int_equal(put(f, "c", "", NULL, "fits"), 0);
	/* In a transaction: what came before must not be committed alone. */
	assert_int_equal(state_begin(f->s, &f->e), 0);
	assert_int_equal(put(f, "d", "", NULL, "half"), 0);
	assert_int_equal(put(f, "e", "", NULL, big), -ENOSPC);
	error_clear(&f->e);
	if (sqlite3_get_autocommit(f->s->db)) {
		assert_int_equal(put(f, "f", "", NULL, "stray"), -ECANCELED);
		assert_int_equal(state_commit(f->s, NULL), -ECANCELED);
	} else {
		state_rollback(f->s);
	}
	error_clear(&f->e);
	assert_string_equal(get(f, "d"), "");
	assert_string_equal(get(f, "f"), "");
	assert_int_equal(sqlite3_exec(f->s->db, "PRAGMA max_page_count = 100000", NULL, NULL, NULL),
			 SQLITE_OK);
	assert_int_equal(put(f, "b", "", NULL, big), 0); /* room again: it goes on */
}

/* A transaction that SQLite has undone by itself stays dead to its end. */
static void test_undone_transaction_stays_undone(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(state_begin(f->s, &f->e), 0);
	assert_int_equal(put(f, "a", "", NULL, "x"), 0);
	assert_int_equal(sqlite3_exec(f->s->db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(put(f, "b", "", NULL, "x"), -ECANCELED);
	assert_int_equal(state_delete(f->s, "thing", "b", NULL), -ECANCELED);
	assert_int_equal(state_meta_set(f->s, "k", "v", NULL), -ECANCELED);
	assert_int_equal(state_commit(f->s, NULL), -ECANCELED);
	error_clear(&f->e);
	assert_int_equal(count(f), 0);
	assert_int_equal(put(f, "b", "", NULL, "x"), 0);
}

static void test_read_only(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(put(f, "a", "", NULL, "x"), 0);
	assert_int_equal(sqlite3_exec(f->s->db, "PRAGMA query_only = 1", NULL, NULL, NULL),
			 SQLITE_OK);
	assert_int_equal(put(f, "b", "", NULL, "x"), -EROFS);
	assert_non_null(strstr(f->e.message, "read-only"));
	error_clear(&f->e);
	assert_string_equal(get(f, "a"), "x");
}

/* A real write that fails: the size of files is limited in a child. */
static void test_io_error_is_told(void **state)
{
	struct fixture *f = *state;
	int status;
	pid_t pid;

	state_close(f->s);
	f->s = NULL;
	pid = fork();
	if (pid == 0) {
		struct rlimit limit = {200000, 200000};
		char *big = arena_alloc(f->a, 400000);

		memset(big, 'x', 399999);
		signal(SIGXFSZ, SIG_IGN);
		if (state_open(f->path, &f->s, &f->e) < 0 || put(f, "a", "", NULL, "kept") < 0)
			_exit(1);
		if (setrlimit(RLIMIT_FSIZE, &limit) < 0)
			_exit(2);
		if (put(f, "b", "", NULL, big) >= 0 || !strstr(f->e.message, f->path))
			_exit(3);
		_exit(str_eq(get(f, "a"), "kept") && put(f, "c", "", NULL, "small") == 0 ? 0 : 4);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	reopen(f);
	assert_string_equal(get(f, "a"), "kept");
	assert_string_equal(get(f, "b"), "");
	assert_string_equal(get(f, "c"), "small");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_put_get_delete),
	    TEST(test_replace_keeps_the_place),
	    TEST(test_list),
	    TEST(test_names_are_unique),
	    TEST(test_transactions),
	    TEST(test_misuse_is_an_error),
	    TEST(test_close_undoes_what_is_open),
	    TEST(test_revision_never_goes_back),
	    TEST(test_meta),
	    TEST(test_threads),
	    TEST(test_kill_loses_nothing_acknowledged),
	    TEST(test_newer_schema_is_refused),
	    TEST(test_foreign_database_is_refused),
	    TEST(test_rubbish_is_refused),
	    TEST(test_file_is_private),
	    TEST(test_full_disk),
	    TEST(test_undone_transaction_stays_undone),
	    TEST(test_read_only),
	    TEST(test_io_error_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
