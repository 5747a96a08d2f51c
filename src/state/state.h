/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_STATE_STATE_H
#define MALLEE_STATE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

/*
 * Durable state: objects of a kind, each a JSON document under an id, in one SQLite file (WAL, synchronous=FULL). The documents
 * are described and coded by the generator (api/internal/records.json); this layer stores text. A second, optional name is unique
 * within (kind, account): key pair names, client tokens. Listing is by kind, optionally by account, in order of creation.
 *
 * One struct state may be used from any thread: it holds one connection and a mutex; a transaction holds that mutex from begin to
 * commit, so keep transactions short and make no network call within one. Every function outside a transaction is its own.
 */
struct state;

/* Opens or makes path; migrates schema versions up, refuses newer ones ("written by a newer Mallee"). */
int state_open(const char *path, struct state **ret, struct error *e);
void state_close(struct state *s);

int state_begin(struct state *s, struct error *e);
int state_commit(struct state *s, struct error *e);
void state_rollback(struct state *s); /* no-op when none is open by this thread */

struct state_object {
	const char *kind, *id;
	const char *account; /* "" for what belongs to no account */
	const char *name;    /* NULL: none */
	const char *doc;     /* JSON text */
	int64_t revision;    /* of the last change; global, ever growing */
	int64_t created_seq; /* order of creation */
};

/* Insert or replace by (kind, id); revision and created_seq of *o are not looked at. -EEXIST (error untouched) when the name is
 * taken by another id. */
int state_put(struct state *s, const struct state_object *o, struct error *e);
/* -ENOENT when missing (error untouched). Strings live in a. */
int state_get(struct state *s, struct arena *a, const char *kind, const char *id, struct state_object *ret, struct error *e);
int state_get_by_name(struct state *s, struct arena *a, const char *kind, const char *account, const char *name,
		      struct state_object *ret, struct error *e);
int state_delete(struct state *s, const char *kind, const char *id, struct error *e); /* -ENOENT (error untouched) */
/* account NULL: all. since_revision: only those changed after it (0: all). */
int state_list(struct state *s, struct arena *a, const char *kind, const char *account, int64_t since_revision,
	       struct state_object **ret, size_t *ret_count, struct error *e);
int state_count(struct state *s, const char *kind, const char *account, int64_t *ret, struct error *e);
/* The newest revision. */
int64_t state_revision(struct state *s);

/* Small named values (schema notes, counters): */
int state_meta_get(struct state *s, struct arena *a, const char *key, const char **ret_value); /* -ENOENT */
int state_meta_set(struct state *s, const char *key, const char *value, struct error *e);

#endif
