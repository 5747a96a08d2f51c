/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_NC_CLONE_H
#define MALLEE_SVC_NC_CLONE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct clone_request {
	int image_fd;	    /* the image, raw; -1: an empty disk */
	const char *path;   /* the disk to be; appears complete or not at all */
	int64_t size_bytes; /* of the disk, at least the image's */
	uid_t uid;	    /* its owner, when we are root */
	gid_t gid;
	bool sparse;		 /* nobody will run from it: size and owner only */
	int64_t keep_free_bytes; /* what must stay free on the file system */
	/* now and then; a true answer gives up */
	bool (*progress)(void *ctx, int64_t done_bytes, int64_t size_bytes);
	void *ctx;
};

/*
 * Make a root disk: the image, then zeroes, every block written, so that no later write waits for
 * the file system to allocate or convert an extent (a hole and an unwritten extent cost a guest
 * nine tenths of its write speed). Never a reflink, whose first write to each block copies. -ENOSPC
 * ("Server.InsufficientInstanceCapacity"), -ECANCELED, -EFBIG when the image is larger than the
 * disk, or the errno of the disk.
 */
int clone_disk(const struct clone_request *c, struct error *e);

#endif
