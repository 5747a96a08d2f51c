/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/id.h"
#include "base/text.h"
#include "object/store_priv.h"
#include "os/file.h"

#define NAME_DIGITS 16
#define PATH_SIZE 4096
#define COPY_STEP ((size_t)8 << 20)

static int path_of(const struct store *s, int64_t id, char out[static PATH_SIZE])
{
	int n = snprintf(out, PATH_SIZE, "%s/data/%02x/%016llx", s->dir, (unsigned)(id & 0xff),
			 (unsigned long long)id);

	return n < PATH_SIZE ? 0 : -ENAMETOOLONG;
}

static int shard_of(const struct store *s, unsigned shard, char out[static PATH_SIZE])
{
	int n = snprintf(out, PATH_SIZE, "%s/data/%02x", s->dir, shard);

	return n < PATH_SIZE ? 0 : -ENAMETOOLONG;
}

int files_prepare(struct store *s, struct error *e)
{
	char path[PATH_SIZE];
	int r;

	for (unsigned i = 0; i < FILES_SHARDS; i++) {
		r = shard_of(s, i, path);
		if (r >= 0)
			r = dir_make(path, 0700);
		if (r < 0)
			return error_errno(e, r, "making the folder %s", path);
	}
	snprintf(path, sizeof(path), "%s/data", s->dir);
	r = dir_sync(path);
	return r < 0 ? error_errno(e, r, "syncing the folder %s", path) : 0;
}

/* Positive and never used before, as far as 62 random bits go; a file of the name is also refused
 * at its creation. */
int64_t files_new_number(void)
{
	uint64_t n;

	do {
		random_bytes(&n, sizeof(n));
		n >>= 2;
	} while (n == 0);
	return (int64_t)n;
}

int files_create(struct store *s, int64_t *ret_id, int *ret_fd, struct error *e)
{
	char path[PATH_SIZE];
	int64_t id = files_new_number();
	int r = path_of(s, id, path);

	if (r < 0)
		return error_errno(e, r, "making a data file");
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0 && (errno == ENOSPC || errno == EDQUOT))
		return error_set(e, "InsufficientStorage",
				 "The disk that holds the object store is full.");
	if (fd < 0)
		return error_errno(e, errno, "making the data file %s", path);
	*ret_id = id;
	*ret_fd = fd;
	return 0;
}

