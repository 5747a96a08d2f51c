/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_NC_IMAGE_FETCH_H
#define MALLEE_SVC_NC_IMAGE_FETCH_H

#include "svc/nc/image_cache.h"
#include "wire/http_client.h"

/*
 * One download into a file: from where an earlier one broke off, if the server can; verified. On
 * success the file is complete and on disk. On -EAGAIN and -ECANCELED what came stays for the next
 * time; on -EBADMSG it is removed.
 */
int image_fetch(struct http_client *http, const struct image_source *source, const char *path,
		image_progress_fn *progress, void *ctx, struct error *e);

#endif
