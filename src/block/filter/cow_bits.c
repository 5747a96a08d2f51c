/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a bitmap, in pages of 4096 bytes, numbers little-endian:
 *   0, 1       the header, twice. Generation g is in page g & 1.
 *   2 + 3p     live bits of page p: mapped by all who use the map
 *   3 + 3p ..  durable bits of page p, twice. Generation g is in the (g & 1)th.
 * Header: "MALLEEBM", version u32, CRC-32C u32 (of the page, itself taken as 0), generation u64, unit u32, flags u32 (1: complete),
 * count u64, sequence u64, extent u64, kind [16] at 64, boot id [40] at 80, label [256] at 128.
 * Durable page: CRC-32C u32 (of all behind it), "BMPG", page u64, generation u64, zeroes up to 64, bits.
 *
 * Why two kinds. A bit is set in the live page the moment it is true: that store survives the death of the process, as the
 * data that the kernel has taken does. It does not survive the host, and worse, the kernel writes the page when it likes, so
 * that after a loss of power a live bit may be there whose data is not. So the live pages count only in the boot whose id the
 * header names; after another the durable ones do, and the live ones are made from them.
 *
 * Why two slots. A page is written into the slot that does not hold its newest durable state, and the next time into the other
 * one. A write that is torn spoils a state that nobody was told of, never one that somebody was. Of two readable slots the
 * higher generation counts. The first generation goes to the second slot: unreadable beside a first slot of zeroes it was torn
 * when it was written first. Two unreadable ones are damage otherwise, which no loss of power makes.
 *
 * The file is locked as long as it is open, as volumes are: the lock of a dead process goes when its last I/O has ended.
 */
#include "block/filter/cow_bits_priv.h"

#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/text.h"
#include "os/file.h"

#define RESERVE_BYTES (UINT64_C(1) << 30)
#define PAGES_MAX (RESERVE_BYTES / BITS_PAGE / 3 - 1)
#define VERSION 1u
#define ROUND_PAGES 64u /* that one bits_sync_now() call makes durable at a time */
#define LOCK_WAIT_MS 30000

/* ---- bytes ---- */

static uint32_t crc32c(const uint8_t *data, size_t len)
{
	/* Two tables of 16: a nibble at a time is fast enough for what is read once. */
	static const uint32_t nibble[16] = {
		0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
		0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};
	uint32_t crc = ~0u;

	for (size_t i = 0; i < len; i++) {
		crc ^= data[i];
		crc = crc >> 4 ^ nibble[crc & 15];
		crc = crc >> 4 ^ nibble[crc & 15];
	}
	return ~crc;
}

static void put32(uint8_t *at, uint32_t v)
{
	v = htole32(v);
	memcpy(at, &v, sizeof(v));
}

static void put64(uint8_t *at, uint64_t v)
{
	v = htole64(v);
	memcpy(at, &v, sizeof(v));
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t v;

	memcpy(&v, at, sizeof(v));
	return le32toh(v);
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return le64toh(v);
}

bool bits_is_blank(const uint8_t *page)
{
	return !page[0] && memcmp(page, page + 1, BITS_PAGE - 1) == 0;
}

