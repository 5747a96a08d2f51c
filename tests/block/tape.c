/* SPDX-License-Identifier: Apache-2.0 */
/* Records, and the states of a disk that follow from them. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macros.h"
#include "recorder.h"

#define DISK_OPS_MAX (1u << 17)
#define DISK_NODES_MAX (1u << 22)
#define DISK_HEAP_MAX (UINT64_C(1) << 30)
#define FILE_OPS_MAX (1u << 16)
#define FILE_NODES_MAX (1u << 21)
#define UNKNOWN_MAX 4096u
#define RUBBISH 0xdd

/* ---- sectors ---- */

void stamp_fill(uint8_t *to, uint64_t stamp, uint64_t sector)
{
	uint64_t words[2] = { stamp, sector * 0x9e3779b97f4a7c15u ^ stamp };

	if (stamp == STAMP_ZERO)
		words[0] = words[1] = 0;
	for (unsigned i = 0; i < SECTOR; i += sizeof(words))
		memcpy(to + i, words, sizeof(words));
}

uint64_t stamp_read(const uint8_t *from, uint64_t sector)
{
	uint8_t wanted[SECTOR];
	uint64_t stamp;

	memcpy(&stamp, from, sizeof(stamp));
	stamp_fill(wanted, stamp, sector);
	return memcmp(wanted, from, SECTOR) ? STAMP_BAD : stamp;
}

/* ---- recording ---- */

static void tape_init(struct tape *t, uint64_t size_bytes, uint32_t ops, uint32_t nodes, _Atomic uint64_t *clock)
{
	t->size_bytes = size_bytes;
	t->now = shared_memory(size_bytes);
	t->base = shared_memory(size_bytes);
	t->heap_max = DISK_HEAP_MAX;
	t->heap = shared_memory(t->heap_max);
	history_init(&t->history, size_bytes / SECTOR, ops, nodes, clock);
}

static void tape_done(struct tape *t)
{
	munmap(t->now, t->size_bytes);
	munmap(t->base, t->size_bytes);
	munmap(t->heap, t->heap_max);
	history_done(&t->history);
}

struct world *world_new(uint64_t size_bytes, uint64_t seed)
{
	struct world *a = shared_memory(sizeof(*a));

	a->seed = seed;
	a->kill_after = -1;
	tape_init(&a->disk, size_bytes, DISK_OPS_MAX, DISK_NODES_MAX, &a->clock);
	a->disk.history.ordered = true;
	return a;
}

void world_file(struct world *a, const char *path, uint64_t size_max)
{
	struct tape *t = a->file;

	while (t->size_bytes)
		t++;
	tape_init(t, size_max, FILE_OPS_MAX, FILE_NODES_MAX, &a->clock);
	t->is_file = true;
	snprintf(t->path, sizeof(t->path), "%s", path);
}

void world_free(struct world *a)
{
	tape_done(&a->disk);
	for (unsigned i = 0; i < FILES_MAX && a->file[i].size_bytes; i++)
		tape_done(&a->file[i]);
	munmap(a, sizeof(*a));
}

void world_event(struct world *a)
{
	if (atomic_load(&a->kill_after) >= 0 && atomic_fetch_sub(&a->kill_after, 1) == 0) {
		kill(getpid(), SIGKILL);
		for (;;)
			pause();
	}
}

static bool tape_is_full(const struct tape *t)
{
	return history_is_full(&t->history) || t->heap_used > t->heap_max / 4;
}

bool world_is_full(const struct world *a)
{
	bool full = tape_is_full(&a->disk);

	for (unsigned i = 0; i < FILES_MAX && a->file[i].size_bytes; i++)
		full |= tape_is_full(&a->file[i]);
	return full;
}

uint32_t tape_begin(struct tape *t, enum history_kind kind, bool fua, uint64_t off_bytes, uint64_t len_bytes, const struct iovec *iov,
		    unsigned iov_count)
{
	uint64_t at = 0;

	if ((off_bytes | len_bytes) % SECTOR)
		die("%llu+%llu: not whole sectors", (unsigned long long)off_bytes, (unsigned long long)len_bytes);
	if (kind == HISTORY_WRITE) {
		at = atomic_fetch_add(&t->heap_used, len_bytes);
		if (at > t->heap_max || len_bytes > t->heap_max - at)
			die("the record is too short for this test");
		blk_iov_from(iov, iov_count, 0, t->heap + at, len_bytes);
	}
	return history_begin(&t->history, kind, fua, off_bytes / SECTOR, len_bytes / SECTOR, at);
}

