/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <dir>/<sha256>.raw is a complete, verified image; <sha256>.part what was fetched of one so far.
 * One fetch an image: its record stands in `fetches` while it lasts, and whoever wants the same
 * image waits on it and shares its outcome. `lock` guards that list only; it is not held over disk
 * or network.
 */
#include "svc/nc/image_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "os/file.h"
#include "svc/nc/image_fetch.h"

#define SHA_HEX 64
#define WAIT_MS 500
#define STALE_PART_S 86400

struct fetch_entry {
	struct fetch_entry *next;
	char sha256[SHA_HEX + 1];
	unsigned users; /* the one that fetches and those that wait */
	bool over;
	int result;
	struct error error;
	int64_t done, size;
	struct http_client *http;
};

struct image_cache {
	char *dir;
	int64_t limit;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct fetch_entry *fetches;
	bool cancelled;
};

static bool sha_valid(const char *s)
{
	return s && strlen(s) == SHA_HEX && strspn(s, "0123456789abcdef") == SHA_HEX;
}

static void file_path(const struct image_cache *c, const char *sha, const char *suffix, char *out,
		      size_t size)
{
	snprintf(out, size, "%s/%s.%s", c->dir, sha, suffix);
}

struct cached { /* a file of the folder */
	char name[80];
	int64_t bytes, used_s;
};

/* The files with this suffix; *ret is malloc()ed. */
static size_t list_files(const struct image_cache *c, const char *suffix, struct cached **ret)
{
	DIR *d = opendir(c->dir);
	struct cached *list = NULL;
	struct dirent *entry;
	size_t n = 0;

	while (d && (entry = readdir(d))) {
		struct stat st;

		if (!str_suffix(entry->d_name, suffix) ||
		    strlen(entry->d_name) >= sizeof(list->name) ||
		    fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISREG(st.st_mode))
			continue;
		list = realloc(list, (n + 1) * sizeof(*list));
		if (!list)
			abort();
		strcpy(list[n].name, entry->d_name);
		list[n].bytes = (int64_t)st.st_blocks * 512;
		list[n++].used_s = st.st_mtim.tv_sec;
	}
	if (d)
		closedir(d);
	*ret = list;
	return n;
}

static int64_t total_bytes(const struct cached *list, size_t n)
{
	int64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += list[i].bytes;
	return sum;
}

static int by_use(const void *a, const void *b)
{
	const struct cached *x = a, *y = b;

	return (x->used_s > y->used_s) - (x->used_s < y->used_s);
}

/* Drop the longest unused until `room` more bytes fit. An image larger than the limit is let in: it
 * is needed now. */
static void make_room(const struct image_cache *c, int64_t room)
{
	struct cached *list;
	size_t n = list_files(c, ".raw", &list);
	int64_t sum = total_bytes(list, n);
	char path[4096];

	if (n > 0)
		qsort(list, n, sizeof(*list), by_use);
	for (size_t i = 0; i < n && sum + room > c->limit; i++) {
		snprintf(path, sizeof(path), "%s/%s", c->dir, list[i].name);
		if (unlink(path) == 0)
			sum -= list[i].bytes;
	}
	free(list);
}

static void drop_stale_parts(const struct image_cache *c)
{
	struct cached *list;
	size_t n = list_files(c, ".part", &list);
	char path[4096];

	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", c->dir, list[i].name);
		if (list[i].used_s < time(NULL) - STALE_PART_S)
			unlink(path);
	}
	free(list);
}

int64_t image_cache_size(struct image_cache *c)
{
	struct cached *list;
	size_t n = list_files(c, ".raw", &list);
	int64_t sum = total_bytes(list, n);

	free(list);
	return sum;
}

int image_cache_open(const struct image_cache_config *config, struct image_cache **ret,
		     struct error *e)
{
	struct image_cache *c = calloc(1, sizeof(*c));
	pthread_condattr_t attr;
	int r;

	if (!c || !(c->dir = strdup(config->dir)))
		abort();
	c->limit = config->limit_bytes;
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &attr);
	pthread_condattr_destroy(&attr);
	r = dir_make(c->dir, 0700);
	if (r < 0) {
		error_errno(e, r, "cannot make the image cache %s", c->dir);
		image_cache_close(c);
		return r;
	}
	drop_stale_parts(c);
	*ret = c;
	return 0;
}

void image_cache_close(struct image_cache *c)
{
	if (!c)
		return;
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c->dir);
	free(c);
}