static int read_all(int fd, void *to, size_t len, uint64_t off)
{
	for (char *at = to; len;) {
		ssize_t n = pread(fd, at, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* ---- pages ---- */

/* b->lock is held, so that no bit is being set. */
static void page_encode(struct bits *b, uint64_t page, uint8_t out[BITS_PAGE])
{
	const uint8_t *live = bits_live(b, page);

	memset(out, 0, BITS_HEAD);
	memcpy(out + BITS_HEAD, live, BITS_PAYLOAD);
	if (b->adjust)
		b->adjust(b->adjust_ctx, page, out + BITS_HEAD);
	memcpy(out + 4, "BMPG", 4);
	put64(out + 8, page);
	put64(out + 16, b->generation[page] + 1);
}

bool bits_slot_is_valid(const uint8_t *slot, uint64_t page, unsigned which)
{
	return memcmp(slot + 4, "BMPG", 4) == 0 && get64(slot + 8) == page && (get64(slot + 16) & 1) == which &&
	       get32(slot) == crc32c(slot + 4, BITS_PAGE - 4);
}

/* b->lock is held */
static void mark_dirty(struct bits *b, uint64_t page)
{
	uint64_t bit = UINT64_C(1) << (page % 64);

	if (!(b->dirty[page / 64] & bit)) {
		b->dirty[page / 64] |= bit;
		atomic_fetch_add(&b->unsynced, 1);
	}
}

void bits_page_dirty(struct bits *b, uint64_t page)
{
	pthread_mutex_lock(&b->lock);
	mark_dirty(b, page);
	pthread_mutex_unlock(&b->lock);
}

static bool take_dirty(struct bits *b, uint64_t *at, uint64_t *ret_page)
{
	for (uint64_t word = *at / 64; word * 64 < b->pages; word++) {
		uint64_t set = b->dirty[word];
		if (word == *at / 64)
			set &= UINT64_MAX << (*at % 64);
		if (!set)
			continue;
		uint64_t page = word * 64 + (unsigned)__builtin_ctzll(set);
		b->dirty[word] &= ~(UINT64_C(1) << (page % 64));
		*ret_page = page;
		*at = page + 1;
		return true;
	}
	return false;
}

bool bits_page_take(struct bits *b, uint64_t *at, uint64_t *ret_page, uint8_t out[BITS_PAGE])
{
	pthread_mutex_lock(&b->lock);
	bool found = take_dirty(b, at, ret_page);
	if (found)
		page_encode(b, *ret_page, out);
	pthread_mutex_unlock(&b->lock);
	if (found)
		put32(out, crc32c(out + 4, BITS_PAGE - 4));
	return found;
}

void bits_page_written(struct bits *b, uint64_t page, bool ok)
{
	pthread_mutex_lock(&b->lock);
	if (ok)
		b->generation[page]++;
	else
		mark_dirty(b, page);
	atomic_fetch_sub(&b->unsynced, 1);
	pthread_mutex_unlock(&b->lock);
}

int bits_sync_now(struct bits *b)
{
	uint64_t at = 0, page[ROUND_PAGES];
	uint8_t slot[BITS_PAGE];
	unsigned taken;
	int err;

	do {
		err = 0;
		for (taken = 0; !err && taken < ROUND_PAGES && bits_page_take(b, &at, &page[taken], slot); taken++)
			err = fd_pwrite_all(b->fd, slot, sizeof(slot), bits_slot_offset(page[taken], b->generation[page[taken]] + 1));
		if (!err && fdatasync(b->fd))
			err = -errno;
		/* Only now: until it is durable the next try must not touch the slot that holds what was. */
		for (unsigned i = 0; i < taken; i++)
			bits_page_written(b, page[i], !err);
	} while (!err && taken == ROUND_PAGES);
	return err;
}

/* ---- bits ---- */

static uint64_t set_in_page(uint8_t *live, unsigned first, unsigned n)
{
	uint64_t fresh = 0;

	while (n) {
		unsigned bit = first % 8, take = MIN_OF(8 - bit, n);
		uint8_t mask = (uint8_t)(((1u << take) - 1) << bit);
		uint8_t old = __atomic_fetch_or(&live[first / 8], mask, __ATOMIC_RELEASE);
		fresh += (unsigned)__builtin_popcount(mask & ~old);
		first += take;
		n -= take;
	}
	return fresh;
}

uint64_t bits_set(struct bits *b, uint64_t first, uint64_t n)
{
	uint64_t fresh = 0;
	bool set;

	if (!n || (bits_run(b, first, first + n, &set) == n && set))
		return 0;
	pthread_mutex_lock(&b->lock);
	while (n) {
		uint64_t page = first / BITS_PER_PAGE;
		unsigned at = (unsigned)(first % BITS_PER_PAGE), take = (unsigned)MIN_OF(BITS_PER_PAGE - at, n);
		/* First, so that whoever sees a bit set also sees that it is not durable; and no page is taken meanwhile. */
		if (!b->lazy)
			mark_dirty(b, page);
		fresh += set_in_page(bits_live(b, page), at, take);
		first += take;
		n -= take;
	}
	pthread_mutex_unlock(&b->lock);
	return fresh;
}

uint64_t bits_run(const struct bits *b, uint64_t first, uint64_t end, bool *ret_set)
{
	bool set = bits_test(b, first);
	uint64_t i = first + 1, alike = set ? UINT64_MAX : 0;

	while (i < end) {
		unsigned at = (unsigned)(i % BITS_PER_PAGE);
		const uint64_t *words = (const uint64_t *)bits_live(b, i / BITS_PER_PAGE);
		if (at % 64 == 0 && __atomic_load_n(&words[at / 64], __ATOMIC_ACQUIRE) == alike)
			i += 64;
		else if (bits_test(b, i) == set)
			i++;
		else
			break;
	}
	*ret_set = set;
	return MIN_OF(i, end) - first;
}

uint64_t bits_count_set(const struct bits *b, uint64_t first, uint64_t end)
{
	uint64_t sum = 0;

	while (first < end) {
		bool set;
		uint64_t n = bits_run(b, first, end, &set);
		sum += set ? n : 0;
		first += n;
	}
	return sum;
}

void bits_clear_all(struct bits *b)
{
	for (uint64_t page = 0; page < b->pages; page++)
		memset(bits_live(b, page), 0, BITS_PAYLOAD);
	bits_dirty_all(b);
}

void bits_dirty_all(struct bits *b)
{
	for (uint64_t page = 0; page < b->pages; page++)
		bits_page_dirty(b, page);
}

/* ---- the header ---- */

int bits_header_write(struct bits *b)
{
	uint8_t page[BITS_PAGE] = "MALLEEBM";
	uint64_t generation = b->header_generation + 1;

	put32(page + 8, VERSION);
	put64(page + 16, generation);
	put32(page + 24, b->unit_bytes);
	put32(page + 28, b->header.complete ? 1 : 0);
	put64(page + 32, b->count);
	put64(page + 40, b->header.sequence);
	put64(page + 48, b->header.extent_bytes);
	memcpy(page + 64, b->kind, sizeof(b->kind));
	memcpy(page + 80, b->boot_id, sizeof(b->boot_id));
	memcpy(page + 128, b->header.label, BITS_LABEL);
	put32(page + 12, crc32c(page, BITS_PAGE));
	int err = fd_pwrite_all(b->fd, page, sizeof(page), (generation & 1) * BITS_PAGE);
	if (!err && fdatasync(b->fd))
		err = -errno;
	if (!err)
		b->header_generation = generation;
	return err;
}

bool bits_header_is_valid(uint8_t *page, unsigned which)
{
	uint32_t crc = get32(page + 12);

	put32(page + 12, 0);
	return memcmp(page, "MALLEEBM", 8) == 0 && (get64(page + 16) & 1) == which && crc == crc32c(page, BITS_PAGE);
}

static int header_decode(struct bits *b, const struct bits_settings *s, const uint8_t *page, struct error *e)
{
	if (get32(page + 8) != VERSION)
		return error_set(e, "InvalidMap", "%s: version %u of the format is not known here", s->path, get32(page + 8));
	if (strncmp((const char *)page + 64, b->kind, sizeof(b->kind)))
		return error_set(e, "InvalidMap", "%s is a map of another kind (%.15s)", s->path, (const char *)page + 64);
	if (get32(page + 24) != s->unit_bytes)
		return error_set(e, "InvalidMap", "%s was made with chunk=%u", s->path, get32(page + 24));
	b->count = get64(page + 32);
	if (b->count > s->count || b->count > PAGES_MAX * BITS_PER_PAGE)
		return error_set(e, "InvalidMap", "%s is the map of a longer volume", s->path);
	b->header_generation = get64(page + 16);
	b->header.complete = get32(page + 28) & 1;
	b->header.sequence = get64(page + 40);
	b->header.extent_bytes = get64(page + 48);
	b->same_boot = b->boot_id[0] && memcmp(page + 80, b->boot_id, sizeof(b->boot_id)) == 0;
	memcpy(b->header.label, page + 128, BITS_LABEL);
	b->header.label[BITS_LABEL - 1] = '\0';
	return 0;
}

/* Empty, or left by a maker that died: zeroes, with a torn first header (which goes to page 1) at most, and no longer than the map. */
static int is_unmade(const struct bits *b, const struct bits_settings *s, uint64_t size, bool *ret)
{
	uint64_t pages = (s->count + BITS_PER_PAGE - 1) / BITS_PER_PAGE;
	int err = 0;

	*ret = size <= (2 + 3 * pages) * BITS_PAGE;
	for (uint64_t off = 0; *ret && !err && off < size; off += BITS_PAGE) {
		uint8_t page[BITS_PAGE] = { 0 };
		err = read_all(b->fd, page, (size_t)MIN_OF(size - off, (uint64_t)BITS_PAGE), off);
		*ret = bits_is_blank(page) || (off == BITS_PAGE && memcmp(page, "MALLEEBM", 8) == 0);
	}
	return err;
}

/* *ret_missing: it is to be made. Whatever else lies there may be somebody's, and stays. */
static int header_read(struct bits *b, const struct bits_settings *s, bool *ret_missing, struct error *e)
{
	uint8_t pages[2][BITS_PAGE];
	struct stat st;

	if (fstat(b->fd, &st))
		return error_errno(e, errno, "%s", s->path);
	memset(pages, 0, sizeof(pages));
	int err = read_all(b->fd, pages, MIN_OF((size_t)st.st_size, sizeof(pages)), 0);
	if (err)
		return error_errno(e, err, "reading %s", s->path);
	bool valid[2] = { bits_header_is_valid(pages[0], 0), bits_header_is_valid(pages[1], 1) };
	if (!valid[0] && !valid[1]) {
		bool was_ours = memcmp(pages[0], "MALLEEBM", 8) == 0 || memcmp(pages[1], "MALLEEBM", 8) == 0;
		err = is_unmade(b, s, (uint64_t)st.st_size, ret_missing);
		if (err)
			return error_errno(e, err, "reading %s", s->path);
		*ret_missing |= was_ours && s->damaged_is_set;
		return *ret_missing ? 0 : error_set(e, "InvalidMap", "%s: no header can be read: damaged, or not a map", s->path);
	}
	*ret_missing = false;
	bool second = valid[1] && (!valid[0] || get64(pages[1] + 16) > get64(pages[0] + 16));
	err = header_decode(b, s, pages[second], e);
	if (!err && (uint64_t)st.st_size < (2 + 3 * ((b->count + BITS_PER_PAGE - 1) / BITS_PER_PAGE)) * BITS_PAGE)
		err = error_set(e, "InvalidMap", "%s is shorter than its header says", s->path);
	return err;
}

/* ---- loading ---- */

static int load_page(struct bits *b, const struct bits_settings *s, uint64_t page, struct error *e)
{
	static const uint8_t zeroes[BITS_PAYLOAD];
	uint8_t slot[2][BITS_PAGE], *live = bits_live(b, page);
	const uint8_t *durable = zeroes;
	uint8_t ones[BITS_PAYLOAD];
	int err = read_all(b->fd, slot, sizeof(slot), bits_slot_offset(page, 0));

	if (err)
		return error_errno(e, err, "reading %s", s->path);
	bool valid[2] = { bits_slot_is_valid(slot[0], page, 0), bits_slot_is_valid(slot[1], page, 1) };
	if (valid[0] || valid[1]) {
		bool second = valid[1] && (!valid[0] || get64(slot[1] + 16) > get64(slot[0] + 16));
		durable = slot[second] + BITS_HEAD;
		b->generation[page] = get64(slot[second] + 16);
	} else if (!bits_is_blank(slot[0])) { /* it was only written when the other one was durable */
		if (!s->damaged_is_set)
			return error_set(e, "InvalidMap", "%s is damaged: neither copy of page %llu can be read", s->path,
					 (unsigned long long)page);
		memset(ones, 0xff, sizeof(ones));
		durable = ones;
	}
	if (!memcmp(live, durable, BITS_PAYLOAD))
		return 0;
	if (b->same_boot && durable != ones) {
		bits_page_dirty(b, page);
		return 0;
	}
	memcpy(live, durable, BITS_PAYLOAD);
	if (durable == ones)
		bits_page_dirty(b, page);
	return 0;
}

static int extend_file(struct bits *b, uint64_t from_page, uint64_t to_page)
{
	static const char zeroes[16 * BITS_PAGE];
	uint64_t at = (2 + 3 * from_page) * BITS_PAGE, end = (2 + 3 * to_page) * BITS_PAGE;

	if (!from_page)
		at = 0;
	while (at < end) {
		/* Written, not only allocated: a live page is never short of room, a durable one costs no allocation later. */
		size_t n = (size_t)MIN_OF(end - at, (uint64_t)sizeof(zeroes));
		int err = fd_pwrite_all(b->fd, zeroes, n, at);
		if (err)
			return err;
		at += n;
	}
	return fdatasync(b->fd) ? -errno : 0;
}

static int map_file(struct bits *b, uint64_t pages)
{
	/* What is mapped stays: others may be reading it. */
	uint64_t from = b->pages ? (2 + 3 * b->pages) * BITS_PAGE : 0, to = (2 + 3 * pages) * BITS_PAGE;

	if (mmap(b->map + from, to - from, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, b->fd, (off_t)from) == MAP_FAILED)
		return -errno;
	b->pages = pages;
	return 0;
}

static int too_many(struct error *e)
{
	return error_set(e, "InvalidOption", "the volume has too many chunks for a map: give a larger chunk=");
}

int bits_grow(struct bits *b, uint64_t count, struct error *e)
{
	uint64_t pages = (count + BITS_PER_PAGE - 1) / BITS_PER_PAGE;
	int err = 0;

	if (count <= b->count)
		return 0;
	if (pages > PAGES_MAX)
		return too_many(e);
	if (pages > b->pages) {
		err = extend_file(b, b->pages, pages);
		if (!err)
			err = map_file(b, pages);
	}
	uint64_t before = b->count;
	b->count = count;
	if (!err)
		err = bits_header_write(b);
	if (err) {
		b->count = before;
		return error_errno(e, err, "growing a map");
	}
	return 0;
}

static int create(struct bits *b, const struct bits_settings *s, struct error *e)
{
	uint64_t pages = (s->count + BITS_PER_PAGE - 1) / BITS_PER_PAGE;

	if (pages > PAGES_MAX)
		return too_many(e);
	b->created = true;
	b->count = b->grown_from = s->count;
	int err = ftruncate(b->fd, 0) ? -errno : extend_file(b, 0, pages);
	if (!err)
		err = map_file(b, pages);
	if (!err)
		err = bits_header_write(b);
	return err ? error_errno(e, err, "making the map %s", s->path) : 0;
}

static int load(struct bits *b, const struct bits_settings *s, struct error *e)
{
	int err = map_file(b, (b->count + BITS_PER_PAGE - 1) / BITS_PER_PAGE);

	b->grown_from = b->count;
	if (!err && fdatasync(b->fd)) /* what a process that was killed had written and not synced is read as durable below */
		err = -errno;
	if (err)
		return error_errno(e, err, "mapping %s", s->path);
	for (uint64_t page = 0; page < b->pages; page++) {
		err = load_page(b, s, page, e);
		if (err)
			return err;
	}
	/* Only now do the live pages count in this boot. */
	err = b->same_boot ? 0 : bits_header_write(b);
	if (err)
		return error_errno(e, err, "writing %s", s->path);
	return bits_grow(b, s->count, e);
}

/* ---- opening ---- */

static void read_boot_id(char out[40])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, 36);

	memset(out + (n == 36 ? 36 : 0), 0, n == 36 ? 4 : 40); /* none: never the same */
	fd_closep(&fd);
}

static int lock_file(struct bits *b, const char *path, struct error *e)
{
	for (unsigned waited_ms = 0; flock(b->fd, LOCK_EX | LOCK_NB);) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return error_errno(e, errno, "locking %s", path);
		if (waited_ms >= LOCK_WAIT_MS)
			return error_set(e, "InUse", "%s is in use by another process", path);
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
		waited_ms += 10;
	}
	return 0;
}

