/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_TESTS_BLOCK_HARNESS_H
#define MALLEE_TESTS_BLOCK_HARNESS_H

#include <sys/types.h>

#include "load.h"
#include "model.h"
#include "recorder.h"

#define SERVERS_MAX 2

/*
 * A stack under test and what becomes of it. Each run of the stack is a process of its own; what it was told and did is in shared
 * memory. "%" in specs and paths stands for the test's folder, which is on tmpfs where there is one; "$" for on where a
 * file there can be read past the cache by the sector, else off. "%/disk" has the volume's size, "%/source" what cow begins as.
 */
struct stack_case {
	const char *name;
	const char *filters[8];         /* NULL-terminated */
	const char *files[FILES_MAX];   /* that are on a disk, and have records */
	const char *volatile_files[2];  /* gone with the power */
	const char *key_file;           /* made: of `crypt`, which then keeps what the disk holds from what the guest reads */
	unsigned queues;
	uint64_t size_bytes;
	uint64_t source_bytes;          /* so many are STAMP_SOURCE at first, the rest zeroes */
	unsigned fail_permille;
	bool write_through;             /* the disk has no cache */
	/* NULL: the recorder. Another back end is real, its folder on a disk; the power is not cut there. */
	const char *back;
	const char *servers[SERVERS_MAX]; /* arguments of a mallee-blockd that the stack stands on; killed as well */
	/* On the main thread: now and then during a load, and after it. l->ctx is the harness. */
	void (*meanwhile)(struct load *l, uint64_t *random);
	void (*finish)(struct load *l);
};
extern const struct stack_case stack_cases[]; /* name NULL ends them */

enum {
	RESULT_SEED,
	RESULT_FAILED,    /* requests */
	RESULT_KILLS,
	RESULT_POWER,     /* losses of it */
	RESULT_STATES,    /* that a disk may be left in */
	RESULT_EXHAUSTIVE, /* of them, by exhaustive choice */
	RESULT_FILE_OPS,  /* writes and syncs of the first file beside the disk */
	RESULT_VIEWS,
	RESULT_COMMITTED, /* of them */
	RESULT_UNCHANGED, /* sectors that the map of changes spared, compared */
	RESULT_CHECKED,   /* sectors read */
	RESULT_RUNS,
	RESULT_SERVERS,   /* killed */
	RESULTS
};

struct harness {
	const struct stack_case *c;
	char dir[128];
	struct world *world;
	struct model *model;
	uint64_t *stamps;        /* a verification's, shared */
	uint64_t random;
	uint64_t boots;
	uint64_t *results;       /* shared: RESULT_… */
	struct snapshots *snapshots; /* shared; snapshots.c */
	struct open_view *view;      /* a child's */
	pid_t server[SERVERS_MAX];
	bool direct;             /* "$" */
	bool may_fail;           /* a failing child is an answer, and silent */
	bool failed;
	bool lose_at_kill;       /* sabotage: a kill loses what only the power may */
};

struct harness *harness_new(const struct stack_case *c, uint64_t seed);
void harness_free(struct harness *h);

/* A child process that does fn; 0, or the signal that killed it. Any other end is a failure, and so is none within five minutes. */
int harness_child(struct harness *h, void (*fn)(struct harness *h, void *ctx), void *ctx, int64_t kill_after_us);
/* In a child: */
struct blk_stack *harness_open(struct harness *h, unsigned queues);
void harness_close(struct harness *h, struct blk_stack *s);
/* Opens the stack, reads all, checks, closes. */
void harness_verify(struct harness *h, enum history_mode mode, uint64_t at, const char *what);

enum ending { END_CLEAN, END_KILL, END_POWER };
/* ops requests a queue, an ending, what follows from it. */
void harness_life(struct harness *h, unsigned ops, enum ending ending);
void harness_lose_files(struct harness *h); /* those on tmpfs; and it is another boot */

uint64_t harness_seed(void);
uint64_t harness_number(const char *variable, uint64_t fallback);

#endif
