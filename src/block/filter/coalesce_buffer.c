/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "block/filter/coalesce_priv.h"
#include "os/file.h"

/*
 * The file. All numbers are 64-bit words, little-endian:
 *   0      header: magic, version, page bytes, slots, volume's bytes, salt, identity (64 bytes), check of all but the volume's
 *          bytes, which grow by one store
 *   4096   records, one a slot: check, page, seq, mask
 *   then   slots of one page each, at the next multiple of 4096
 *
 * A record's check is made of its other words, its slot and the salt, and is never 0; 0 says that the slot is free. To publish:
 * data, page, seq and mask are written, then the check by a release store. The writer is told after that. A process that is
 * killed has made its stores in their order, so a check that is there and right says that all before it is there too: a record
 * is whole or is not seen. To free: the check becomes 0. A page may for a moment have two records, the newer of which (by seq)
 * holds all sectors of the older; replay takes the newer.
 *
 * Room is taken by fallocate() before it is written, so that a full tmpfs is an error and never SIGBUS: all of it when the file
 * is made, and after it was given back (punched) a segment at a time. What is read here may have been written by anybody.
 */
#define MAGIC 0x31657361656c616dull
#define VERSION 1u
#define RECORDS_AT 4096u
#define WORDS 4u
enum { H_MAGIC, H_VERSION, H_PAGE, H_SLOTS, H_SIZE, H_SALT, H_IDENTITY, H_CHECK = H_IDENTITY + CO_IDENTITY / 8, H_WORDS };
#define LOCK_TRIES 200
#define LOCK_NS 50000000

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0xff51afd7ed558ccdull;
	return h ^ h >> 29;
}

static uint64_t record_check(const struct co_buffer *b, unsigned slot, const struct co_record *r)
{
	return mix(mix(mix(mix(b->salt, slot), r->page), r->seq), r->mask) | 1;
}

static uint64_t header_check(const uint64_t *h)
{
	uint64_t c = VERSION;

	for (unsigned i = 0; i < H_CHECK; i++)
		c = i == H_SIZE ? c : mix(c, le64toh(h[i]));
	return c;
}

static uint64_t data_at(unsigned slots)
{
	return (RECORDS_AT + (uint64_t)slots * WORDS * 8 + CO_PAGE - 1) / CO_PAGE * CO_PAGE;
}

static uint64_t *record(const struct co_buffer *b, unsigned slot)
{
	return b->records + (size_t)slot * WORDS;
}

bool co_buffer_record(const struct co_buffer *b, unsigned slot, struct co_record *ret)
{
	const uint64_t *w = record(b, slot);
	uint64_t check = le64toh(__atomic_load_n(&w[0], __ATOMIC_ACQUIRE)), mask = le64toh(w[3]);
	struct co_record r = { .page = le64toh(w[1]), .seq = le64toh(w[2]), .mask = (uint8_t)mask };

	if (!check || mask > CO_FULL || check != record_check(b, slot, &r))
		return false;
	*ret = r;
	return true;
}

void co_buffer_publish(struct co_buffer *b, unsigned slot, const struct co_record *r)
{
	uint64_t *w = record(b, slot);

	w[1] = htole64(r->page);
	w[2] = htole64(r->seq);
	w[3] = htole64(r->mask);
	__atomic_store_n(&w[0], htole64(record_check(b, slot, r)), __ATOMIC_RELEASE);
}

void co_buffer_unpublish(struct co_buffer *b, unsigned slot)
{
	/* release: what made it unneeded (a newer record) is before it */
	__atomic_store_n(&record(b, slot)[0], 0, __ATOMIC_RELEASE);
}

bool co_buffer_grow(struct co_buffer *b)
{
	unsigned n = MIN_OF(CO_SEGMENT, b->slots - b->reserved);

	if (!n || fallocate(b->fd, 0, (off_t)(b->data_at + (uint64_t)b->reserved * CO_PAGE), (off_t)n * CO_PAGE))
		return false;
	b->reserved += n;
	return true;
}

