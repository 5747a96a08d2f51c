/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file's schema. Step n of the table brings version n to n + 1, in one transaction; steps are
 * only ever added. The version stands in SQLite's user_version, and the application id tells our
 * files from others'.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "state/state_priv.h"

static const char *const steps[STATE_SCHEMA_VERSION] = {
    /* 0 to 1. seq never returns after a deletion (AUTOINCREMENT). */
    "CREATE TABLE object ("
    "  seq INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  kind TEXT NOT NULL, id TEXT NOT NULL, account TEXT NOT NULL, name TEXT,"
    "  doc TEXT NOT NULL, revision INTEGER NOT NULL,"
    "  UNIQUE (kind, id));"
    "CREATE UNIQUE INDEX object_name ON object (kind, account, name) WHERE name IS NOT NULL;"
    "CREATE INDEX object_account ON object (kind, account, seq);"
    "CREATE INDEX object_revision ON object (kind, revision);"
    "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "INSERT INTO counter VALUES ('revision', 0);"
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;",
};

static int run(struct state *s, const char *sql, const char *what, struct error *e)
{
	int r = sqlite3_exec(s->db, sql, NULL, NULL, NULL);

	return r == SQLITE_OK ? 0 : state_failure(s, r, what, e);
}

/* The first column of a statement's first row, as an integer. */
static int query_int(struct state *s, const char *sql, int64_t *ret, struct error *e)
{
	sqlite3_stmt *stmt = NULL;
	int r = sqlite3_prepare_v2(s->db, sql, -1, &stmt, NULL);

	if (r == SQLITE_OK)
		r = sqlite3_step(stmt);
	if (r == SQLITE_ROW)
		*ret = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	return r == SQLITE_ROW ? 0 : state_failure(s, r, "read the header of", e);
}

static int migrate(struct state *s, int64_t version, struct error *e)
{
	for (; version < STATE_SCHEMA_VERSION; version++) {
		char mark[128];
		int r;

		snprintf(mark, sizeof(mark),
			 "PRAGMA application_id = %d; PRAGMA user_version = %lld; COMMIT",
			 STATE_APPLICATION_ID, (long long)version + 1);
		r = run(s, "BEGIN IMMEDIATE", "change the schema of", e);
		if (r == 0)
			r = run(s, steps[version], "change the schema of", e);
		if (r == 0)
			r = run(s, mark, "change the schema of", e);
		if (r < 0) {
			if (!sqlite3_get_autocommit(s->db))
				sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
			return r;
		}
	}
	return 0;
}

/* Whose file it is and of which version, before anything is changed. */
static int check_header(struct state *s, int64_t *ret_version, struct error *e)
{
	int64_t application, version, tables;
	int r = query_int(s, "PRAGMA application_id", &application, e);

	if (r == 0)
		r = query_int(s, "PRAGMA user_version", &version, e);
	if (r == 0)
		r = query_int(s, "SELECT count(*) FROM sqlite_schema", &tables, e);
	if (r < 0)
		return r;
	if (application != STATE_APPLICATION_ID &&
	    (tables > 0 || version != 0 || application != 0)) {
		error_set(e, "InternalError", "%s is a database of another program.", s->path);
		return -EMEDIUMTYPE;
	}
	if (version > STATE_SCHEMA_VERSION) {
		error_set(
		    e, "InternalError",
		    "%s was written by a newer Mallee (schema %lld; this one knows up to %d). Install that "
		    "version again, or give this one a state folder of its own.",
		    s->path, (long long)version, STATE_SCHEMA_VERSION);
		return -EPROTONOSUPPORT;
	}
	if (version < 0 || (application == STATE_APPLICATION_ID && version == 0))
		return state_failure(s, SQLITE_CORRUPT, "read the header of", e);
	*ret_version = version;
	return 0;
}

/* SQLite answers with the mode that it took, which is another one where shared memory cannot be
 * had. */
static int use_wal(struct state *s, struct error *e)
{
	sqlite3_stmt *stmt = NULL;
	int r = sqlite3_prepare_v2(s->db, "PRAGMA journal_mode = WAL", -1, &stmt, NULL);
	bool wal = false;

	if (r == SQLITE_OK)
		r = sqlite3_step(stmt);
	if (r == SQLITE_ROW)
		wal = str_eq((const char *)sqlite3_column_text(stmt, 0), "wal");
	sqlite3_finalize(stmt);
	if (r != SQLITE_ROW)
		return state_failure(s, r, "set up", e);
	if (!wal) {
		error_set(e, "InternalError",
			  "The file system of %s cannot hold a write-ahead log.", s->path);
		return -EOPNOTSUPP;
	}
	return 0;
}

int state_schema_open(struct state *s, struct error *e)
{
	int64_t version = 0;
	int r;

	sqlite3_busy_timeout(s->db, 5000);
	r = check_header(s, &version, e);
	if (r < 0)
		return r;
	if (sqlite3_db_readonly(s->db, "main") == 1)
		return state_failure(s, SQLITE_READONLY, "write", e);
	r = use_wal(s, e);
	if (r == 0)
		r = run(s, "PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864",
			"set up", e);
	return r < 0 ? r : migrate(s, version, e);
}
