/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_PRIV_H
#define MALLEE_SVC_CLC_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "gen/ec2.h"
#include "gen/records.h"
#include "gen/shared.h"
#include "state/state.h"
#include "svc/clc/limits.h"
#include "tls/tls.h"
#include "wire/shape.h"

/*
 * Inside the cloud controller.
 *
 * A request's way: api.c (HTTP, signature, account) -> dispatch.c (action, decode, DryRun, reply)
 *-> one handler, a function `int ec2_ACTION(struct ec2_call *, const struct in *, struct out *)` ->
 *records in state/ -> reconcile.c drives the cluster. Handlers run on the HTTP server's threads,
 *several at once. They share nothing but the state, which locks itself.
 *
 * A handler that changes something has this form:
 *
 *	int r = ec2_begin(call);              // opens the transaction; checks and changes are made
 *under it if (r < 0) return r; … look up, check, put …               // an error is just returned:
 *the dispatcher rolls back return ec2_commit(call);              // DryRunOperation and nothing
 *changed, or committed and the workers woken
 *
 * One that does something slow or outside the state first (places instances, makes a key) checks
 *all that it can, then asks ec2_dry_run_point(), then does it, then opens the transaction. A
 *handler that only reads calls none of these.
 */
struct notice;
struct peer;
struct inventory;
struct reconciler;
struct image_worker;
struct http_server;
struct rpc_server;

/* The one subnet that guests live in (SETTING_SUBNET). */
struct clc_network {
	bool set;
	uint32_t network, gateway; /* host byte order */
	int prefix;
	char cidr[20], gateway_ip[16]; /* "10.1.0.0/16", "10.1.0.1" */
};

struct clc {
	unsigned magic;
	const struct settings *settings;
	struct tls_context *tls;
	struct state *state;
	const char *region, *zone; /* owned by settings */
	struct clc_network network;
	struct metrics *metrics;
	int64_t start_time_ms;
	struct peer *cluster;	     /* messages to the cluster controller */
	struct peer *storage;	     /* and to the storage controller */
	struct inventory *inventory; /* live instances: addresses, counts */
	struct reconciler *reconciler;
	struct notice *storage_notice; /* records were changed by what the storage reported */
	struct image_worker *image_worker;
	struct http_server *api, *api_gateway, *ops;
	struct rpc_server *rpc;
};

/* One API request, from the moment that its signature was found good. Lives on the dispatcher's
 * stack. */
struct ec2_call {
	struct clc *clc;
	struct arena *arena; /* the request's: reply and all that it points to */
	struct error error;
	const char *account_id; /* 12 digits */
	const char *account_name;
	const char *arn; /* of the caller: arn:aws:iam::ACCOUNT:root */
	const char *access_key_id;
	const char *request_id;
	int64_t now_ms; /* one clock reading for all of the request */
	bool dry_run;
	bool in_transaction;
	bool wake_reconciler; /* set by handlers that change instances (ec2_commit wakes it) */
	bool wake_images;     /* set by RegisterImage */
	bool wake_storage;    /* set by handlers that change volumes or snapshots */
};

/* `return ec2_error(call, "InvalidParameterValue", "…")`: -EREMOTEIO, the first error stays. */
int ec2_error(struct ec2_call *call, const char *code, const char *fmt, ...) _printf_(3, 4);
int ec2_begin(struct ec2_call *call);
int ec2_commit(struct ec2_call *call);
/* 0, or DryRunOperation when this request is a dry run. */
int ec2_dry_run_point(struct ec2_call *call);
/* SHA-256, in hexadecimal, of a request's decoded form, to know the same request again by its client
 * token: the caller has cleared what may differ in a retry (the token itself, DryRun). */
int ec2_request_digest(struct ec2_call *call, const struct wire_shape *shape, const void *in,
		       const char **ret);

