/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/nc/image_fetch.h"

#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"

#define SHA256_LEN 32
#define CHUNK (1 << 20)

struct fetch {
	const struct image_source *source;
	struct http_exchange *x;
	int fd;
	int64_t start; /* bytes that were there when the request was made */
	int64_t have;
	gnutls_hash_hd_t hash; /* NULL until the first byte of a good reply */
	struct buf text;       /* what an error reply says, its beginning */
	image_progress_fn *progress;
	void *ctx;
	bool cancelled, too_long, restarted;
	int err; /* of our own disk */
};

static int hash_file(int fd, int64_t len, gnutls_hash_hd_t hash)
{
	_cleanup_(freep) char *chunk = malloc(CHUNK);

	for (int64_t off = 0; chunk && off < len;) {
		ssize_t n = pread(fd, chunk, (size_t)MIN_OF((int64_t)CHUNK, len - off), off);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		gnutls_hash(hash, chunk, (size_t)n);
		off += n;
	}
	return chunk ? 0 : -ENOMEM;
}

/* The first bytes of a good reply: does it go on from where we are (206), or is it the whole (200)?
 */
static int begin_body(struct fetch *f)
{
	int r;

	if (gnutls_hash_init(&f->hash, GNUTLS_DIG_SHA256) < 0)
		return -ENOMEM;
	if (f->x->status == 206)
		return hash_file(f->fd, f->start, f->hash);
	f->restarted = f->start > 0;
	f->start = f->have = 0;
	r = ftruncate(f->fd, 0);
	return r < 0 ? -errno : 0;
}

static int on_data(void *ctx, const void *data, size_t len)
{
	struct fetch *f = ctx;

	if (f->x->status != 200 && f->x->status != 206) {
		if (f->text.len < 1024)
			buf_append(&f->text, data, MIN_OF(len, (size_t)1024));
		return 0;
	}
	if (!f->hash)
		f->err = begin_body(f);
	if (f->err == 0 && f->source->size_bytes > 0 &&
	    f->have + (int64_t)len > f->source->size_bytes)
		f->too_long = true;
	if (f->err == 0 && !f->too_long)
		f->err = fd_pwrite_all(f->fd, data, len, (uint64_t)f->have);
	if (f->err < 0 || f->too_long)
		return -1;
	gnutls_hash(f->hash, data, len);
	f->have += (int64_t)len;
	f->cancelled = f->progress(f->ctx, f->have, f->source->size_bytes);
	return f->cancelled ? -1 : 0;
}

/* An error reply of S3 is XML with a <Code>; that word says more than the status. */
static int bad_status(struct fetch *f, struct error *e)
{
	int status = f->x->status;
	char code[64] = "";
	const char *at = f->text.data ? strstr(f->text.data, "<Code>") : NULL;

	if (at)
		sscanf(at, "<Code>%63[A-Za-z0-9.]", code);
	error_set(e, "Server.InternalError", "cannot fetch the image: Walrus answered %d %s",
		  status, code);
	if (status == 416) { /* what we have is longer than the object */
		(void)!ftruncate(f->fd, 0);
		return -EAGAIN;
	}
	/* 403: the signature may have run out meanwhile; the cloud controller sends a fresh one. */
	return status >= 500 || status == 403 || status == 408 || status == 429 ? -EAGAIN
										: -EBADMSG;
}

static int verify(struct fetch *f, struct error *e)
{
	unsigned char digest[SHA256_LEN];
	char hex[2 * SHA256_LEN + 1];

	if (!f->hash && begin_body(f) < 0) /* an image without a byte */
		return error_errno(e, ENOMEM, "cannot hash the image"), -EAGAIN;
	gnutls_hash_output(f->hash, digest);
	hex_encode(digest, sizeof(digest), hex);
	if (str_eq(hex, f->source->sha256))
		return 0;
	if (f->start > 0) { /* perhaps the piece of last time is bad: once more from the start */
		(void)!ftruncate(f->fd, 0);
		error_set(e, "Server.InternalError",
			  "the image's pieces do not fit: fetching it anew");
		return -EAGAIN;
	}
	error_set(e, "Server.InternalError", "the image is damaged: its SHA-256 is %s, not %s", hex,
		  f->source->sha256);
	return -EBADMSG;
}

static int finish(struct fetch *f, int r, struct error *http_error, struct error *e)
{
	if (f->cancelled || r == -ECANCELED)
		return -ECANCELED;
	if (f->err < 0) {
		error_set(e,
			  f->err == -ENOSPC ? "Server.InsufficientInstanceCapacity"
					    : "Server.InternalError",
			  "cannot write the image to the cache: %s", strerror(-f->err));
		return f->err == -ENOSPC ? -ENOSPC : -EBADMSG;
	}
	if (f->too_long) {
		error_set(e, "Server.InternalError", "the image is longer than %" PRId64 " bytes",
			  f->source->size_bytes);
		return -EBADMSG;
	}
	if (r < 0) {
		error_set(e, "Server.InternalError", "cannot fetch the image: %s",
			  http_error->message);
		return r == -EINVAL ? -EBADMSG : -EAGAIN;
	}
	if (f->x->status != 200 && f->x->status != 206)
		return bad_status(f, e);
	r = verify(f, e);
	if (r == 0 && fsync(f->fd) < 0)
		return error_errno(e, errno, "cannot write the image to the cache"), -EAGAIN;
	return r;
}

int image_fetch(struct http_client *http, const struct image_source *source, const char *path,
		image_progress_fn *progress, void *ctx, struct error *e)
{
	_cleanup_(fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	char range[64];
	const char *headers[] = {NULL, NULL};
	struct http_exchange x = {
	    .method = "GET", .url = source->url, .headers = headers, .timeout_ms = -1};
	struct fetch f = {.source = source, .x = &x, .fd = fd, .progress = progress, .ctx = ctx};
	struct error http_error = {0};
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(e, errno, "cannot open %s", path), -EAGAIN;
	f.start = f.have = st.st_size;
	if (st.st_size > 0) {
		snprintf(range, sizeof(range), "Range: bytes=%" PRId64 "-", (int64_t)st.st_size);
		headers[0] = range;
	}
	x.on_data = on_data;
	x.on_data_ctx = &f;
	r = http_client_do(http, &x, &http_error);
	r = finish(&f, r, &http_error, e);
	if (f.hash)
		gnutls_hash_deinit(f.hash, NULL);
	buf_done(&f.text);
	buf_done(&x.reply);
	if (r == -EBADMSG || r == -ENOSPC)
		unlink(path);
	return r;
}
