/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of files, by last use, is in memory; at the start it is read from the folder, by time of modification, which a hit sets
 * anew. `lock` guards the list and is not held over I/O: a file that is evicted while it is read stays readable, and one that
 * is written is in the list only when it is complete. Files are not synced: a torn one does not have its SHA-256.
 */
#include "svc/sc/chunk_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"
#include "svc/sc/snap_format_priv.h"

#define BUCKETS 4096u
#define HEX (2 * SHA256_LEN)
#define PART ".part"

struct entry {
	unsigned char sha[SHA256_LEN];
	uint64_t bytes;
	int64_t used_ns; /* at the start only */
	struct entry *chain;
	struct entry *newer, *older;
};

struct chunk_cache {
	int dir_fd, lock_fd;
	pthread_mutex_t lock;
	struct entry *bucket[BUCKETS];
	struct entry *newest, *oldest;
	uint64_t part_number;
	struct chunk_cache_stats stats;
};

static struct entry **slot_of(struct chunk_cache *c, const unsigned char *sha)
{
	struct entry **at = &c->bucket[(sha[0] | sha[1] << 8) % BUCKETS];

	while (*at && memcmp((*at)->sha, sha, SHA256_LEN) != 0)
		at = &(*at)->chain;
	return at;
}

static void unlink_use(struct chunk_cache *c, struct entry *n)
{
	*(n->newer ? &n->newer->older : &c->newest) = n->older;
	*(n->older ? &n->older->newer : &c->oldest) = n->newer;
}

static void link_newest(struct chunk_cache *c, struct entry *n)
{
	n->newer = NULL;
	n->older = c->newest;
	*(c->newest ? &c->newest->newer : &c->oldest) = n;
	c->newest = n;
}

static void file_name(const unsigned char *sha, char out[static HEX + 1])
{
	hex_encode(sha, SHA256_LEN, out);
}

/* Lock held. */
static void drop(struct chunk_cache *c, const unsigned char *sha)
{
	struct entry **at = slot_of(c, sha), *n = *at;
	char name[HEX + 1];

	if (!n)
		return;
	*at = n->chain;
	unlink_use(c, n);
	c->stats.bytes -= n->bytes;
	c->stats.files--;
	file_name(sha, name);
	unlinkat(c->dir_fd, name, 0);
	free(n);
}

/* Lock held. */
static void enter(struct chunk_cache *c, const unsigned char *sha, uint64_t bytes)
{
	struct entry **at = slot_of(c, sha), *n = *at;

	if (n) { /* another thread was faster */
		c->stats.bytes -= n->bytes;
		unlink_use(c, n);
	} else {
		n = *at = calloc(1, sizeof(*n));
		if (!n)
			abort();
		memcpy(n->sha, sha, SHA256_LEN);
		c->stats.files++;
	}
	n->bytes = bytes;
	c->stats.bytes += bytes;
	link_newest(c, n);
}

/* Lock held. */
static void make_room(struct chunk_cache *c, uint64_t bytes)
{
	while (c->oldest && c->stats.bytes + bytes > c->stats.limit_bytes) {
		unsigned char sha[SHA256_LEN];

		memcpy(sha, c->oldest->sha, sizeof(sha));
		drop(c, sha);
		c->stats.evicted++;
	}
}

/* ---- at the start ---- */

static int by_use(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return (x->used_ns > y->used_ns) - (x->used_ns < y->used_ns);
}