/* ---- records: the shapes of api/internal/records.json over state/ ---- */
enum clc_kind {
	KIND_ACCOUNT,	 /* id: account id; name: its name; of account "" */
	KIND_ACCESS_KEY, /* id: access key id */
	KIND_INSTANCE,
	KIND_IMAGE,	   /* name: none until a unique one is asked for */
	KIND_KEY_PAIR,	   /* id: key-…; name: key name */
	KIND_TAGS,	   /* id: the resource's id */
	KIND_CLIENT_TOKEN, /* id: reservation id; name: token */
	KIND_VPC,
	KIND_SUBNET,
	KIND_VOLUME,   /* name: client token, if one was given */
	KIND_SNAPSHOT, /* name: client token, if one was given */
	KIND_IMPORT_SNAPSHOT_TASK,
	KIND_COUNT
};

struct clc_kind_info {
	const char *kind; /* in state/ */
	const struct wire_shape *shape;
	const char *prefix;	    /* of ids, "i"; NULL: no API id */
	const char *malformed_code; /* "InvalidInstanceID.Malformed" */
	const char *not_found_code; /* "InvalidInstanceID.NotFound" */
	const char *noun;	    /* "instance ID": for messages, as EC2 words them */
	const char *resource_type;  /* for tags: "instance"; NULL: cannot be tagged */
};
extern const struct clc_kind_info clc_kinds[KIND_COUNT];

/* Decoded records of one kind in order of creation, all in the arena given. */
struct record {
	const char *id, *account;
	int64_t seq; /* order of creation: for paging */
	int64_t revision;
	void *value;	 /* struct records_x * ; NULL from record_scan until record_decode */
	const char *doc; /* record_scan only */
};
struct record_list {
	size_t count;
	struct record *items;
};

/* -ENOENT when missing, e untouched; other failures fill e. *ret is a struct records_x *, in a. */
int record_get(struct clc *c, struct arena *a, enum clc_kind k, const char *id, struct record *ret,
	       struct error *e);
int record_get_by_name(struct clc *c, struct arena *a, enum clc_kind k, const char *account,
		       const char *name, struct record *ret, struct error *e);
/* account NULL: all. since_revision 0: all. */
int record_list(struct clc *c, struct arena *a, enum clc_kind k, const char *account,
		int64_t since_revision, struct record_list *ret, struct error *e);
/* The same without reading the documents, for who needs few of many: record_decode() reads one. */
int record_scan(struct clc *c, struct arena *a, enum clc_kind k, const char *account,
		struct record_list *ret, struct error *e);
int record_decode(struct arena *a, enum clc_kind k, struct record *r, struct error *e);
/* name may be NULL. -EEXIST (e untouched) when the name is taken. */
int record_put(struct clc *c, enum clc_kind k, const char *account, const char *id,
	       const char *name, const void *value, struct error *e);
int record_delete(struct clc *c, enum clc_kind k, const char *id, struct error *e); /* -ENOENT */

/* The same with the API's answers. ec2_get: `id` as the user wrote it; Malformed, or NotFound when
 * it is missing or another account's (images that are public, or one's own, are found). *ret_value
 * is a struct records_x *. */
int ec2_check_id(struct ec2_call *call, enum clc_kind k, const char *id);
int ec2_get(struct ec2_call *call, enum clc_kind k, const char *id,
	    void *ret_value /* struct records_x ** */);
/* All of the caller's. */
int ec2_list(struct ec2_call *call, enum clc_kind k, struct record_list *ret);
/* Many ids, duplicates dropped, in the order of the request: all or none; the error names every
 * missing id, as EC2's does. */
int ec2_get_many(struct ec2_call *call, enum clc_kind k, const struct wire_string_list *ids,
		 struct record_list *ret);
/* The kind that an id's prefix tells, or KIND_COUNT. */
enum clc_kind clc_kind_of_id(const char *id);

/* Whether a request's list names s; for lists that ask for all when they are empty, list_asks(). */
bool list_has(const struct wire_string_list *list, const char *s);
bool list_asks(const struct wire_string_list *list, const char *s);

/* ---- paging: items are offered in order of creation; the token holds the seq of the last one
 * given ---- */