static int prepare(struct bits *b, const struct bits_settings *s, struct error *e)
{
	b->unit_bytes = s->unit_bytes;
	memcpy(b->kind, s->kind, strlen(s->kind));
	if (s->boot_id)
		memcpy(b->boot_id, s->boot_id, MIN_OF(strlen(s->boot_id), sizeof(b->boot_id)));
	else
		read_boot_id(b->boot_id);
	b->generation = mmap(NULL, PAGES_MAX * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	b->dirty = calloc(PAGES_MAX / 64 + 1, sizeof(*b->dirty));
	b->map = mmap(NULL, RESERVE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (b->generation == MAP_FAILED || !b->dirty || b->map == MAP_FAILED)
		return error_errno(e, ENOMEM, "opening %s", s->path);
	b->fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
	if (b->fd < 0)
		return error_errno(e, errno, "opening %s", s->path);
	return lock_file(b, s->path, e);
}

int bits_open(const struct bits_settings *s, struct bits **ret, struct error *e)
{
	struct bits *b = calloc(1, sizeof(*b));
	bool missing;

	if (!b)
		return error_errno(e, ENOMEM, "opening %s", s->path);
	pthread_mutex_init(&b->lock, NULL);
	b->fd = -1;
	b->map = MAP_FAILED;
	b->generation = MAP_FAILED;
	int err = prepare(b, s, e);
	if (!err)
		err = header_read(b, s, &missing, e);
	if (!err)
		err = missing ? create(b, s, e) : load(b, s, e);
	if (err) {
		bits_close(b);
		return err;
	}
	*ret = b;
	return 0;
}

void bits_close(struct bits *b)
{
	if (!b)
		return;
	bits_syncer_free(b);
	if (b->map != MAP_FAILED)
		munmap(b->map, RESERVE_BYTES);
	if (b->generation != MAP_FAILED)
		munmap(b->generation, PAGES_MAX * 8);
	free(b->dirty);
	pthread_mutex_destroy(&b->lock);
	fd_closep(&b->fd);
	free(b);
}
