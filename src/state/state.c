/* SPDX-License-Identifier: Apache-2.0 */
#include "state/state_priv.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "os/file.h"

/*
 * One connection under one mutex. The mutex knows its owner, so that functions called within a
 * transaction by the thread that began it do not lock again. Each writing function outside a
 * transaction is one of its own.
 *
 * Some failures (a full disk, an I/O error) make SQLite undo the whole transaction by itself. What
 * a caller would then write "within" it would be committed alone: so everything after such a
 * failure fails, until state_commit() (which fails too) or state_rollback() ends the transaction.
 */

static const char *const sql[STMT_COUNT_OF] = {
    [STMT_BEGIN] = "BEGIN IMMEDIATE",
    [STMT_COMMIT] = "COMMIT",
    [STMT_ROLLBACK] = "ROLLBACK",
    [STMT_NEXT_REVISION] =
	"UPDATE counter SET value = value + 1 WHERE name = 'revision' RETURNING value",
    [STMT_REVISION] = "SELECT value FROM counter WHERE name = 'revision'",
    [STMT_PUT] =
	"INSERT INTO object (kind, id, account, name, doc, revision) VALUES (?1, ?2, ?3, ?4, ?5, ?6) "
	"ON CONFLICT (kind, id) DO UPDATE SET account = excluded.account, name = excluded.name, "
	"doc = excluded.doc, revision = excluded.revision",
    [STMT_GET] =
	"SELECT kind, id, account, name, doc, revision, seq FROM object WHERE kind = ?1 AND id = ?2",
    [STMT_GET_BY_NAME] = "SELECT kind, id, account, name, doc, revision, seq FROM object "
			 "WHERE kind = ?1 AND account = ?2 AND name = ?3",
    [STMT_DELETE] = "DELETE FROM object WHERE kind = ?1 AND id = ?2",
    [STMT_LIST] = "SELECT kind, id, account, name, doc, revision, seq FROM object "
		  "WHERE kind = ?1 AND (?2 IS NULL OR account = ?2) AND revision > ?3 ORDER BY seq",
    [STMT_COUNT] = "SELECT count(*) FROM object WHERE kind = ?1 AND (?2 IS NULL OR account = ?2)",
    [STMT_META_GET] = "SELECT value FROM meta WHERE key = ?1",
    [STMT_META_SET] = "INSERT INTO meta (key, value) VALUES (?1, ?2) "
		      "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
};

/* ---- failures ---- */

int state_failure(const struct state *s, int sqlite_code, const char *what, struct error *e)
{
	int err = EIO;
	const char *why = sqlite3_errmsg(s->db);

	switch (sqlite_code & 0xff) {
	case SQLITE_FULL:
		err = ENOSPC;
		why = "the disk is full. Make room on it; nothing that was acknowledged is lost";
		break;
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		err = EROFS;
		why =
		    "it is read-only for this user. Check the owner of the file and how its disk is mounted";
		break;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		err = EBUSY;
		why = "another process uses it";
		break;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		err = EUCLEAN;
		why = "it is damaged or no database";
		break;
	case SQLITE_NOMEM:
		err = ENOMEM;
		break;
	case SQLITE_TOOBIG:
		err = EFBIG;
		break;
	}
	error_set(e, "InternalError", "Cannot %s %s: %s.", what, s->path, why);
	return -err;
}

/* ---- the mutex ---- */

/* Returns whether this call took it: leave() gets that. */
static bool enter(struct state *s)
{
	pid_t self = gettid();

	if (atomic_load_explicit(&s->owner, memory_order_relaxed) == self)
		return false;
	pthread_mutex_lock(&s->mutex);
	atomic_store_explicit(&s->owner, self, memory_order_relaxed);
	return true;
}

static void leave(struct state *s, bool taken)
{
	if (!taken)
		return;
	atomic_store_explicit(&s->owner, 0, memory_order_relaxed);
	pthread_mutex_unlock(&s->mutex);
}

static bool owned_by_us(const struct state *s)
{
	return atomic_load_explicit(&s->owner, memory_order_relaxed) == gettid();
}

/* ---- statements ---- */