struct page {
	int64_t after_seq, last_seq;
	size_t room; /* SIZE_MAX: not paged */
	bool more;
};
/* min and max bound MaxResults (InvalidParameterValue); with_ids: the request names ids, which
 * excludes MaxResults (InvalidParameterCombination). A token that we did not make is
 * InvalidNextToken. */
int ec2_page(struct ec2_call *call, const struct wire_int *max_results, const char *next_token,
	     bool with_ids, int64_t min, int64_t max, struct page *ret);
/* The same for the actions where EC2 answers a MaxResults above max with max items. */
int ec2_page_clamped(struct ec2_call *call, const struct wire_int *max_results,
		     const char *next_token, bool with_ids, int64_t min, int64_t max,
		     struct page *ret);
/* Whether the next item, which matched the filters, goes into this page; seq counts from 1. */
bool page_take(struct page *p, int64_t seq);
/* NULL when this was the last page. */
const char *page_token(struct arena *a, const struct page *p);

/* ---- tags (tags.c) ---- */
/* The tags for resource_type in a request's TagSpecifications, checked (InvalidParameterValue,
 * InvalidTagKey.Malformed, TagLimitExceeded …). `allowed` lists the resource types that the action
 * can tag, NULL-terminated; others are refused. */
int ec2_tags_from_specs(struct ec2_call *call, const struct ec2_tag_specification_list *specs,
			const char *const *allowed, const char *resource_type,
			struct shared_tag_list *ret);
/* Replace all tags of a resource (count 0: none are left). Within a transaction. */
int tags_put(struct ec2_call *call, const char *resource_type, const char *id,
	     const struct shared_tag_list *tags);
/* Forget a resource's tags, when it is deleted. Within a transaction or not. */
int tags_drop(struct clc *c, const char *id, struct error *e);
/* One resource's tags. */
int tags_get(struct clc *c, struct arena *a, const char *id, struct shared_tag_list *ret,
	     struct error *e);
/* All tags of an account, for Describe actions. */
struct tag_index;
int tag_index_load(struct ec2_call *call, struct tag_index **ret);
/* In the form that replies have; .set = false when the resource has none. */
struct ec2_tag_list tag_index_find(const struct tag_index *t, const char *id);
struct ec2_tag_list tags_to_reply(struct arena *a, const struct shared_tag_list *tags);

/* ---- instances (instances*.c) ---- */
/* Called by whoever changed something that an instance's guest sees through its metadata (tags.c):
 * the specification's generation grows if the instance shows its tags. Within a transaction; sets
 * call->wake_reconciler. */
int instance_touch_tags(struct ec2_call *call, const char *instance_id);

/* ---- images (images.c, image_worker.c) ---- */
/* The image for a launch: InvalidAMIID.Malformed / NotFound / Unavailable unless available and
 * visible to the caller. */
int ec2_image_for_launch(struct ec2_call *call, const char *image_id, struct records_image **ret);
int image_worker_start(struct clc *c, struct image_worker **ret, struct error *e);
void image_worker_wake(struct image_worker *w); /* NULL is fine */
void image_worker_stop(struct image_worker *w); /* NULL is fine; waits for the thread */

/* ---- key pairs (keypairs.c) ---- */
int ec2_key_pair_by_name(struct ec2_call *call, const char *name,
			 struct records_key_pair **ret); /* InvalidKeyPair.NotFound */

/* ---- accounts and identity (identity.c) ---- */
/* A presigned GET of a Walrus object ("bucket/key") with the account's root key. -ENOENT when the
 * account has none. */
int identity_presign(struct clc *c, struct arena *a, const char *account_id, const char *location,
		     int64_t expires_s, const char **ret_url, struct error *e);

/* "ip-10-1-0-5.ec2.internal", the ARN forms, and the zone's id ("use1-az1"). In a. */
const char *clc_private_dns_name(struct clc *c, struct arena *a, const char *ip);
const char *clc_zone_id(struct clc *c, struct arena *a);

#endif
