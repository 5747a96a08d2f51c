/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_COW_BITS_PRIV_H
#define MALLEE_BLOCK_FILTER_COW_BITS_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "block/core/layer.h"

/*
 * A bitmap in a file: one bit a chunk of a volume, for cow (filled) and snap (changed). cow_bits.c says how it survives what.
 * Two states of each bit: live (a shared mapping: survives the process) and durable (survives the power).
 */
#define BITS_PAGE 4096u
#define BITS_HEAD 64u
#define BITS_PAYLOAD (BITS_PAGE - BITS_HEAD)   /* bytes of bits in a page */
#define BITS_PER_PAGE (BITS_PAYLOAD * 8u)
#define BITS_LABEL 256u

struct bits_settings {
	const char *path;
	const char *kind;      /* up to 15 bytes: a map of another kind is refused */
	const char *boot_id;   /* NULL: the running kernel's */
	uint32_t unit_bytes;   /* what a bit stands for */
	uint64_t count;        /* bits wanted; a shorter map grows */
	bool damaged_is_set;   /* a page of which nothing can be read counts as all set, and a map without a readable header is
				* made anew; otherwise they are errors */
};

/* What the owner keeps in the header; bits_header_write() makes it durable. */
struct bits_header {
	char label[BITS_LABEL];
	uint64_t sequence;
	uint64_t extent_bytes;
	bool complete;
};

struct bits_syncer;

struct bits {
	struct bits_header header;
	bool created;          /* by this open */
	bool lazy;             /* bits_set() leaves it to its caller to say bits_page_dirty() */
	bool same_boot;        /* the live bits were those of a process that died, not the durable ones */
	_Atomic uint64_t count;
	uint64_t grown_from;   /* how many bits the map had when it was opened */
	/* private from here on */
	int fd;
	uint32_t unit_bytes;
	char kind[16], boot_id[40];
	uint64_t header_generation;
	_Atomic uint64_t pages;
	char *map;             /* the file, with address space to grow into */
	uint64_t *generation;  /* per page: the durable one; its slot is generation & 1. Of who syncs */
	pthread_mutex_t lock;  /* setting of bits, and: */
	uint64_t *dirty;       /* a bit per page: its live bits may differ from the durable ones */
	_Atomic uint64_t unsynced; /* pages dirty or being written */
	struct bits_syncer *syncer;
	/* What is written for a page when not its live bits alone: may add bits. */
	void (*adjust)(void *ctx, uint64_t page, uint8_t *payload);
	void *adjust_ctx;
};

/* Opens the map, or makes it when it is missing or empty; waits a while for another's lock on it. */
int bits_open(const struct bits_settings *s, struct bits **ret, struct error *e);
void bits_close(struct bits *b); /* as it is: no sync */
int bits_grow(struct bits *b, uint64_t count, struct error *e);
int bits_header_write(struct bits *b);            /* durable; blocks */
int bits_sync_now(struct bits *b);                /* all dirty pages durable; blocks; no bits_sync() under way */
void bits_clear_all(struct bits *b);              /* live bits; nobody else uses it */
void bits_dirty_all(struct bits *b);

static inline uint8_t *bits_live(const struct bits *b, uint64_t page)
{
	return (uint8_t *)b->map + (2 + 3 * page) * BITS_PAGE + BITS_HEAD;
}

static inline bool bits_test(const struct bits *b, uint64_t i)
{
	const uint8_t *payload = bits_live(b, i / BITS_PER_PAGE);
	uint32_t at = (uint32_t)(i % BITS_PER_PAGE);

	return __atomic_load_n(&payload[at / 8], __ATOMIC_ACQUIRE) >> (at % 8) & 1;
}

/* [first, first + n), any thread: their number that were not set before. Marks the pages dirty. */
uint64_t bits_set(struct bits *b, uint64_t first, uint64_t n);
/* How many from first on, below end, are alike; *ret_set: what they are. first < end. */
uint64_t bits_run(const struct bits *b, uint64_t first, uint64_t end, bool *ret_set);
uint64_t bits_count_set(const struct bits *b, uint64_t first, uint64_t end);
void bits_page_dirty(struct bits *b, uint64_t page);
static inline bool bits_is_durable(const struct bits *b)
{
	return atomic_load_explicit(&b->unsynced, memory_order_acquire) == 0;
}

/* ---- cow_bits_sync.c: durability in the background, for many waiters at once ---- */

struct bits_wait {
	struct blk_task task;    /* fn is the waiter's; posted to its queue when all bits set before are durable, or it failed */
	struct blk_queue *queue;
	int result;
	struct bits_wait *next;
};

/* flush: the layer to flush between taking the bits and writing them (what they stand for is durable before them); NULL: none. */
int bits_syncer_new(struct bits *b, struct blk_layer *flush);
void bits_syncer_free(struct bits *b);
void bits_sync(struct bits *b, struct blk_queue *q, struct bits_wait *w); /* on q's thread; w->queue == q */

/* ---- for cow_bits_sync.c and tests ---- */
/* The next dirty page from *at on, dirty no more, as it is to be written to the slot of its generation + 1; false: none. */
bool bits_page_take(struct bits *b, uint64_t *at, uint64_t *ret_page, uint8_t out[BITS_PAGE]);
void bits_page_written(struct bits *b, uint64_t page, bool ok);
bool bits_is_blank(const uint8_t *page);
bool bits_slot_is_valid(const uint8_t *slot, uint64_t page, unsigned which);
bool bits_header_is_valid(uint8_t *page, unsigned which); /* clears its checksum */
static inline uint64_t bits_slot_offset(uint64_t page, uint64_t generation)
{
	return (2 + 3 * page + 1 + (generation & 1)) * BITS_PAGE;
}

#endif
