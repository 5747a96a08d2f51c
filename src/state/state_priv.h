/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_STATE_STATE_PRIV_H
#define MALLEE_STATE_STATE_PRIV_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "state/state.h"

enum statement {
	STMT_BEGIN,
	STMT_COMMIT,
	STMT_ROLLBACK,
	STMT_NEXT_REVISION,
	STMT_REVISION,
	STMT_PUT,
	STMT_GET,
	STMT_GET_BY_NAME,
	STMT_DELETE,
	STMT_LIST,
	STMT_COUNT,
	STMT_META_GET,
	STMT_META_SET,
	STMT_COUNT_OF,
};

struct state {
	char *path;
	sqlite3 *db;
	sqlite3_stmt *statements[STMT_COUNT_OF]; /* prepared at first use */
	pthread_mutex_t mutex;			 /* over everything here and the connection */
	_Atomic pid_t owner;			 /* thread that holds the mutex; 0: none */
	bool in_transaction;			 /* begun by state_begin() of the owner */
};

#define STATE_APPLICATION_ID 0x4d6c6c65 /* in the file's header: "Mlle" */
#define STATE_SCHEMA_VERSION 1

/* schema.c: set up the connection and bring the file to STATE_SCHEMA_VERSION. */
int state_schema_open(struct state *s, struct error *e);

/* SQLite's error as ours. *e says what was tried, on which file, and why it failed. */
int state_failure(const struct state *s, int sqlite_code, const char *what, struct error *e);

#endif
