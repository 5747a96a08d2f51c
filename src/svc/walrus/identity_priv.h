/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_WALRUS_IDENTITY_PRIV_H
#define MALLEE_SVC_WALRUS_IDENTITY_PRIV_H

#include "base/arena.h"
#include "base/error.h"
#include "tls/tls.h"
#include "wire/sigv4.h"

/* Who signed a request. */
struct caller {
	const char *account_id;
	const char *account_name;
	const char *canonical_id; /* S3's owner id, 64 hexadecimal digits */
	const char *arn;
	unsigned char signing_key[SIGV4_KEY_LEN];
};

/*
 * Signing keys, asked of the cloud controller and kept until it wants to be asked again. While it
 * cannot be reached, keys that were known go on being accepted for IDENTITY_STALE_MS more, so that
 * a restart of the controller is not an outage of the object store. Any thread may call.
 */
struct identity;

#define IDENTITY_CACHE_MAX 256		/* signing keys and refusals kept */
#define IDENTITY_NEGATIVE_MS 5000	/* an unknown key is asked for again after this */
#define IDENTITY_STALE_MS (3600 * 1000) /* see above */
#define IDENTITY_RETRY_MS 1000		/* an unreachable controller is tried again after this */
#define IDENTITY_TIMEOUT_MS 5000

/* tls and url must outlive it; url is the cloud controller's base URL. */
struct identity *identity_new(const struct tls_context *tls, const char *url);
void identity_free(struct identity *id);
/* InvalidAccessKeyId, or ServiceUnavailable. Strings in a. */
int identity_get(struct identity *id, struct arena *a, const struct sigv4_auth *auth,
		 struct caller *ret, struct error *e);

#endif