/* ---- states ---- */

static void sector_of(const struct tape *t, uint32_t op, uint64_t sector, uint8_t *to)
{
	const struct history_op *o = op == HISTORY_INITIAL ? NULL : &t->history.op[op];

	if (!o)
		memcpy(to, t->base + sector * SECTOR, SECTOR);
	else if (o->kind == HISTORY_WRITE)
		memcpy(to, t->heap + o->data + (sector - o->sector) * SECTOR, SECTOR);
	else
		memset(to, o->kind == HISTORY_ZEROES ? 0 : RUBBISH, SECTOR);
}

unsigned tape_unknown(struct tape *t, uint64_t at, bool write_through, uint32_t *out, unsigned max)
{
	struct history_view v = history_view(&t->history, VIEW_POWER, at);
	unsigned count = 0;

	v.write_through = write_through;
	for (uint32_t i = 0; i < t->history.ops && count < max; i++) {
		const struct history_op *o = &t->history.op[i];
		if (o->sectors && o->submitted && o->submitted <= at && !history_is_known(&t->history, i, &v))
			out[count++] = i;
	}
	return count;
}

static void pick_writes(struct tape *t, uint64_t at, bool write_through, enum power_choice choice, uint64_t mask, uint64_t *random, uint8_t *keep)
{
	static uint32_t unknown[UNKNOWN_MAX];
	unsigned n = tape_unknown(t, at, write_through, unknown, UNKNOWN_MAX);
	uint64_t share = random_below(random, 101); /* sometimes most is kept, sometimes little */

	memset(keep, choice != POWER_NONE, t->history.ops);
	for (unsigned i = 0; i < n; i++) {
		if (choice == POWER_MASK)
			keep[unknown[i]] = i < 64 && (mask >> i & 1);
		else if (choice == POWER_WRITES)
			keep[unknown[i]] = random_below(random, 100) < share;
		else
			keep[unknown[i]] = choice != POWER_NONE;
	}
}

static bool is_later(const struct tape *t, uint32_t op, uint32_t than, uint64_t sector, uint64_t at)
{
	if (than == HISTORY_INITIAL || !t->history.ordered)
		return than == HISTORY_INITIAL || op > than;
	uint64_t a = history_order(&t->history, op, sector, at), b = history_order(&t->history, than, sector, at);
	return a > b || (a == b && op > than);
}

/* Of what a sector may hold: the last operation that is kept. */
static uint32_t pick(const struct tape *t, const struct history_view *v, uint64_t sector, const uint32_t *candidate, unsigned count,
		     const uint8_t *keep)
{
	uint32_t best = HISTORY_INITIAL, known = HISTORY_INITIAL;

	for (unsigned i = 0; i < count; i++) {
		uint32_t op = candidate[i];
		if (op == HISTORY_INITIAL)
			continue;
		if (keep[op] && is_later(t, op, best, sector, v->at))
			best = op;
		if (history_is_known(&t->history, op, v) && is_later(t, op, known, sector, v->at))
			known = op;
	}
	return best == HISTORY_INITIAL ? known : best;
}

void tape_power(struct tape *t, uint64_t at, bool write_through, enum power_choice choice, uint64_t mask, uint64_t *random, uint8_t *out)
{
	static uint8_t keep[DISK_OPS_MAX];
	struct history_view v = history_view(&t->history, VIEW_POWER, at);
	uint32_t candidate[HISTORY_CANDIDATES_MAX];

	v.write_through = write_through;
	pick_writes(t, at, write_through, choice, mask, random, keep);
	for (uint64_t s = 0; s < t->history.sectors; s++) {
		if (!t->history.head[s] && t->is_file)
			continue; /* what is mapped into memory: any state will do, and out holds one */
		unsigned count = history_candidates(&t->history, s, &v, candidate);
		uint32_t op = choice == POWER_TORN ? candidate[random_below(random, count)] : pick(t, &v, s, candidate, count, keep);
		sector_of(t, op, s, out + s * SECTOR);
	}
}

/* ---- files ---- */

