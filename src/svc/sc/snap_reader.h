/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_SNAP_READER_H
#define MALLEE_SVC_SC_SNAP_READER_H

#include <sys/uio.h>

#include "base/buf.h"
#include "svc/sc/chunk_cache.h"
#include "svc/sc/snap_store.h"

/*
 * A snapshot's bytes, fetched as they are asked for: chunks in memory, then the local cache, then Walrus; each chunk is compared
 * with its digest whichever way it came. An encrypted one is encrypted in the local cache, too. Callers that want the same chunk at once share one fetch; who reads in sequence has the
 * next chunks fetched ahead. Memory: `chunks` chunks, `pages` pages of the manifest (about 64 kB each), and the manifest's root.
 */
struct snap_reader;

struct snap_reader_config {
	const char *snapshot;
	const unsigned char *key;   /* of an encrypted one (snap_data_key()), for the opening only; NULL: by the store's master keys */
	struct chunk_cache *cache;  /* NULL: none. Stays the caller's; readers may share it */
	unsigned threads;           /* fetches at once; 0: 4 */
	unsigned chunks;            /* in memory; 0: 32; at least 2 */
	unsigned pages;             /* in memory; 0: 16 */
	int readahead;              /* chunks; 0: 8; -1: none */
	/* A chunk could not be had: corrupt (it names snapshot, chunk and object), or Walrus did not give it. On a thread of the reader. */
	void (*report)(void *ctx, bool corrupt, const char *message);
	void *report_ctx;
};

/* As snap_info()'s and snap_data_key()'s errors; -EBUSY: it is being deleted. */
int snap_reader_open(struct snap_store *s, const struct snap_reader_config *c, struct snap_reader **ret, struct error *e);
/* Every read has ended. Fetches ahead are waited for. NULL is fine. */
void snap_reader_close(struct snap_reader *r);
uint64_t snap_reader_size(const struct snap_reader *r);
uint32_t snap_reader_chunk_bytes(const struct snap_reader *r);

struct snap_read { /* the caller's, in place until it ends */
	uint64_t off_bytes, len_bytes; /* inside the size; len > 0 */
	const struct iovec *iov;
	unsigned iov_count;
	void (*done)(struct snap_read *read); /* on a thread of the reader */
	void *ctx;
	int result;                    /* 0 or -EIO */
	/* the reader's */
	uint64_t at;
	struct snap_read *next;
};
/* true: it has ended already, done() is not called. false: done() will be, or was. Any thread; does not block. */
bool snap_reader_read(struct snap_reader *r, struct snap_read *read);

/* The kind of the bytes at off: *ret_zero, and for how long that goes on (up to len). Does not block. */
uint64_t snap_reader_extent(const struct snap_reader *r, uint64_t off_bytes, uint64_t len_bytes, bool *ret_zero);

struct snap_reader_stats {
	uint64_t reads, bytes;
	uint64_t memory_hits, cache_hits, fetches, fetched_bytes; /* chunks */
	uint64_t joined;       /* waits for a fetch that another caller had begun */
	uint64_t ahead, ahead_used;
	uint64_t corrupt, failed; /* chunks that could not be had: damaged; for Walrus' sake */
};
void snap_reader_stats(struct snap_reader *r, struct snap_reader_stats *ret);
/* The last report's message; "" when there was none. */
void snap_reader_last_problem(struct snap_reader *r, char out[static 512]);

#endif
