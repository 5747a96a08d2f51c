/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_WALRUS_PRIV_H
#define MALLEE_SVC_WALRUS_PRIV_H

#include "base/arena.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "gen/s3_handlers.h"
#include "object/store.h"
#include "svc/walrus/identity_priv.h"
#include "svc/walrus/sums_priv.h"
#include "tls/tls.h"
#include "wire/codec.h"
#include "wire/http_server.h"
#include "wire/rpc.h"

/* Of bodies that are collected before they are read: lists of keys and of parts. Bytes. */
#define WALRUS_MAX_XML (4u << 20)
/* What the framing of a signed, chunked body may add to the largest PUT. Bytes. */
#define WALRUS_MAX_FRAMING (UINT64_C(64) << 20)

enum walrus_metric {
	METRIC_REQUESTS,
	METRIC_ERRORS_CLIENT,
	METRIC_ERRORS_SERVER,
	METRIC_ABORTED,
	METRIC_AUTH_FAILED,
	METRIC_BYTES_IN,
	METRIC_BYTES_OUT,
	METRIC_COUNT
};

struct walrus {
	const struct settings *settings;
	const char *region;
	char clc_url[64];
	struct store *store;
	struct tls_context *tls;
	struct identity *identity;
	struct metrics *metrics;
	struct http_server *s3;
	struct rpc_server *rpc;
	struct http_server *ops;
};

/* The bytes of a reply, apart from what the codecs print. */
struct s3_body {
	bool set;
	struct store_reader *reader; /* NULL: HEAD */
	uint64_t off, len;
	const char *content_type;
};

/* One request, as its handler sees it. Handlers return 0, or negative with *e set. */
struct s3_call {
	struct walrus *w;
	struct http_request *http;
	struct arena *a; /* the request's */
	struct error *e;
	struct caller caller;
	/* Streamed uploads: the data, complete and checked when the handler runs. */
	struct store_writer *writer;
	struct sums sums; /* of the body, those that were asked for */
	/* The reply: */
	int status; /* 0: the action's */
	struct s3_body body;
};

/* Bucket `name`, if it is the caller's; expected_owner is an account id or NULL. */
int call_bucket(struct s3_call *call, const char *name, const char *expected_owner,
		struct store_bucket *ret);
/* There are no versions but null. */
int call_check_version(struct s3_call *call, const char *version_id);
/* "abc" of "\"abc\"" or of abc. */
const char *etag_unquote(struct arena *a, const char *text);
const char *etag_quote(struct arena *a, const char *etag);
/* If-Match and If-None-Match of a request that writes. */
int call_condition(struct s3_call *call, const char *if_match, const char *if_none_match,
		   struct store_condition *ret);

/* --- streamed uploads: what must hold before the body is asked for --- */
/* Adds to *digests what the handler will need. */
int s3_prepare_put_object(struct s3_call *call, const struct s3_put_object_request *in,
			  unsigned *digests);
int s3_prepare_upload_part(struct s3_call *call, const struct s3_upload_part_request *in,
			   unsigned *digests);

/* --- objects.c: what is kept with an object, by name --- */
#define PAIR_META "meta:" /* then the name of the user's metadata */
struct object_headers {
	const char *cache_control, *content_disposition, *content_encoding, *content_language,
	    *content_type;
	struct wire_time expires;
	const struct wire_map *metadata;
};
/* Pairs in the arena; MetadataTooLarge. */
int object_pairs(struct s3_call *call, const struct object_headers *h, const struct sums *sums,
		 struct store_pairs *ret);

/* Of an upload: the digest that each of its parts must have. Then what a part is kept with:
 * call->sums and that digest. */
int part_digest(struct s3_call *call, const struct store_bucket *b, const char *key,
		const char *upload, unsigned *digests);
int part_commit(struct s3_call *call, const struct store_bucket *b, const char *key,
		const char *upload, int number, struct store_part *ret);

/* --- request.c --- */
extern const struct http_handler walrus_http_handler;

/* --- buckets.c --- */
/* S3's answer about a sub-resource that buckets here never have; false when sub-resources of the
 * query are none of those. */
bool bucket_unconfigured(const char *method, const struct wire_params *query, struct error *e);

#endif
