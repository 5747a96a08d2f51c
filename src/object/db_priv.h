/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OBJECT_DB_PRIV_H
#define MALLEE_OBJECT_DB_PRIV_H

#include <errno.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "object/sql_priv.h"

/*
 * The metadata database. Reads run on connections of their own, out of a pool, each seeing the last
 * commit. Writes go through db_write(): the callers that wait form a batch which one of them runs
 * as one transaction, a savepoint each, so that many small writes share one sync of the log (group
 * commit).
 */
struct db;
struct db_conn;

int db_open(const char *path, struct db **ret, struct error *e);
void db_close(struct db *db);

/* Runs inside the transaction, perhaps on another caller's thread; may run no other db_ function
 * but those on c. A negative return undoes what this one did. */
typedef int db_op_fn(struct db_conn *c, void *ctx, struct error *e);
/* 0 once fn returned 0 and its changes are durable. DB_UNSURE: they are not visible, but the log
 * holds them and could not be synced; a crash before the next write may bring them back. */
#define DB_UNSURE (-EIO)
int db_write(struct db *db, db_op_fn *fn, void *ctx, struct error *e);

int db_read_begin(struct db *db, struct db_conn **ret, struct error *e);
void db_read_end(struct db *db, struct db_conn *c);
/* Several statements that must see the same commit go between these. */
int db_snapshot_begin(struct db_conn *c, struct error *e);
void db_snapshot_end(struct db_conn *c);

/* The prepared statement, reset and without bindings. Its strings are valid until it is stepped or
 * asked for again. */
sqlite3_stmt *db_stmt(struct db_conn *c, enum sql which);
/* 1: a row; 0: no more; negative: failed, with *e set. */
int db_step(struct db_conn *c, sqlite3_stmt *st, struct error *e);
/* For statements without rows: 0 or negative. */
int db_exec(struct db_conn *c, sqlite3_stmt *st, struct error *e);

void db_bind_key(sqlite3_stmt *st, int i,
		 const char *key); /* keys are BLOBs: compared byte by byte */
void db_bind_text(sqlite3_stmt *st, int i, const char *text);
const char *db_column_text(struct arena *a, sqlite3_stmt *st, int col); /* copy; NULL for NULL */
const char *db_column_key(struct arena *a, sqlite3_stmt *st, int col);

#endif