void tape_load_file(struct tape *t, uint8_t *to)
{
	int fd = open(t->path, O_RDONLY | O_CLOEXEC);
	ssize_t n = 0;

	memset(to, 0, t->size_bytes);
	t->base_bytes = 0;
	for (uint64_t at = 0; fd >= 0 && at < t->size_bytes && (n = pread(fd, to + at, t->size_bytes - at, (off_t)at)) > 0; at += (uint64_t)n)
		t->base_bytes = at + (uint64_t)n;
	if (fd >= 0)
		close(fd);
}

static void store_file(struct tape *t)
{
	struct stat st;
	int fd = open(t->path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (fstat(fd, &st) || (uint64_t)st.st_size > t->size_bytes ||
	    pwrite(fd, t->now, (size_t)st.st_size, 0) != (ssize_t)st.st_size || fsync(fd))
		die("writing %s", t->path);
	close(fd);
}

static void tape_forget(struct tape *t)
{
	if (t->is_file)
		tape_load_file(t, t->now);
	memcpy(t->base, t->now, t->size_bytes);
	history_clear(&t->history);
	if (t->heap_used)
		madvise(t->heap, t->heap_max, MADV_REMOVE);
	t->heap_used = 0;
}

void world_forget(struct world *a)
{
	tape_forget(&a->disk);
	for (unsigned i = 0; i < FILES_MAX && a->file[i].size_bytes; i++)
		tape_forget(&a->file[i]);
}

void world_power(struct world *a, struct world *to, uint64_t at, enum power_choice choice, uint64_t mask, uint64_t *random)
{
	tape_power(&a->disk, at, a->write_through, choice, mask, random, to->disk.now);
	for (unsigned i = 0; i < FILES_MAX && a->file[i].size_bytes; i++) {
		tape_load_file(&a->file[i], to->file[i].now);
		/* Nothing ties the file's writes to the disk's but flushes: it is left as it likes. */
		tape_power(&a->file[i], at, false, choice == POWER_MASK ? POWER_WRITES : choice, mask, random, to->file[i].now);
		store_file(&to->file[i]);
	}
}

/* The kernel may still do some of what the process had asked for. */
static void end_in_part(struct tape *t, uint32_t op, uint64_t *random)
{
	struct history_op *o = &t->history.op[op];
	uint64_t from = o->split, how = random_below(random, 3);

	o->split_end = how == 0 ? from : how == 1 ? o->sectors : from + random_below(random, o->sectors - from + 1);
	o->effect[1] = history_tick(&t->history);
	for (uint64_t s = from; s < o->split_end; s++)
		sector_of(t, op, o->sector + s, t->now + (o->sector + s) * SECTOR);
}

/* A part that was taking effect, in some of its sectors or all: sectors are not torn. recorder.c: take_effect(). */
static void end_copy(struct world *a)
{
	uint32_t copying = atomic_exchange(&a->copying, 0), op = COPYING_OP(copying);
	bool second = COPYING_PART(copying);

	if (!copying)
		return;
	struct history_op *o = &a->disk.history.op[op];
	if (!o->effect[second])
		o->effect[second] = history_tick(&a->disk.history);
	for (uint64_t s = second ? o->split : 0; s < (second ? o->split_end : o->split); s++)
		sector_of(&a->disk, op, o->sector + s, a->disk.now + (o->sector + s) * SECTOR);
}

/* What a dead process had asked the kernel to write to a file was written or it was not: the file tells. Only a sync makes it durable. */
static void file_cut_off(struct tape *t)
{
	tape_load_file(t, t->now);
	for (uint32_t i = 0; i < t->history.ops; i++) {
		struct history_op *o = &t->history.op[i];
		bool there = o->submitted && o->kind == HISTORY_WRITE && !memcmp(t->now + o->sector * SECTOR, t->heap + o->data, o->sectors * SECTOR);
		if (!o->completed && there) {
			o->fua = false;
			history_end(&t->history, i, 0);
		}
	}
	history_cut_off(&t->history);
}

void world_cut_off(struct world *a, uint64_t *random)
{
	end_copy(a);
	for (uint32_t i = 0; i < a->disk.history.ops; i++) {
		struct history_op *o = &a->disk.history.op[i];
		if (o->submitted && !o->completed && o->kind != HISTORY_FLUSH && !o->effect[1])
			end_in_part(&a->disk, i, random);
	}
	history_cut_off(&a->disk.history);
	for (unsigned i = 0; i < FILES_MAX && a->file[i].size_bytes; i++)
		file_cut_off(&a->file[i]);
}
