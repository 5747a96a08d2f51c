/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_SNAP_WRITER_H
#define MALLEE_SVC_SC_SNAP_WRITER_H

#include "svc/sc/snap_store.h"

/*
 * One snapshot on its way up. Chunks are told in ascending order, each at most once; what is not told is as in the parent, or zero
 * where there is none. A chunk that turns out to be the parent's is not sent, so "perhaps changed" may be told as changed. One
 * thread writes; packs are sent by threads of the writer, and put() waits while as many are under way as may be. Memory:
 * (in_flight + 2) packs. The first failure that trying again does not mend ends it all.
 */
struct snap_writer;

struct snap_writer_config {
	const char *snapshot;      /* an id never used before, but to resume */
	const char *volume;        /* "" or NULL: none */
	const char *parent;        /* an existing snapshot; NULL or "": none */
	uint64_t size_bytes;       /* of the volume: a multiple of 512, not less than the parent's */
	unsigned in_flight;        /* packs being sent at once; 0: 2 */
	bool resume;               /* what an upload of this snapshot that died has sent need not be sent again */
	bool no_compression;
	bool encrypted;            /* with a key of its own, or its parent's: a child is what its parent is */
	/* For tests; 0: as the format's. A child has its parent's geometry. */
	uint32_t chunk_bytes, page_chunks, pack_bytes;
};

/* -ENOENT: no such parent; -EBUSY; -EEXIST: the snapshot exists, or was given up; -EINVAL; -ENOKEY, -EKEYREJECTED: encrypted,
 * and there is no master key, or not its parent's. */
int snap_writer_begin(struct snap_store *s, const struct snap_writer_config *c, struct snap_writer **ret, struct error *e);
uint32_t snap_writer_chunk_bytes(const struct snap_writer *w);
uint64_t snap_writer_chunks(const struct snap_writer *w); /* of the volume: the last may be shorter */

/* data: the chunk's bytes, chunk_bytes of them; fewer on the volume's last chunk are filled up with zeroes. */
int snap_writer_put(struct snap_writer *w, uint64_t chunk, const void *data, size_t len, struct error *e);
int snap_writer_zero(struct snap_writer *w, uint64_t first, uint64_t count, struct error *e);
/* All is sent, then the manifest is written: the snapshot exists when this returns 0, and perhaps when it fails (snap_abandon() or
 * snap_info() tell). Nothing but snap_writer_free() may follow. */
int snap_writer_commit(struct snap_writer *w, struct snap_info *ret /* NULL */, struct error *e);

struct snap_progress {
	uint64_t chunks_told;               /* by put() that found something to send, and those it found unchanged or zero */
	uint64_t position, chunks;          /* up to which chunk; of how many */
	uint64_t sent_bytes, added_bytes;   /* answered for; to be sent so far */
	uint64_t resumed_chunks;            /* were there already */
};
void snap_writer_progress(struct snap_writer *w, struct snap_progress *ret); /* any thread */
void snap_writer_cancel(struct snap_writer *w); /* any thread: put() and commit() fail with -ECANCELED soon */

/* Before a commit: what was sent stays, to be resumed or given up (snap_abandon(), gc). NULL is fine. */
void snap_writer_free(struct snap_writer *w);

#endif
