/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_NC_IMAGE_CACHE_H
#define MALLEE_SVC_NC_IMAGE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/*
 * Images fetched from Walrus, one file each, named by their SHA-256. What is there was verified
 * when it was fetched. The longest unused ones go when the limit would be passed. A reader gets an
 * open descriptor, so that its file may be dropped meanwhile.
 */
struct image_cache;

struct image_cache_config {
	const char *dir;
	int64_t limit_bytes;
};
int image_cache_open(const struct image_cache_config *c, struct image_cache **ret, struct error *e);
void image_cache_close(struct image_cache *c); /* nobody may be in image_cache_get() any more */
/* From any thread: fetches under way end soon, later ones at once, with -ECANCELED. */
void image_cache_cancel(struct image_cache *c);

struct image_source {
	const char *url;    /* presigned GET */
	const char *sha256; /* 64 lower-case hexadecimal digits */
	int64_t size_bytes; /* of the raw image; 0: not known */
};

/* Called now and then while bytes come in, on the caller's thread; a true answer gives up. */
typedef bool image_progress_fn(void *ctx, int64_t done_bytes, int64_t size_bytes);

/*
 * Fetch the image unless it is there, and open it for reading. Several callers of one image share
 * one fetch. A fetch that broke off goes on where it ended. Blocks for as long as it takes.
 * -EAGAIN: trying again may help (Walrus cannot be reached, or answers an error of its own);
 * -ECANCELED; -ENOSPC; -EBADMSG: it will not help (not the right bytes, not there).
 */
int image_cache_get(struct image_cache *c, const struct image_source *source,
		    image_progress_fn *progress, void *ctx, int *ret_fd, struct error *e);

/* Bytes that the files take; for metrics. */
int64_t image_cache_size(struct image_cache *c);

#endif