void image_cache_cancel(struct image_cache *c)
{
	pthread_mutex_lock(&c->lock);
	c->cancelled = true;
	for (struct fetch_entry *f = c->fetches; f; f = f->next)
		if (f->http)
			http_client_cancel(f->http);
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

static int open_cached(const struct image_cache *c, const struct image_source *s)
{
	char path[4096];
	struct stat st;
	int fd;

	file_path(c, s->sha256, "raw", path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || (s->size_bytes > 0 && st.st_size != s->size_bytes)) {
		close(fd);
		return -ENOENT;
	}
	futimens(fd, NULL); /* used now */
	return fd;
}

/* The fetch of this image that is under way, or a new one (*ret_mine), with one more user. Lock
 * held. */
static struct fetch_entry *join(struct image_cache *c, const struct image_source *s, bool *ret_mine)
{
	struct fetch_entry *f;

	for (f = c->fetches; f; f = f->next)
		if (str_eq(f->sha256, s->sha256) && !f->over)
			break;
	*ret_mine = !f;
	if (!f) {
		f = calloc(1, sizeof(*f));
		if (!f)
			abort();
		strcpy(f->sha256, s->sha256);
		f->size = s->size_bytes;
		f->next = c->fetches;
		c->fetches = f;
	}
	f->users++;
	return f;
}

static void leave(struct image_cache *c, struct fetch_entry *f)
{
	struct fetch_entry **p = &c->fetches;

	if (--f->users > 0)
		return;
	while (*p != f)
		p = &(*p)->next;
	*p = f->next;
	free(f);
}

struct shared_progress {
	struct image_cache *cache;
	struct fetch_entry *entry;
	image_progress_fn *fn;
	void *ctx;
};

static bool share_progress(void *ctx, int64_t done, int64_t size)
{
	struct shared_progress *p = ctx;
	bool cancelled;

	pthread_mutex_lock(&p->cache->lock);
	p->entry->done = done;
	cancelled = p->cache->cancelled;
	pthread_mutex_unlock(&p->cache->lock);
	return p->fn(p->ctx, done, size) || cancelled;
}

static int do_fetch(struct image_cache *c, struct fetch_entry *f, const struct image_source *s,
		    image_progress_fn *progress, void *ctx, struct error *e)
{
	struct shared_progress shared = {c, f, progress, ctx};
	char part[4096], path[4096];
	struct http_client *http;
	int r = http_client_new(NULL, &http);

	if (r < 0)
		return error_errno(e, r, "cannot make an HTTP client"), -EAGAIN;
	pthread_mutex_lock(&c->lock);
	f->http = http;
	if (c->cancelled)
		http_client_cancel(http);
	pthread_mutex_unlock(&c->lock);

	make_room(c, s->size_bytes);
	file_path(c, s->sha256, "part", part, sizeof(part));
	file_path(c, s->sha256, "raw", path, sizeof(path));
	r = image_fetch(http, s, part, share_progress, &shared, e);
	if (r == 0 && rename(part, path) < 0)
		r = (error_errno(e, errno, "cannot rename %s", part), -EAGAIN);
	if (r == 0)
		dir_sync(c->dir);

	pthread_mutex_lock(&c->lock);
	f->http = NULL;
	pthread_mutex_unlock(&c->lock);
	http_client_free(http);
	return r;
}

static void wait_changed(struct image_cache *c)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += WAIT_MS * 1000000L;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&c->changed, &c->lock, &t);
}

/* Another caller fetches it: wait for the outcome. Lock held on entry and exit. */
static int await(struct image_cache *c, struct fetch_entry *f, image_progress_fn *progress,
		 void *ctx, struct error *e)
{
	while (!f->over) {
		int64_t done = f->done, size = f->size;
		bool cancel = c->cancelled;

		pthread_mutex_unlock(&c->lock);
		cancel = progress(ctx, done, size) || cancel;
		pthread_mutex_lock(&c->lock);
		if (cancel)
			return -ECANCELED;
		if (!f->over)
			wait_changed(c);
	}
	if (f->result == -ECANCELED)
		return 0; /* the other gave up, we did not: our turn */
	if (f->result < 0 && e)
		*e = f->error;
	return f->result;
}

int image_cache_get(struct image_cache *c, const struct image_source *s,
		    image_progress_fn *progress, void *ctx, int *ret_fd, struct error *e)
{
	if (!sha_valid(s->sha256) || !s->url)
		return error_set(e, "Server.InternalError",
				 "the instance's image has no address or no SHA-256"),
		       -EBADMSG;
	for (;;) {
		struct error mine_error = {0};
		struct fetch_entry *f;
		int r, fd = open_cached(c, s);
		bool mine;

		if (fd >= 0) {
			*ret_fd = fd;
			return 0;
		}
		pthread_mutex_lock(&c->lock);
		if (c->cancelled) {
			pthread_mutex_unlock(&c->lock);
			return -ECANCELED;
		}
		f = join(c, s, &mine);
		if (mine) {
			pthread_mutex_unlock(&c->lock);
			fd = open_cached(c, s); /* another's fetch may have ended since we looked */
			r = fd >= 0 ? 0 : do_fetch(c, f, s, progress, ctx, &mine_error);
			pthread_mutex_lock(&c->lock);
			f->result = r;
			f->error = mine_error;
			f->over = true;
			pthread_cond_broadcast(&c->changed);
			if (r < 0 && e)
				*e = mine_error;
		} else {
			r = await(c, f, progress, ctx, e);
		}
		leave(c, f);
		pthread_mutex_unlock(&c->lock);
		if (r < 0)
			return r;
		if (fd >= 0) {
			*ret_fd = fd;
			return 0;
		}
	}
}
