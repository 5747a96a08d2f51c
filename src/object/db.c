/* SPDX-License-Identifier: Apache-2.0 */
#include "object/db_priv.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

/* Connections for reading that are kept open when nobody uses them. */
#define POOL_MAX 8
#define BUSY_TIMEOUT_MS 10000
/* Free pages that the database keeps for itself, and how many steps of 512 pages a batch of writes
 * gives back at most. */
#define FREE_PAGES_KEPT 2048
#define VACUUM_STEPS 8

struct db_conn {
	sqlite3 *handle;
	sqlite3_stmt *stmts[SQL_COUNT];
	struct db_conn *next; /* in the pool */
};

struct db_op {
	db_op_fn *fn;
	void *ctx;
	struct error *e;
	int result;
	bool done;
	struct db_op *next;
};

struct db {
	char *path;
	pthread_mutex_t lock; /* of all below */
	pthread_cond_t finished;
	struct db_op *queue, **queue_end;
	bool writing; /* somebody runs a batch on `writer` */
	struct db_conn *pool;
	int pool_count;
	struct db_conn *writer; /* only whoever set `writing` uses it */
};

static int db_error(struct db_conn *c, int code, struct error *e)
{
	bool full = (code & 0xff) == SQLITE_FULL ||
		    ((code & 0xff) == SQLITE_IOERR && sqlite3_system_errno(c->handle) == ENOSPC);

	if (full)
		return error_set(e, "InsufficientStorage",
				 "The disk that holds the object store is full.");
	return error_set(e, "InternalError", "The object store's database failed: %s (%d).",
			 sqlite3_errmsg(c->handle), code);
}

static int conn_run(struct db_conn *c, const char *sql, struct error *e)
{
	int rc = sqlite3_exec(c->handle, sql, NULL, NULL, NULL);

	return rc == SQLITE_OK ? 0 : db_error(c, rc, e);
}

static void conn_free(struct db_conn *c)
{
	if (!c)
		return;
	for (int i = 0; i < SQL_COUNT; i++)
		sqlite3_finalize(c->stmts[i]);
	sqlite3_close(c->handle);
	free(c);
}
DEFINE_CLEANUP(struct db_conn *, conn_free, conn_freep)

static int conn_migrate(struct db_conn *c, struct error *e)
{
	sqlite3_stmt *st = NULL;
	int version = -1;
	int rc = sqlite3_prepare_v2(c->handle, "PRAGMA user_version", -1, &st, NULL);

	if (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW)
		version = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	if (version < 0)
		return db_error(c, rc, e);
	if (version > SQL_SCHEMA_VERSION)
		return error_set(
		    e, "InternalError",
		    "The object store was written by a newer Mallee (schema %d, this one knows %d).",
		    version, SQL_SCHEMA_VERSION);
	if (version == SQL_SCHEMA_VERSION)
		return 0;
	int r = conn_run(c, "BEGIN IMMEDIATE", e);

	if (r >= 0)
		r = conn_run(c, sql_schema, e);
	if (r >= 0)
		r = conn_run(c, "PRAGMA user_version = 1; COMMIT", e);
	static_assert(SQL_SCHEMA_VERSION == 1, "the pragma's number, and a step of migration");
	return r;
}

static int conn_open(const char *path, bool writer, struct db_conn **ret, struct error *e)
{
	_cleanup_(conn_freep) struct db_conn *c = calloc(1, sizeof(*c));
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (writer ? SQLITE_OPEN_CREATE : 0);
	int r;

	if (!c)
		abort();
	int rc = sqlite3_open_v2(path, &c->handle, flags, NULL);

	if (rc != SQLITE_OK)
		return db_error(c, rc, e);
	sqlite3_extended_result_codes(c->handle, 1);
	sqlite3_busy_timeout(c->handle, BUSY_TIMEOUT_MS);
	/* Debian's SQLite overwrites what is deleted unless told not to: a delete would need as
	 * much log as the data had, which a full disk does not have. */
	r = conn_run(
	    c,
	    "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = OFF;"
	    "PRAGMA journal_size_limit = 16777216",
	    e);
	if (r >= 0 && writer)
		r = conn_migrate(c, e);
	if (r >= 0 && !writer)
		r = conn_run(c, "PRAGMA query_only = 1", e);
	if (r < 0)
		return r;
	for (int i = 0; i < SQL_COUNT; i++) {
		rc = sqlite3_prepare_v3(c->handle, sql_texts[i], -1, SQLITE_PREPARE_PERSISTENT,
					&c->stmts[i], NULL);
		if (rc != SQLITE_OK)
			return db_error(c, rc, e);
	}
	*ret = TAKE_PTR(c);
	return 0;
}