static void scan(struct chunk_cache *c)
{
	DIR *d = fdopendir(openat(c->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	_cleanup_(freep) struct entry *found = NULL;
	size_t count = 0, cap = 0;
	struct dirent *de;

	while (d && (de = readdir(d))) {
		unsigned char sha[SHA256_LEN];
		struct stat st;

		if (str_suffix(de->d_name, PART))
			unlinkat(c->dir_fd, de->d_name, 0);
		if (strlen(de->d_name) != HEX || hex_decode(de->d_name, HEX, sha) ||
		    fstatat(c->dir_fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
			continue;
		if (count == cap) {
			cap = cap ? 2 * cap : 256;
			found = realloc(found, cap * sizeof(*found));
			if (!found)
				abort();
		}
		found[count] = (struct entry){ .bytes = (uint64_t)st.st_size,
					       .used_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec };
		memcpy(found[count++].sha, sha, SHA256_LEN);
	}
	if (d)
		closedir(d);
	if (count)
		qsort(found, count, sizeof(*found), by_use);
	for (size_t i = 0; i < count; i++)
		enter(c, found[i].sha, found[i].bytes);
	make_room(c, 0);
}

int chunk_cache_open(const char *dir, uint64_t limit_bytes, struct chunk_cache **ret, struct error *e)
{
	struct chunk_cache *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		abort();
	c->dir_fd = c->lock_fd = -1;
	c->stats.limit_bytes = limit_bytes;
	pthread_mutex_init(&c->lock, NULL);
	err = dir_make(dir, 0700);
	if (!err) {
		c->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		c->lock_fd = c->dir_fd < 0 ? -1 : openat(c->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (c->lock_fd < 0)
			err = -errno;
		else if (flock(c->lock_fd, LOCK_EX | LOCK_NB) < 0)
			err = errno == EWOULDBLOCK ? -EBUSY : -errno;
	}
	if (err) {
		error_errno(e, err, "cannot use the cache of chunks in %s", dir);
		chunk_cache_close(c);
		return err;
	}
	scan(c);
	*ret = c;
	return 0;
}

void chunk_cache_close(struct chunk_cache *c)
{
	struct entry *n;

	if (!c)
		return;
	while ((n = c->newest)) {
		c->newest = n->older;
		free(n);
	}
	fd_closep(&c->lock_fd);
	fd_closep(&c->dir_fd);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* ---- use ---- */

/* 0; -ENOENT; -EBADMSG: not what it should be. */
static int read_file(struct chunk_cache *c, const unsigned char *sha, bool sealed, void *out, size_t len)
{
	unsigned char real[SHA256_LEN];
	char name[HEX + 1];
	size_t have = 0;
	struct stat st;

	file_name(sha, name);
	_cleanup_(fd_closep) int fd = openat(c->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -ENOENT;
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != len)
		return -EBADMSG;
	while (have < len) {
		ssize_t n = pread(fd, (char *)out + have, len - have, (off_t)have);

		if (n <= 0)
			return -EBADMSG;
		have += (size_t)n;
	}
	if (!sealed)
		snap_sha256(out, len, real);
	if (!sealed && memcmp(real, sha, SHA256_LEN) != 0)
		return -EBADMSG;
	futimens(fd, NULL);
	return 0;
}

static bool get(struct chunk_cache *c, const unsigned char *sha, bool sealed, void *out, size_t len)
{
	struct entry *n;
	int err = -ENOENT;

	pthread_mutex_lock(&c->lock);
	n = *slot_of(c, sha);
	if (n) {
		unlink_use(c, n);
		link_newest(c, n);
	}
	pthread_mutex_unlock(&c->lock);
	if (n)
		err = read_file(c, sha, sealed, out, len);
	pthread_mutex_lock(&c->lock);
	if (n && err)
		drop(c, sha);
	c->stats.dropped += err == -EBADMSG;
	c->stats.hits += !err;
	c->stats.misses += !!err;
	pthread_mutex_unlock(&c->lock);
	return !err;
}

bool chunk_cache_get(struct chunk_cache *c, const unsigned char sha[static 32], void *out, size_t len)
{
	return get(c, sha, false, out, len);
}

bool chunk_cache_get_sealed(struct chunk_cache *c, const unsigned char name[static 32], void *out, size_t len)
{
	return get(c, name, true, out, len);
}

void chunk_cache_drop(struct chunk_cache *c, const unsigned char name[static 32])
{
	pthread_mutex_lock(&c->lock);
	drop(c, name);
	c->stats.dropped++;
	pthread_mutex_unlock(&c->lock);
}

static int write_file(struct chunk_cache *c, const unsigned char *sha, uint64_t number, const void *data, size_t len)
{
	char name[HEX + 1], part[64];
	int err;

	file_name(sha, name);
	snprintf(part, sizeof(part), "%llu" PART, (unsigned long long)number);
	_cleanup_(fd_closep) int fd = openat(c->dir_fd, part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	err = fd_write_all(fd, data, len);
	if (!err && renameat(c->dir_fd, part, c->dir_fd, name) < 0)
		err = -errno;
	if (err)
		unlinkat(c->dir_fd, part, 0);
	return err;
}

void chunk_cache_put(struct chunk_cache *c, const unsigned char sha[static 32], const void *data, size_t len)
{
	bool fits = len <= c->stats.limit_bytes;
	uint64_t number;

	pthread_mutex_lock(&c->lock);
	if (fits)
		make_room(c, len);
	number = c->part_number++;
	pthread_mutex_unlock(&c->lock);
	int err = fits ? write_file(c, sha, number, data, len) : -ENOSPC;
	pthread_mutex_lock(&c->lock);
	if (err)
		c->stats.unwritten++;
	else
		enter(c, sha, len);
	make_room(c, 0); /* others may have written meanwhile */
	pthread_mutex_unlock(&c->lock);
}

void chunk_cache_stats(struct chunk_cache *c, struct chunk_cache_stats *ret)
{
	pthread_mutex_lock(&c->lock);
	*ret = c->stats;
	pthread_mutex_unlock(&c->lock);
}
