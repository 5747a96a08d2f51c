/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_TESTS_BLOCK_RECORDER_H
#define MALLEE_TESTS_BLOCK_RECORDER_H

#include "block/core/layer.h"
#include "history.h"

/*
 * A disk's record: everything that was written to it, with its bytes and times. From that, any state that the disk may be
 * left in. The disk itself is `recorder`, a back end in shared memory: it ends requests in any order, a write takes effect in two
 * parts at two times, and what is discarded becomes rubbish. Files beside it (bitmaps) have records too: recorder_files.c.
 */
struct tape {
	struct history history;  /* data: where in heap */
	uint64_t size_bytes;
	uint8_t *now;            /* the disk. Files: as the last sync to memory found it */
	uint8_t *base;           /* before the first operation: durable */
	uint8_t *heap;
	uint64_t heap_max;
	_Atomic uint64_t heap_used;
	bool is_file;
	char path[256];          /* of a file */
	uint64_t base_bytes;     /* of a file: its length then */
};

#define FILES_MAX 4

/* What outlives the process under test. */
struct world {
	_Atomic uint64_t clock;
	uint64_t seed;
	_Atomic int64_t kill_after;  /* events until this process kills itself; negative: never */
	struct tape disk;
	struct tape file[FILES_MAX]; /* those with a path */
	char boot_file[256];         /* stands in for the kernel's boot id */
	unsigned fail_permille;      /* writes and flushes of the disk that fail */
	bool write_through;          /* the disk has no cache */
	_Atomic uint64_t count[BLK_OPS]; /* of the disk */
	_Atomic uint32_t copying;    /* what is taking effect: COPYING(), 0 nothing */
};
#define COPYING(op, part) ((op) * 2 + (part) + 1)
#define COPYING_OP(copying) (((copying) - 1) / 2)
#define COPYING_PART(copying) (((copying) - 1) % 2)

struct world *world_new(uint64_t size_bytes, uint64_t seed);
void world_free(struct world *a);
void world_file(struct world *a, const char *path, uint64_t size_max); /* a file with a record */
void world_event(struct world *a); /* may be the last thing that this process does */
bool world_is_full(const struct world *a);
/* The process is gone: what it had in flight happens in part, and never after. */
void world_cut_off(struct world *a, uint64_t *random);
/* What is there now is durable: an empty record. */
void world_forget(struct world *a);

uint32_t tape_begin(struct tape *t, enum history_kind kind, bool fua, uint64_t off_bytes, uint64_t len_bytes, const struct iovec *iov,
		    unsigned iov_count);
/* Which of the operations that may be lost are kept. */
enum power_choice { POWER_NONE, POWER_ALL, POWER_MASK, POWER_WRITES, POWER_TORN /* each sector by itself */ };
/* Operations of which nothing is known at time `at`: bits of POWER_MASK. */
unsigned tape_unknown(struct tape *t, uint64_t at, bool write_through, uint32_t *out, unsigned max);
/* The bytes that a loss of power at time `at` leaves, into out (size_bytes). */
void tape_power(struct tape *t, uint64_t at, bool write_through, enum power_choice choice, uint64_t mask, uint64_t *random, uint8_t *out);
/* The same for the disk and all files, by a's records: `to` (a, or another with the same files) then holds it. */
void world_power(struct world *a, struct world *to, uint64_t at, enum power_choice choice, uint64_t mask, uint64_t *random);
void tape_load_file(struct tape *t, uint8_t *to);

extern struct world *recorder_world; /* of the stack that is opened next */
extern const struct blk_layer_ops recorder_ops; /* back end "recorder" */
extern const struct blk_layer_ops pattern_ops;  /* back end "pattern": read only, each sector of stamp STAMP_SOURCE */

/* ---- what sectors hold: a stamp and their own number ---- */
#define STAMP_ZERO 0u             /* 512 zeroes */
#define STAMP_SOURCE 1u
#define STAMP_FIRST 2u            /* of writes */
#define STAMP_ANY (UINT64_MAX - 1)
#define STAMP_BAD UINT64_MAX      /* torn, or another sector's */
void stamp_fill(uint8_t *to, uint64_t stamp, uint64_t sector);
uint64_t stamp_read(const uint8_t *from, uint64_t sector);

#endif
