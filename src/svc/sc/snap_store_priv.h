/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_SNAP_STORE_PRIV_H
#define MALLEE_SVC_SC_SNAP_STORE_PRIV_H

#include <pthread.h>

#include "svc/sc/snap_format_priv.h"
#include "svc/sc/snap_store.h"

/* Who uses which snapshot in this process; `lock` guards the list, and is not held over I/O. */
enum snap_use_kind {
	SNAP_WRITES,  /* its upload is under way */
	SNAP_PARENT,  /* the parent of such a one */
	SNAP_READS,
	SNAP_REMOVES, /* being deleted or given up: excludes all others */
};
struct snap_use {
	char id[ID_LEN];
	enum snap_use_kind kind;
	struct snap_use *next;
};

struct snap_lineage { /* manifests do not change, so neither does this */
	char id[ID_LEN], lineage[ID_LEN];
};

struct snap_store {
	struct objects *objects;
	struct keys *keys; /* NULL: none */
	pthread_mutex_t lock;
	struct snap_use *uses;
	struct snap_lineage *lineages;
	size_t lineage_count, lineage_cap;
};

/* SNAP_WRITES and SNAP_REMOVES exclude each other and themselves; SNAP_REMOVES excludes all. -EBUSY. */
int snap_use(struct snap_store *s, const char *id, enum snap_use_kind kind, struct snap_use **ret, struct error *e);
void snap_unuse(struct snap_store *s, struct snap_use *u); /* NULL is fine */
bool snap_is_used(struct snap_store *s, const char *id, enum snap_use_kind kind);

/* Tombstones are -ENOENT here. */
int snap_load_root(struct snap_store *s, const char *snapshot, struct snap_root **ret, struct error *e);
/* As above, ready to be read: with its cipher where it is encrypted. key NULL: by the store's keys. */
int snap_open_root(struct snap_store *s, const char *snapshot, const unsigned char *key, struct snap_root **ret, struct error *e);
/* As snap_load_root(), with tombstones. */
int snap_load_any_root(struct snap_store *s, const char *snapshot, struct snap_root **ret, struct error *e);
/* Of the upload that left it. A mark that cannot be understood has a parent "?". */
int snap_read_mark(struct snap_store *s, const char *id, struct snap_mark *ret, struct error *e);
/* A stored page. r is ready to be read. -EBADMSG: corrupt or missing, with a message that names it; else Walrus' error. */
int snap_load_page(struct objects *o, const struct snap_root *r, uint64_t index, struct snap_page **ret, struct error *e);
/* A page, stored or not (then all zero). */
int snap_get_page(struct objects *o, const struct snap_root *r, uint64_t index, struct snap_page **ret, struct error *e);
/* One chunk of a page: r->chunk_bytes into out, verified. As above. */
int snap_load_chunk(struct objects *o, const struct snap_root *r, const struct snap_page *p, unsigned i, struct buf *scratch,
		    void *out, struct error *e);
/* The same out of what is stored, of which c->len bytes are at hand. -EBADMSG. */
int snap_read_chunk(const struct snap_root *r, const struct snap_page *p, unsigned i, const void *stored, void *out);
/* What an encrypted chunk is called in a cache: a name of the place where it lies. */
void snap_chunk_name(const struct snap_page *p, unsigned i, unsigned char out[static SHA256_LEN]);
void snap_page_chunk_key(const struct snap_page *p, unsigned i, char out[static SNAP_KEY_MAX]);

/* All ids of roots. The caller frees ids->... */
struct snap_ids {
	char (*id)[ID_LEN];
	size_t count, cap;
};
void snap_ids_done(struct snap_ids *ids);
void snap_ids_add(struct snap_ids *ids, const char *id);
int snap_all_ids(struct snap_store *s, const char *prefix, struct snap_ids *ret, struct error *e);

#endif