static int prepare(struct state *s, enum statement which, sqlite3_stmt **ret, struct error *e)
{
	if (!s->statements[which]) {
		int r = sqlite3_prepare_v3(s->db, sql[which], -1, SQLITE_PREPARE_PERSISTENT,
					   &s->statements[which], NULL);

		if (r != SQLITE_OK)
			return state_failure(s, r, "read", e);
	}
	*ret = s->statements[which];
	return 0;
}

static void done(sqlite3_stmt *stmt)
{
	sqlite3_reset(stmt);
	sqlite3_clear_bindings(stmt);
}

/* The texts live until done(): no copy. NULL binds NULL. */
static void bind_text(sqlite3_stmt *stmt, int index, const char *text)
{
	sqlite3_bind_text(stmt, index, text, -1, SQLITE_STATIC);
}

/* Runs a statement that gives no row. SQLITE_DONE or an error code. */
static int run_plain(struct state *s, enum statement which, const char *what, struct error *e)
{
	sqlite3_stmt *stmt = NULL;
	int r = prepare(s, which, &stmt, e);

	if (r < 0)
		return r;
	r = sqlite3_step(stmt);
	done(stmt);
	return r == SQLITE_DONE ? 0 : state_failure(s, r, what, e);
}

/* ---- transactions ---- */

/* Within state_begin(): that SQLite has not undone it meanwhile. Outside: begin one for this call.
 */
static int write_begin(struct state *s, struct error *e)
{
	if (!s->in_transaction)
		return run_plain(s, STMT_BEGIN, "write", e);
	if (sqlite3_get_autocommit(s->db)) {
		error_set(e, "InternalError",
			  "The transaction in %s was undone by an earlier failure.", s->path);
		return -ECANCELED;
	}
	return 0;
}

static void undo(struct state *s)
{
	if (!sqlite3_get_autocommit(s->db))
		run_plain(s, STMT_ROLLBACK, "write", NULL);
}

/* Ends what write_begin() began, if it was this call's own. r is the call's result so far. */
static int write_end(struct state *s, int r, struct error *e)
{
	if (s->in_transaction)
		return r;
	if (r == 0)
		r = run_plain(s, STMT_COMMIT, "write", e);
	if (r < 0)
		undo(s);
	return r;
}

int state_begin(struct state *s, struct error *e)
{
	int r;

	if (owned_by_us(s))
		return error_errno(e, EDEADLK, "A transaction is open already");
	enter(s);
	r = run_plain(s, STMT_BEGIN, "write", e);
	if (r < 0) {
		leave(s, true);
		return r;
	}
	s->in_transaction = true;
	return 0;
}

int state_commit(struct state *s, struct error *e)
{
	int r;

	if (!owned_by_us(s))
		return error_errno(e, EINVAL, "No transaction is open");
	r = write_begin(s, e);
	s->in_transaction = false;
	r = r < 0 ? r : write_end(s, 0, e);
	leave(s, true);
	return r;
}

void state_rollback(struct state *s)
{
	if (!owned_by_us(s))
		return;
	s->in_transaction = false;
	undo(s);
	leave(s, true);
}

/* ---- opening ---- */

/* SQLite would make the file readable for all; documents hold secret keys. Its -wal and -shm get
 * the same mode. */
static int make_file(const char *path, struct error *e)
{
	_cleanup_(fd_closep) int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);

	return fd < 0 ? error_errno(e, errno, "Cannot open %s", path) : 0;
}

