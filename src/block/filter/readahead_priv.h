/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_READAHEAD_PRIV_H
#define MALLEE_BLOCK_FILTER_READAHEAD_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/macros.h"
#include "block/core/layer.h"

/*
 * readahead, its parts:
 *   readahead.c         the driver: where requests go, threads, background work
 *   readahead_cache.c   chunks, streams and generations: all under ra->lock but for the generations
 *   readahead_detect.c  who reads in sequence: one table a queue, no lock
 */

#define RA_SPAN_MAX 5u      /* chunks that one read may touch; a read of more than four chunks passes by */
#define RA_STREAMS 32u
#define RA_GENERATIONS 1024u
#define RA_HEADS 4096u
#define RA_WRITES 320u      /* writes of a queue below us at one time; more wait */
#define RA_DETECT 256u
#define RA_NEED_MIN 3u      /* reads in sequence that make a stream … */
#define RA_NEED_MAX 64u     /* … and when earlier streams came to nothing */

/* ---- generations: readahead_cache.c says how they work ---- */
struct ra_generation {
	_Atomic uint64_t v; /* high half: writes ever issued; low half: those in flight */
};

/* ---- chunks ---- */
enum ra_state { RA_FREE, RA_LOADING, RA_READY };

struct ra_chunk {
	uint64_t index;              /* off / chunk_bytes */
	uint32_t from, to;           /* the part of it that is (being) read */
	uint32_t passed;             /* bytes that its readers have gone past */
	uint32_t generation, generation_all;
	enum ra_state state;
	unsigned pins;               /* readers copying out of it */
	bool dead;                   /* out of the table; free once it is neither loading nor pinned */
	bool warm;                   /* has memory though it is free */
	bool alone;                  /* nothing else was loading: its time is the disk's latency */
	uint64_t since_ns;           /* loading or free since */
	struct ra_stream *stream;
	struct ra_queue *loader;     /* whose child loads it */
	struct blk_list waiters;
	uint16_t hash_next;          /* number + 1 */
	struct ra_chunk *older, *newer; /* of its stream; newer: also of the free list */
	uint8_t *data;
};

struct ra_stream {
	bool live;
	uint64_t pos;      /* furthest byte that its reader has asked for */
	uint64_t ahead;    /* furthest byte that we have asked for */
	unsigned window;   /* chunks to be ahead */
	unsigned chunks;   /* that it has */
	unsigned wasted;   /* chunks that nobody wanted, in a row */
	uint64_t used_bytes, unused_bytes;
	uint64_t last_ns;
	uint64_t rate_since_ns, rate_bytes, rate; /* bytes a second */
	struct ra_chunk *oldest, *newest;
};

/* ---- the detector ---- */
struct ra_run {
	uint64_t start, next;
	uint64_t bytes;
	uint32_t reads; /* 0: empty */
	uint32_t keep;  /* strangers in this slot that it outlives */
};

struct ra_counters {
	_Atomic uint64_t hits, waited, partial, ahead_bytes, used_bytes, unused_bytes, stale, errors, streams, given_back;
};

struct ra;
struct ra_queue {
	struct ra *ra;
	struct blk_queue *queue;
	struct blk_pool *writes, *loads;
	struct blk_list held;        /* writes that wait for a child */
	struct blk_list again;       /* ra->lock: reads that other queues found no chunk for */
	bool posted;                 /* ra->lock */
	struct blk_task task;
	struct blk_timer tick;
	_Atomic uint64_t misses, passed_by;
	struct ra_run run[RA_DETECT];
};

struct ra {
	struct blk_layer *layer;
	uint32_t chunk_bytes;
	unsigned chunk_count;
	uint64_t idle_ns;
	_Atomic uint32_t need;              /* reads in sequence that make a stream */
	_Atomic uint32_t live;              /* chunks in the table: 0 means that no read looks further */
	_Atomic uint16_t head[RA_HEADS];    /* chunk number + 1; written under lock, also read without */
	struct ra_generation generation[RA_GENERATIONS], all;

	pthread_mutex_t lock;               /* the rest; innermost, memory work only */
	struct ra_chunk *chunk;
	struct ra_chunk *free_first, *free_last;
	struct ra_stream stream[RA_STREAMS];
	unsigned streams;
	unsigned loading;
	uint64_t latency_ns;                /* of a load with nothing else in flight */
	uint64_t size_bytes;
	bool stopped;
	void (*settled)(void *ctx);
	void *settled_ctx;
	struct ra_queue *ticker;            /* whose timer runs */
	uint8_t *memory;
	size_t memory_bytes;
	struct ra_counters count;
};

/* readahead_cache.c */
int ra_cache_open(struct ra *ra, uint64_t cache_bytes);
void ra_cache_close(struct ra *ra);
void ra_write_begin(struct ra *ra, uint64_t off_bytes, uint64_t len_bytes); /* before it goes below */
void ra_write_end(struct ra *ra, uint64_t off_bytes, uint64_t len_bytes);   /* before its end is told */
void ra_write_behind(struct ra *ra, uint64_t off_bytes, uint64_t len_bytes); /* under lock, after ra_write_begin() */
bool ra_near(const struct ra *ra, const struct blk_req *r); /* no lock; a chance answer is fine */

enum ra_verdict { RA_MISS, RA_WAIT, RA_HIT };
/* Under lock. HIT: *pinned and *ret_count are the chunks to copy from. WAIT: a chunk has taken r. */
enum ra_verdict ra_look(struct ra *ra, struct blk_req *r, uint64_t now_ns, struct ra_chunk *pinned[RA_SPAN_MAX], unsigned *ret_count);
/* Under lock: the copy is done. */
void ra_unpin(struct ra *ra, struct ra_chunk *const pinned[], unsigned count, const struct blk_req *r, uint64_t now_ns);
void ra_stream_start(struct ra *ra, uint64_t pos, uint64_t seen_bytes, uint64_t now_ns);
/* Under lock: the next chunk that some stream wants, taken for loading; NULL when none does. */
struct ra_chunk *ra_next_load(struct ra *ra, uint64_t now_ns);
/* Under lock: it has ended. Takes its waiters. */
void ra_loaded(struct ra *ra, struct ra_chunk *c, int result, uint64_t now_ns, struct blk_list *ret_waiters);
void ra_forget_all(struct ra *ra, uint64_t now_ns); /* streams and chunks; under lock */
void ra_kill_idle(struct ra *ra, uint64_t now_ns);
/* Under lock, let go of and taken again round the system calls: memory of chunks that stay free. Whether a tick is still wanted. */
bool ra_give_back(struct ra *ra, uint64_t now_ns);

/* readahead_detect.c: on q's thread. Whether r continues a run long enough to be a stream, and its bytes so far. */
bool ra_detect(struct ra_run run[RA_DETECT], uint64_t off_bytes, uint64_t len_bytes, uint32_t need, uint64_t *ret_bytes);

#endif