int files_open(struct store *s, int64_t id)
{
	char path[PATH_SIZE];
	int r = path_of(s, id, path);

	if (r < 0)
		return r;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int files_sync_shard(struct store *s, unsigned shard, struct error *e)
{
	char path[PATH_SIZE];
	int r = shard_of(s, shard, path);

	if (r >= 0)
		r = dir_sync(path);
	return r < 0 ? error_errno(e, r, "syncing the folder %s", path) : 0;
}

int files_sync(struct store *s, int64_t id, int fd, struct error *e)
{
	if (fdatasync(fd) < 0) {
		if (errno == ENOSPC || errno == EDQUOT)
			return error_set(e, "InsufficientStorage",
					 "The disk that holds the object store is full.");
		return error_errno(e, errno, "syncing a data file");
	}
	return files_sync_shard(s, (unsigned)(id % FILES_SHARDS), e);
}

void files_unlink(struct store *s, int64_t id)
{
	char path[PATH_SIZE];

	if (path_of(s, id, path) >= 0)
		unlink(path); /* one that stays is garbage, collected at the next start */
}

/* The file system takes no more names of that file (ext4: 65,000): another file, of its bytes. */
static int copy_bytes(struct store *s, int64_t from, int64_t *ret_id, struct error *e)
{
	_cleanup_(fd_closep) int in = files_open(s, from), out = -1;
	int64_t id;
	ssize_t n;
	int r;

	if (in < 0)
		return error_errno(e, in, "opening a data file");
	r = files_create(s, &id, &out, e);
	if (r < 0)
		return r;
	do
		n = copy_file_range(in, NULL, out, NULL, COPY_STEP, 0);
	while (n > 0 || (n < 0 && errno == EINTR));
	if (n < 0 && (errno == ENOSPC || errno == EDQUOT))
		r = error_set(e, "InsufficientStorage",
			      "The disk that holds the object store is full.");
	else if (n < 0)
		r = error_errno(e, errno, "copying a data file");
	else
		r = files_sync(s, id, out, e);
	if (r < 0)
		files_unlink(s, id);
	else
		*ret_id = id;
	return r;
}

int files_link(struct store *s, int64_t from, int64_t *ret_id, struct error *e)
{
	char old_path[PATH_SIZE], new_path[PATH_SIZE];
	int64_t id = files_new_number();
	int r = path_of(s, from, old_path);

	if (r >= 0)
		r = path_of(s, id, new_path);
	if (r < 0)
		return error_errno(e, r, "linking a data file");
	if (link(old_path, new_path) < 0) {
		if (errno == EMLINK)
			return copy_bytes(s, from, ret_id, e);
		return error_errno(e, errno, "linking the data file %s", old_path);
	}
	*ret_id = id;
	return 0;
}

int files_check_space(struct store *s, uint64_t size, struct error *e)
{
	struct statvfs fs;

	if (statvfs(s->dir, &fs) < 0)
		return error_errno(e, errno, "looking at the file system of %s", s->dir);
	uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	uint64_t total_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
	uint64_t reserve = MAX_OF(STORE_RESERVE_MIN, MIN_OF(STORE_RESERVE_MAX, total_bytes / 16));

	if (size > free_bytes || free_bytes - size < reserve)
		return error_set(
		    e, "InsufficientStorage",
		    "The disk that holds the object store has %llu bytes free, too few for this upload.",
		    (unsigned long long)free_bytes);
	return 0;
}

/* --- pins --- */

void dropped_add(struct dropped_list *l, int64_t blob, int64_t file)
{
	if (l->count == l->cap) {
		l->cap = l->cap ? 2 * l->cap : 8;
		l->items = reallocarray(l->items, l->cap, sizeof(*l->items));
		if (!l->items)
			abort();
	}
	l->items[l->count++] = (struct dropped){.blob = blob, .file = file};
}

void dropped_done(struct dropped_list *l)
{
	free(l->items);
	*l = (struct dropped_list){0};
}

static struct pin *pin_find(struct store *s, int64_t blob)
{
	for (struct pin *p = s->pins; p; p = p->next)
		if (p->blob == blob)
			return p;
	return NULL;
}

void files_release(struct store *s, struct dropped_list *l)
{
	struct dropped_list now = {0};

	pthread_mutex_lock(&s->pins_lock);
	for (size_t i = 0; i < l->count; i++) {
		struct dropped d = l->items[i];

		if (d.blob && pin_find(s, d.blob))
			dropped_add(&s->deferred, d.blob, d.file);
		else
			dropped_add(&now, d.blob, d.file);
	}
	pthread_mutex_unlock(&s->pins_lock);
	for (size_t i = 0; i < now.count; i++)
		files_unlink(s, now.items[i].file);
	dropped_done(&now);
	dropped_done(l);
}

void files_pin(struct store *s, int64_t blob)
{
	pthread_mutex_lock(&s->pins_lock);
	struct pin *p = pin_find(s, blob);

	if (!p) {
		p = calloc(1, sizeof(*p));
		if (!p)
			abort();
		p->blob = blob;
		p->next = s->pins;
		s->pins = p;
	}
	p->count++;
	pthread_mutex_unlock(&s->pins_lock);
}

static void pin_remove(struct store *s, struct pin *p)
{
	struct pin **at = &s->pins;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	free(p);
}

void files_unpin(struct store *s, int64_t blob)
{
	struct dropped_list now = {0};

	pthread_mutex_lock(&s->pins_lock);
	struct pin *p = pin_find(s, blob);

	if (p && --p->count == 0) {
		size_t kept = 0;

		pin_remove(s, p);
		for (size_t i = 0; i < s->deferred.count; i++) {
			struct dropped d = s->deferred.items[i];

			if (d.blob == blob)
				dropped_add(&now, d.blob, d.file);
			else
				s->deferred.items[kept++] = d;
		}
		s->deferred.count = kept;
	}
	pthread_mutex_unlock(&s->pins_lock);
	for (size_t i = 0; i < now.count; i++)
		files_unlink(s, now.items[i].file);
	dropped_done(&now);
}

/* --- garbage --- */

static int compare_numbers(const void *x, const void *y)
{
	int64_t a = ((const struct dropped *)x)->file, b = ((const struct dropped *)y)->file;

	return (a > b) - (a < b);
}

struct named {
	struct dropped_list files; /* that metadata names, sorted */
	bool fresh;		   /* the database never held a bucket */
};

static int named_files(struct store *s, struct named *ret, struct error *e)
{
	struct dropped_list *l = &ret->files;
	struct db_conn *c;
	int r = db_read_begin(s->db, &c, e);

	if (r < 0)
		return r;
	sqlite3_stmt *st = db_stmt(c, SQL_EVER_USED);

	if (db_step(c, st, e) > 0)
		ret->fresh = sqlite3_column_int(st, 0) == 0;
	st = db_stmt(c, SQL_ALL_FILES);
	while ((r = db_step(c, st, e)) > 0)
		dropped_add(l, 0, sqlite3_column_int64(st, 0));
	db_read_end(s->db, c);
	if (r >= 0 && l->count > 0)
		qsort(l->items, l->count, sizeof(*l->items), compare_numbers);
	return r;
}

static bool is_named(const struct dropped_list *l, const char *name)
{
	unsigned char bytes[NAME_DIGITS / 2];
	struct dropped key = {0};

	if (strlen(name) != NAME_DIGITS || hex_decode(name, NAME_DIGITS, bytes) < 0)
		return false;
	for (size_t i = 0; i < sizeof(bytes); i++)
		key.file = (int64_t)((uint64_t)key.file << 8 | bytes[i]);
	return l->count && bsearch(&key, l->items, l->count, sizeof(key), compare_numbers);
}

static int collect_shard(struct store *s, unsigned shard, const struct named *named,
			 struct error *e)
{
	char path[PATH_SIZE];
	int r = shard_of(s, shard, path);
	DIR *d = r < 0 ? NULL : opendir(path);

	if (!d)
		return error_errno(e, r < 0 ? r : errno, "reading the folder %s", path);
	for (struct dirent *entry; r >= 0 && (entry = readdir(d));) {
		if (entry->d_name[0] == '.' || is_named(&named->files, entry->d_name))
			continue;
		if (named->fresh) /* data needs a bucket: what is here was another database's */
			r = error_set(e, "InternalError",
				      "%s holds objects, and their database %s/walrus.db is new: put "
				      "the old one back, or move the folder data away.",
				      path, s->dir);
		else
			unlinkat(dirfd(d), entry->d_name, 0);
	}
	closedir(d);
	return r;
}

int files_collect(struct store *s, struct error *e)
{
	struct named named = {0};
	int r = named_files(s, &named, e);

	for (unsigned i = 0; i < FILES_SHARDS && r >= 0; i++)
		r = collect_shard(s, i, &named, e);
	dropped_done(&named.files);
	return r;
}
