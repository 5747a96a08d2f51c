/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_SNAP_STORE_H
#define MALLEE_SVC_SC_SNAP_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/id.h"
#include "svc/sc/keys.h"
#include "svc/sc/objects.h"

/*
 * The snapshots in one bucket. A snapshot exists from the moment its manifest is written, last of all; deleting takes the manifest
 * away first. What a crash leaves in between is found by snap_gc(). Any number of processes may read; one at a time writes and
 * deletes (a former one that is not quite dead yet does no harm: its upload is given up by a tombstone, which its commit meets).
 * Any thread may call; calls block for the network.
 */
struct snap_store;

/* o stays the caller's, and outlives the store. */
struct snap_store *snap_store_open(struct objects *o);
/* No writer or reader is open. NULL is fine. */
void snap_store_close(struct snap_store *s);
/* Master keys, for encrypted snapshots; the caller's, and outlive the store. Before it is used; without, encrypted ones can be listed
 * and deleted, but neither read nor made. */
void snap_store_use_keys(struct snap_store *s, struct keys *k);
struct objects *snap_store_objects(struct snap_store *s);

struct snap_info {
	char id[ID_LEN], volume[ID_LEN], parent[ID_LEN]; /* parent "": a whole one */
	uint64_t size_bytes;   /* of the volume */
	int64_t time_ms;
	uint32_t chunk_bytes;
	uint64_t data_bytes;   /* of chunks that are not zero, plain */
	uint64_t added_bytes;  /* stored by this snapshot itself */
	bool encrypted;
	char key_id[KEY_ID_LEN]; /* the master key that its key is wrapped by */
};
/* -ENOENT: there is none; -EBADMSG: its manifest is damaged; -EPROTONOSUPPORT: of a later release. */
int snap_info(struct snap_store *s, const char *snapshot, struct snap_info *ret, struct error *e);
/* The key that an encrypted snapshot's lineage is read with, for a process that shall have no more than that (snap_reader_config).
 * -EINVAL: it is not encrypted; -ENOKEY, -EKEYREJECTED: no such master key, or not the right one. */
#define SNAP_DATA_KEY_BYTES 32
int snap_data_key(struct snap_store *s, const char *snapshot, unsigned char ret[static SNAP_DATA_KEY_BYTES], struct error *e);
/* Every committed snapshot by id, the damaged ones too. fn's value other than 0 ends it and is returned. */
int snap_list(struct snap_store *s, int (*fn)(void *ctx, const char *snapshot), void *ctx, struct error *e);

struct snap_removed {
	uint64_t packs;
	uint64_t tombstones, uploads; /* gc: forgotten, given up */
	bool incomplete;   /* delete: the snapshot is gone, some of its packs are left to gc; why is in *e */
};
/* 0 once the manifest is gone. -ENOENT; -EBUSY: read here, or the parent of an upload under way (or of one that died and was
 * neither resumed nor given up: gc). Removed is what no other manifest refers to. */
int snap_delete(struct snap_store *s, const char *snapshot, struct snap_removed *ret, struct error *e);
/* Removes what no manifest refers to: packs of deleted snapshots and of uploads that ended without a commit. Uploads under way in
 * this process are left alone; others that began more than abandon_after_ms ago are given up for good (0: all of them, as is right
 * after a restart, once those to be resumed are). A manifest that cannot be read may refer to anything: then nothing is removed. */
int snap_gc(struct snap_store *s, int64_t abandon_after_ms, struct snap_removed *ret, struct error *e);
/* An upload that will not be resumed: its packs are removed and it can never be committed any more. 0 also when it was committed
 * (then nothing is removed) or never was. -EBUSY: under way here. */
int snap_abandon(struct snap_store *s, const char *snapshot, struct error *e);

/* ---- differences: chunk by chunk, in order ---- */
struct snap_change {
	uint64_t off_bytes, len_bytes; /* one chunk, cut at the volume's end */
	bool is_zero;                  /* in b */
	unsigned char token[32];       /* SHA-256 of the chunk in b (encrypted: an HMAC); zeroes for a zero chunk */
};
/* Up to max chunks at or behind *from_chunk that differ between a (NULL or "": nothing, all that is not zero differs) and b; *from_chunk is
 * then where to go on, and the number of chunks of b at the end. Returns how many. What b is longer by differs where it is not
 * zero. -EINVAL: not comparable (another chunk size), or b is shorter. */
int snap_changes(struct snap_store *s, const char *a, const char *b, uint64_t *from_chunk, struct snap_change *out, unsigned max,
		 struct error *e);

/* ---- scrub ---- */
struct snap_scrubbed {
	uint64_t snapshots, chunks, bytes; /* looked at; bytes as stored */
	uint64_t corrupt;                  /* findings reported */
	uint64_t unreadable;               /* could not be looked at: Walrus did not answer */
};
struct snap_finding {
	const char *snapshot;
	bool whole;           /* its manifest: everything */
	uint64_t first_chunk, chunk_count; /* else */
	bool unreadable;      /* not known to be corrupt */
	const char *message;
};
/* Reads all of a snapshot (NULL: of all snapshots; what several share once) past every cache, and reports what is corrupt. progress
 * (may be NULL) returns true to stop. 0 however much is corrupt; -ECANCELED. */
struct snap_scrub {
	const char *snapshot;
	void (*found)(void *ctx, const struct snap_finding *f);
	bool (*progress)(void *ctx, const struct snap_scrubbed *so_far);
	void *ctx;
};
int snap_scrub(struct snap_store *s, const struct snap_scrub *how, struct snap_scrubbed *ret, struct error *e);

#endif