int db_open(const char *path, struct db **ret, struct error *e)
{
	struct db *db = calloc(1, sizeof(*db));

	if (!db || !(db->path = strdup(path)))
		abort();
	pthread_mutex_init(&db->lock, NULL);
	pthread_cond_init(&db->finished, NULL);
	db->queue_end = &db->queue;

	int r = conn_open(path, true, &db->writer, e);

	if (r < 0) {
		db_close(db);
		return r;
	}
	*ret = db;
	return 0;
}

void db_close(struct db *db)
{
	if (!db)
		return;
	assert(!db->queue && !db->writing);
	while (db->pool) {
		struct db_conn *c = db->pool;

		db->pool = c->next;
		conn_free(c);
	}
	conn_free(db->writer);
	pthread_cond_destroy(&db->finished);
	pthread_mutex_destroy(&db->lock);
	free(db->path);
	free(db);
}

static void run_one(struct db_conn *c, struct db_op *op)
{
	op->result = conn_run(c, "SAVEPOINT op", op->e);
	if (op->result < 0)
		return;
	op->result = op->fn(c, op->ctx, op->e);
	for (int i = 0; i < SQL_COUNT;
	     i++) /* an open cursor would keep the savepoint from being released */
		if (sqlite3_stmt_busy(c->stmts[i]))
			sqlite3_reset(c->stmts[i]);
	int r = conn_run(c, op->result < 0 ? "ROLLBACK TO op; RELEASE op" : "RELEASE op", op->e);

	if (op->result >= 0)
		op->result = r;
}

static int commit(struct db_conn *c, struct error *e)
{
	int r = conn_run(c, "COMMIT", e);
	int code = sqlite3_extended_errcode(c->handle);

	if (r < 0 && (code == SQLITE_IOERR_FSYNC || code == SQLITE_IOERR_DIR_FSYNC))
		return DB_UNSURE;
	return r;
}

/* One transaction for the whole batch. When it fails as a whole (a full disk may have rolled
 * everything back in the middle), nobody's changes were made. */
static void run_batch(struct db_conn *c, struct db_op *batch)
{
	struct error e = {0};
	int r = conn_run(c, "BEGIN IMMEDIATE", &e);

	for (struct db_op *op = batch; op && r >= 0; op = op->next) {
		run_one(c, op);
		if (sqlite3_get_autocommit(c->handle)) /* rolled back under us */
			r = error_set(&e, op->result < 0 && op->e ? op->e->code : "InternalError",
				      "%s",
				      op->result < 0 && op->e ? op->e->message
							      : "The transaction was undone.");
	}
	if (r >= 0)
		r = commit(c, &e);
	if (r >= 0)
		return;
	if (!sqlite3_get_autocommit(c->handle))
		conn_run(c, "ROLLBACK", NULL);
	for (struct db_op *op = batch; op; op = op->next)
		if (op->result >= 0) {
			error_set(op->e, e.code, "%s", e.message);
			op->result = r;
		}
}

/* Deleting leaves free pages in the database, which new small objects use again, but no file can:
 * what is more than a little of them goes back to the disk. In small steps, so that the log, which
 * moved pages pass through, stays small too. */