void co_buffer_punch(struct co_buffer *b)
{
	if (b->reserved && !fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)b->data_at, (off_t)b->slots * CO_PAGE))
		b->reserved = 0;
}

/* ---- opening ---- */
static int lock_file(int fd, const char *path, struct error *e)
{
	const struct timespec pause = { .tv_nsec = LOCK_NS };

	/* one that was killed may need a moment to be gone */
	for (unsigned i = 0; flock(fd, LOCK_EX | LOCK_NB); i++) {
		if (errno != EWOULDBLOCK)
			return error_errno(e, errno, "coalesce: locking %s", path);
		if (i == LOCK_TRIES)
			return error_errno(e, EBUSY, "coalesce: %s is another process's", path);
		nanosleep(&pause, NULL);
	}
	return 0;
}

static int open_file(const char *path, struct stat *st, struct error *e)
{
	_cleanup_(fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	int rc;

	if (fd < 0)
		return error_errno(e, errno, "coalesce: opening %s", path);
	rc = lock_file(fd, path, e);
	if (rc)
		return rc;
	if (fstat(fd, st))
		return error_errno(e, errno, "coalesce: %s", path);
	if (!S_ISREG(st->st_mode) || st->st_uid != geteuid() || (st->st_mode & 077))
		return error_errno(e, EPERM, "coalesce: %s must be a file of ours with mode 0600", path);
	rc = fd;
	fd = -1;
	return rc;
}

static int map_file(struct co_buffer *b, unsigned slots, struct error *e)
{
	b->slots = slots;
	b->data_at = data_at(slots);
	b->map_bytes = b->data_at + (uint64_t)slots * CO_PAGE;
	b->map = mmap(NULL, b->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
	if (b->map == MAP_FAILED) {
		b->map = NULL;
		return error_errno(e, errno, "coalesce: mapping the buffer");
	}
	b->records = (uint64_t *)(b->map + RECORDS_AT);
	b->data = b->map + b->data_at;
	return 0;
}

static int make(struct co_buffer *b, const char *path, const char *identity, unsigned slots, uint64_t size_bytes, struct error *e)
{
	uint64_t h[H_WORDS] = { 0 };
	int rc;

	if (getrandom(&b->salt, sizeof(b->salt), 0) != sizeof(b->salt))
		return error_errno(e, EIO, "coalesce: random numbers");
	h[H_MAGIC] = htole64(MAGIC);
	h[H_VERSION] = htole64(VERSION);
	h[H_PAGE] = htole64(CO_PAGE);
	h[H_SLOTS] = htole64(slots);
	h[H_SIZE] = htole64(size_bytes);
	h[H_SALT] = htole64(b->salt);
	memcpy(&h[H_IDENTITY], identity, strlen(identity));
	h[H_CHECK] = htole64(header_check(h));
	/* Emptied first: what is left of an earlier one must not be read as records. A header with too short a file behind it is
	 * what a process leaves that dies here. */
	if (ftruncate(b->fd, 0))
		return error_errno(e, errno, "coalesce: emptying %s", path);
	rc = fd_pwrite_all(b->fd, h, sizeof(h), 0);
	if (rc)
		return error_errno(e, rc, "coalesce: writing %s", path);
	if (fallocate(b->fd, 0, 0, (off_t)(data_at(slots) + (uint64_t)slots * CO_PAGE))) {
		rc = errno;
		if (ftruncate(b->fd, 0)) /* keep no part of room that is short anyway */
			return error_errno(e, errno, "coalesce: emptying %s", path);
		return error_errno(e, rc, "coalesce: %u pages of room for %s", slots, path);
	}
	b->reserved = slots;
	return map_file(b, slots, e);
}

static bool header_good(const uint64_t *h)
{
	uint64_t slots = le64toh(h[H_SLOTS]);

	return le64toh(h[H_MAGIC]) == MAGIC && le64toh(h[H_VERSION]) == VERSION && le64toh(h[H_CHECK]) == header_check(h) &&
	       le64toh(h[H_PAGE]) == CO_PAGE && slots >= CO_SEGMENT && slots <= CO_SLOTS_MAX;
}

static uint64_t bytes_of(const uint64_t *h)
{
	uint64_t slots = le64toh(h[H_SLOTS]);

	return data_at((unsigned)slots) + slots * CO_PAGE;
}

static bool record_good(const struct co_record *r, const struct blk_info *info)
{
	uint64_t sectors = info->size_bytes / BLK_SECTOR;
	unsigned block = info->block_bytes / BLK_SECTOR;

	if (!r->mask || r->seq > UINT64_MAX / 2 || r->page > sectors / CO_SECTORS)
		return false;
	for (unsigned i = 0; i < CO_SECTORS; i++) {
		bool first = r->mask >> i & 1;

		if (first && r->page * CO_SECTORS + i >= sectors)
			return false;
		if (first != (r->mask >> (i / block * block) & 1))
			return false;
	}
	return true;
}

/* A file that was there: 1 when it holds records that are ours, 0 when it may be made anew. */
static int adopt(struct co_buffer *b, const char *path, const char *identity, uint64_t file_bytes, const struct blk_info *info, struct error *e)
{
	uint64_t h[H_WORDS];
	char ours[CO_IDENTITY] = { 0 };
	unsigned held = 0;
	int rc;

	if (!file_bytes)
		return 0;
	if (pread(b->fd, h, sizeof(h), 0) != sizeof(h) || !header_good(h) || file_bytes > bytes_of(h))
		return error_errno(e, EINVAL, "coalesce: %s is no write buffer of this version, or is damaged", path);
	if (file_bytes < bytes_of(h))
		return 0;
	rc = map_file(b, (unsigned)le64toh(h[H_SLOTS]), e);
	if (rc)
		return rc;
	b->salt = le64toh(h[H_SALT]);
	memcpy(ours, identity, strlen(identity));
	for (unsigned i = 0; i < b->slots; i++) {
		struct co_record r;

		if (!co_buffer_record(b, i, &r))
			continue;
		held++;
		if (memcmp(ours, &h[H_IDENTITY], CO_IDENTITY) || le64toh(h[H_SIZE]) > info->size_bytes)
			return error_errno(e, ESTALE, "coalesce: %s holds data of another volume (\"%.*s\", %" PRIu64 " bytes)", path, (int)CO_IDENTITY,
					   (const char *)&h[H_IDENTITY], le64toh(h[H_SIZE]));
		if (!record_good(&r, info))
			return error_errno(e, EINVAL, "coalesce: %s is damaged: its record %u cannot be of this volume", path, i);
	}
	if (held) {
		co_buffer_resized(b, info->size_bytes);
		while (b->reserved < b->slots && co_buffer_grow(b)) /* where there is no room, the buffer is smaller until there is */
			;
		return 1;
	}
	munmap(TAKE_PTR(b->map), b->map_bytes);
	return 0;
}

int co_buffer_open(struct co_buffer *b, const char *path, const char *identity, uint64_t bytes, const struct blk_info *info, struct error *e)
{
	uint64_t slots = bytes / CO_PAGE;
	struct stat st;
	int rc;

	*b = (struct co_buffer){ .fd = -1 };
	if (strlen(identity) >= CO_IDENTITY)
		return error_set(e, "InvalidOption", "coalesce: volume= is longer than %u bytes", CO_IDENTITY - 1);
	rc = open_file(path, &st, e);
	if (rc < 0)
		return rc;
	b->fd = rc;
	rc = adopt(b, path, identity, (uint64_t)st.st_size, info, e);
	if (!rc)
		rc = make(b, path, identity, (unsigned)MIN_OF(slots, (uint64_t)CO_SLOTS_MAX), info->size_bytes, e);
	if (rc < 0)
		co_buffer_close(b);
	return MIN_OF(rc, 0);
}

void co_buffer_resized(struct co_buffer *b, uint64_t size_bytes)
{
	__atomic_store_n((uint64_t *)b->map + H_SIZE, htole64(size_bytes), __ATOMIC_RELEASE);
}

void co_buffer_close(struct co_buffer *b)
{
	if (b->map)
		munmap(TAKE_PTR(b->map), b->map_bytes);
	fd_closep(&b->fd);
}