int state_open(const char *path, struct state **ret, struct error *e)
{
	struct state *s;
	int r = make_file(path, e);

	if (r < 0)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s)
		abort();
	pthread_mutex_init(&s->mutex, NULL);
	s->path = strdup(path);
	if (!s->path)
		abort();
	/* NOMUTEX: our own covers the connection. */
	r = sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (r != SQLITE_OK)
		r = state_failure(s, r, "open", e);
	else
		r = state_schema_open(s, e);
	if (r < 0) {
		state_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

void state_close(struct state *s)
{
	if (!s)
		return;
	state_rollback(s);
	for (size_t i = 0; i < STMT_COUNT_OF; i++)
		sqlite3_finalize(s->statements[i]);
	sqlite3_close(s->db);
	pthread_mutex_destroy(&s->mutex);
	free(s->path);
	free(s);
}

/* ---- objects ---- */

static int next_revision(struct state *s, int64_t *ret, struct error *e)
{
	sqlite3_stmt *stmt = NULL;
	int r = prepare(s, STMT_NEXT_REVISION, &stmt, e);

	if (r < 0)
		return r;
	r = sqlite3_step(stmt);
	if (r == SQLITE_ROW) {
		*ret = sqlite3_column_int64(stmt, 0);
		/* To its end: the change counts when the statement is done. */
		r = sqlite3_step(stmt);
	}
	done(stmt);
	return r == SQLITE_DONE ? 0 : state_failure(s, r, "write", e);
}

static int put_row(struct state *s, const struct state_object *o, int64_t revision, struct error *e)
{
	sqlite3_stmt *stmt = NULL;
	int r = prepare(s, STMT_PUT, &stmt, e), extended;

	if (r < 0)
		return r;
	bind_text(stmt, 1, o->kind);
	bind_text(stmt, 2, o->id);
	bind_text(stmt, 3, o->account ? o->account : "");
	bind_text(stmt, 4, o->name);
	bind_text(stmt, 5, o->doc);
	sqlite3_bind_int64(stmt, 6, revision);
	r = sqlite3_step(stmt);
	extended = sqlite3_extended_errcode(s->db);
	done(stmt);
	if (r == SQLITE_DONE)
		return 0;
	if (extended == SQLITE_CONSTRAINT_UNIQUE)
		return -EEXIST;
	return state_failure(s, r, "write", e);
}

int state_put(struct state *s, const struct state_object *o, struct error *e)
{
	bool taken = enter(s);
	int64_t revision = 0;
	int r;

	assert(o->kind && o->id && o->doc);
	r = write_begin(s, e);
	if (r == 0) {
		r = next_revision(s, &revision, e);
		if (r == 0)
			r = put_row(s, o, revision, e);
		r = write_end(s, r, e);
	}
	leave(s, taken);
	return r;
}

static const char *column_text(sqlite3_stmt *stmt, struct arena *a, int column)
{
	const unsigned char *text = sqlite3_column_text(stmt, column);

	return text ? arena_strndup(a, (const char *)text,
				    (size_t)sqlite3_column_bytes(stmt, column))
		    : NULL;
}

static void read_row(sqlite3_stmt *stmt, struct arena *a, struct state_object *o)
{
	o->kind = column_text(stmt, a, 0);
	o->id = column_text(stmt, a, 1);
	o->account = column_text(stmt, a, 2);
	o->name = column_text(stmt, a, 3);
	o->doc = column_text(stmt, a, 4);
	o->revision = sqlite3_column_int64(stmt, 5);
	o->created_seq = sqlite3_column_int64(stmt, 6);
}

/* One row by up to three keys. */
static int get_row(struct state *s, struct arena *a, enum statement which,
		   const char *const keys[3], struct state_object *ret, struct error *e)
{
	bool taken = enter(s);
	sqlite3_stmt *stmt = NULL;
	int r = prepare(s, which, &stmt, e);

	if (r == 0) {
		for (int i = 0; i < 3 && keys[i]; i++)
			bind_text(stmt, i + 1, keys[i]);
		r = sqlite3_step(stmt);
		if (r == SQLITE_ROW) {
			read_row(stmt, a, ret);
			r = 0;
		} else {
			r = r == SQLITE_DONE ? -ENOENT : state_failure(s, r, "read", e);
		}
		done(stmt);
	}
	leave(s, taken);
	return r;
}

int state_get(struct state *s, struct arena *a, const char *kind, const char *id,
	      struct state_object *ret, struct error *e)
{
	return get_row(s, a, STMT_GET, (const char *const[]){kind, id, NULL}, ret, e);
}

int state_get_by_name(struct state *s, struct arena *a, const char *kind, const char *account,
		      const char *name, struct state_object *ret, struct error *e)
{
	return get_row(s, a, STMT_GET_BY_NAME,
		       (const char *const[]){kind, account ? account : "", name}, ret, e);
}

static int delete_row(struct state *s, const char *kind, const char *id, struct error *e)
{
	sqlite3_stmt *stmt = NULL;
	int64_t revision;
	int r = prepare(s, STMT_DELETE, &stmt, e);

	if (r < 0)
		return r;
	bind_text(stmt, 1, kind);
	bind_text(stmt, 2, id);
	r = sqlite3_step(stmt);
	done(stmt);
	if (r != SQLITE_DONE)
		return state_failure(s, r, "write", e);
	return sqlite3_changes(s->db) == 0 ? -ENOENT : next_revision(s, &revision, e);
}

int state_delete(struct state *s, const char *kind, const char *id, struct error *e)
{
	bool taken = enter(s);
	int r = write_begin(s, e);

	if (r == 0)
		r = write_end(s, delete_row(s, kind, id, e), e);
	leave(s, taken);
	return r;
}

static int list_rows(sqlite3_stmt *stmt, struct arena *a, struct state_object **ret,
		     size_t *ret_count)
{
	struct state_object *rows = NULL;
	size_t count = 0, room = 0;
	int r;

	while ((r = sqlite3_step(stmt)) == SQLITE_ROW) {
		if (count == room) {
			room = room ? room * 2 : 64;
			rows = reallocarray(rows, room, sizeof(*rows));
			if (!rows)
				abort();
		}
		read_row(stmt, a, &rows[count++]);
	}
	if (r == SQLITE_DONE) {
		*ret = arena_memdup(a, rows, count * sizeof(*rows));
		*ret_count = count;
	}
	free(rows);
	return r;
}

int state_list(struct state *s, struct arena *a, const char *kind, const char *account,
	       int64_t since_revision, struct state_object **ret, size_t *ret_count,
	       struct error *e)
{
	bool taken = enter(s);
	sqlite3_stmt *stmt = NULL;
	int r = prepare(s, STMT_LIST, &stmt, e);

	if (r == 0) {
		bind_text(stmt, 1, kind);
		bind_text(stmt, 2, account);
		sqlite3_bind_int64(stmt, 3, since_revision);
		r = list_rows(stmt, a, ret, ret_count);
		r = r == SQLITE_DONE ? 0 : state_failure(s, r, "read", e);
		done(stmt);
	}
	leave(s, taken);
	return r;
}

int state_count(struct state *s, const char *kind, const char *account, int64_t *ret,
		struct error *e)
{
	bool taken = enter(s);
	sqlite3_stmt *stmt = NULL;
	int r = prepare(s, STMT_COUNT, &stmt, e);

	if (r == 0) {
		bind_text(stmt, 1, kind);
		bind_text(stmt, 2, account);
		r = sqlite3_step(stmt);
		if (r == SQLITE_ROW)
			*ret = sqlite3_column_int64(stmt, 0);
		r = r == SQLITE_ROW ? 0 : state_failure(s, r, "read", e);
		done(stmt);
	}
	leave(s, taken);
	return r;
}

int64_t state_revision(struct state *s)
{
	bool taken = enter(s);
	int64_t revision = 0;
	sqlite3_stmt *stmt = NULL;

	if (prepare(s, STMT_REVISION, &stmt, NULL) == 0) {
		if (sqlite3_step(stmt) == SQLITE_ROW)
			revision = sqlite3_column_int64(stmt, 0);
		done(stmt);
	}
	leave(s, taken);
	return revision;
}

/* ---- small values ---- */

int state_meta_get(struct state *s, struct arena *a, const char *key, const char **ret_value)
{
	bool taken = enter(s);
	sqlite3_stmt *stmt = NULL;
	int r = prepare(s, STMT_META_GET, &stmt, NULL);

	if (r == 0) {
		bind_text(stmt, 1, key);
		r = sqlite3_step(stmt);
		if (r == SQLITE_ROW)
			*ret_value = column_text(stmt, a, 0);
		r = r == SQLITE_ROW    ? 0
		    : r == SQLITE_DONE ? -ENOENT
				       : state_failure(s, r, "read", NULL);
		done(stmt);
	}
	leave(s, taken);
	return r;
}

static int meta_row(struct state *s, const char *key, const char *value, struct error *e)
{
	sqlite3_stmt *stmt = NULL;
	int r = prepare(s, STMT_META_SET, &stmt, e);

	if (r < 0)
		return r;
	bind_text(stmt, 1, key);
	bind_text(stmt, 2, value);
	r = sqlite3_step(stmt);
	done(stmt);
	return r == SQLITE_DONE ? 0 : state_failure(s, r, "write", e);
}

int state_meta_set(struct state *s, const char *key, const char *value, struct error *e)
{
	bool taken = enter(s);
	int r = write_begin(s, e);

	if (r == 0)
		r = write_end(s, meta_row(s, key, value, e), e);
	leave(s, taken);
	return r;
}
