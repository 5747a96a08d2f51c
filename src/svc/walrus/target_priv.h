/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_WALRUS_TARGET_PRIV_H
#define MALLEE_SVC_WALRUS_TARGET_PRIV_H

#include "base/arena.h"
#include "base/error.h"

/* The bucket and key that a request is about: out of its path (/BUCKET/KEY), or out of the Host
 * header when that is a bucket's name in front of one of our own names (BUCKET.localhost). */
struct target {
	const char *bucket; /* decoded; NULL: the service */
	const char *key;    /* decoded; NULL: the bucket */
};
/* path is raw. InvalidURI, InvalidArgument. */
int target_parse(struct arena *a, const char *path, const char *host, struct target *ret,
		 struct error *e);

/* Amazon's rules for new names: InvalidBucketName. */
int bucket_name_check(const char *name, struct error *e);

#endif