static void give_back(struct db_conn *c)
{
	struct error ignored;
	int steps = 0;

	for (; steps < VACUUM_STEPS; steps++) {
		sqlite3_stmt *st = db_stmt(c, SQL_FREE_PAGES);

		error_clear(&ignored);
		if (db_step(c, st, &ignored) <= 0 || sqlite3_column_int(st, 0) < FREE_PAGES_KEPT)
			break;
		sqlite3_reset(st);
		if (conn_run(c, "PRAGMA incremental_vacuum(512)", &ignored) < 0)
			break;
	}
	sqlite3_reset(c->stmts[SQL_FREE_PAGES]);
	if (steps > 0) /* only now the file shrinks; without waiting for readers */
		sqlite3_wal_checkpoint_v2(c->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}

int db_write(struct db *db, db_op_fn *fn, void *ctx, struct error *e)
{
	struct db_op op = {.fn = fn, .ctx = ctx, .e = e};

	pthread_mutex_lock(&db->lock);
	*db->queue_end = &op;
	db->queue_end = &op.next;
	while (!op.done && db->writing)
		pthread_cond_wait(&db->finished, &db->lock);
	if (!op.done) {
		struct db_op *batch = db->queue;

		db->queue = NULL;
		db->queue_end = &db->queue;
		db->writing = true;
		pthread_mutex_unlock(&db->lock);
		run_batch(db->writer, batch);
		give_back(db->writer);
		pthread_mutex_lock(&db->lock);
		while (batch) {
			struct db_op *next = batch->next; /* once done, its owner's stack may go */

			batch->done = true;
			batch = next;
		}
		db->writing = false;
		pthread_cond_broadcast(&db->finished);
	}
	pthread_mutex_unlock(&db->lock);
	return op.result;
}

int db_read_begin(struct db *db, struct db_conn **ret, struct error *e)
{
	pthread_mutex_lock(&db->lock);
	struct db_conn *c = db->pool;

	if (c) {
		db->pool = c->next;
		db->pool_count--;
	}
	pthread_mutex_unlock(&db->lock);
	if (!c)
		return conn_open(db->path, false, ret, e);
	*ret = c;
	return 0;
}

void db_read_end(struct db *db, struct db_conn *c)
{
	for (int i = 0; i < SQL_COUNT;
	     i++) /* an open cursor would hold its snapshot, and the log could not shrink */
		if (sqlite3_stmt_busy(c->stmts[i]))
			sqlite3_reset(c->stmts[i]);
	pthread_mutex_lock(&db->lock);
	bool keep = db->pool_count < POOL_MAX;

	if (keep) {
		c->next = db->pool;
		db->pool = c;
		db->pool_count++;
	}
	pthread_mutex_unlock(&db->lock);
	if (!keep)
		conn_free(c);
}

int db_snapshot_begin(struct db_conn *c, struct error *e)
{
	return conn_run(c, "BEGIN", e);
}

void db_snapshot_end(struct db_conn *c)
{
	for (int i = 0; i < SQL_COUNT; i++)
		if (sqlite3_stmt_busy(c->stmts[i]))
			sqlite3_reset(c->stmts[i]);
	conn_run(c, "COMMIT", NULL);
}

sqlite3_stmt *db_stmt(struct db_conn *c, enum sql which)
{
	sqlite3_reset(c->stmts[which]);
	sqlite3_clear_bindings(c->stmts[which]);
	return c->stmts[which];
}

int db_step(struct db_conn *c, sqlite3_stmt *st, struct error *e)
{
	int rc = sqlite3_step(st);

	if (rc == SQLITE_ROW)
		return 1;
	if (rc == SQLITE_DONE) {
		sqlite3_reset(st);
		return 0;
	}
	return db_error(c, rc, e);
}

int db_exec(struct db_conn *c, sqlite3_stmt *st, struct error *e)
{
	int r = db_step(c, st, e);

	sqlite3_reset(st);
	return r < 0 ? r : 0;
}

void db_bind_key(sqlite3_stmt *st, int i, const char *key)
{
	sqlite3_bind_blob(st, i, key, (int)strlen(key), SQLITE_TRANSIENT);
}

void db_bind_text(sqlite3_stmt *st, int i, const char *text)
{
	sqlite3_bind_text(st, i, text, -1, SQLITE_TRANSIENT);
}

const char *db_column_text(struct arena *a, sqlite3_stmt *st, int col)
{
	return arena_strdup(a, (const char *)sqlite3_column_text(st, col));
}

const char *db_column_key(struct arena *a, sqlite3_stmt *st, int col)
{
	const void *p = sqlite3_column_blob(st, col);

	return arena_strndup(a, p ? p : "", (size_t)sqlite3_column_bytes(st, col));
}
