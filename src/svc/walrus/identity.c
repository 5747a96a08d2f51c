/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/walrus/identity_priv.h"

#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "gen/identity.h"
#include "wire/rpc.h"

struct entry {
	char *name; /* access key / date / region / service; NULL: free */
	bool known; /* else: the controller said that there is no such key */
	int64_t fresh_until_ms, usable_until_ms, used_ms;
	char *account_id, *account_name, *canonical_id, *arn;
	unsigned char signing_key[SIGV4_KEY_LEN];
};

struct client {
	struct rpc_client *rpc;
	struct client *next;
};

struct identity {
	const struct tls_context *tls;
	const char *url;
	pthread_mutex_t lock; /* of all below; not held during a call */
	struct entry entries[IDENTITY_CACHE_MAX];
	struct client *idle;
	int64_t down_until_ms; /* the controller did not answer: no use in asking before */
};

struct identity *identity_new(const struct tls_context *tls, const char *url)
{
	struct identity *id = calloc(1, sizeof(*id));

	if (!id)
		abort();
	id->tls = tls;
	id->url = url;
	pthread_mutex_init(&id->lock, NULL);
	return id;
}

static void entry_clear(struct entry *x)
{
	free(x->name);
	free(x->account_id);
	free(x->account_name);
	free(x->canonical_id);
	free(x->arn);
	explicit_bzero(x, sizeof(*x));
}

void identity_free(struct identity *id)
{
	if (!id)
		return;
	for (size_t i = 0; i < IDENTITY_CACHE_MAX; i++)
		entry_clear(&id->entries[i]);
	while (id->idle) {
		struct client *c = id->idle;

		id->idle = c->next;
		rpc_client_free(c->rpc);
		free(c);
	}
	pthread_mutex_destroy(&id->lock);
	free(id);
}

/* --- the cache; callers hold the lock --- */

static struct entry *find(struct identity *id, const char *name)
{
	for (size_t i = 0; i < IDENTITY_CACHE_MAX; i++)
		if (id->entries[i].name && str_eq(id->entries[i].name, name))
			return &id->entries[i];
	return NULL;
}

/* The entry of that name, a free one, or the one that was not used for longest; cleared. */
static struct entry *place(struct identity *id, const char *name)
{
	struct entry *x = find(id, name);

	for (size_t i = 0; !x && i < IDENTITY_CACHE_MAX; i++)
		if (!id->entries[i].name)
			x = &id->entries[i];
	if (!x) {
		x = &id->entries[0];
		for (size_t i = 1; i < IDENTITY_CACHE_MAX; i++)
			if (id->entries[i].used_ms < x->used_ms)
				x = &id->entries[i];
	}
	entry_clear(x);
	x->name = strdup(name);
	return x;
}

static void copy_out(struct entry *x, struct arena *a, int64_t now_ms, struct caller *ret)
{
	x->used_ms = now_ms;
	*ret = (struct caller){
	    .account_id = arena_strdup(a, x->account_id),
	    .account_name = arena_strdup(a, x->account_name),
	    .canonical_id = arena_strdup(a, x->canonical_id),
	    .arn = arena_strdup(a, x->arn),
	};
	memcpy(ret->signing_key, x->signing_key, sizeof(ret->signing_key));
}

static int unknown_key(struct error *e)
{
	return error_set(e, "InvalidAccessKeyId",
			 "The AWS Access Key Id you provided does not exist in our records.");
}

/* 1: answered from the cache; 0: the controller must be asked; negative: known to be refused. */
static int look_up(struct identity *id, struct arena *a, const char *name, bool stale_too,
		   struct caller *ret, struct error *e)
{
	int64_t now_ms = clock_unix_ms();
	int r = 0;

	pthread_mutex_lock(&id->lock);
	struct entry *x = find(id, name);
	bool down = clock_mono_ms() < id->down_until_ms;

	if (x && !x->known && now_ms < x->fresh_until_ms) {
		r = unknown_key(e);
	} else if (x && x->known &&
		   now_ms < (stale_too || down ? x->usable_until_ms : x->fresh_until_ms)) {
		copy_out(x, a, now_ms, ret);
		r = 1;
	} else if (down) {
		r = error_set(e, "ServiceUnavailable",
			      "The cloud controller cannot be reached. Try again.");
	}
	pthread_mutex_unlock(&id->lock);
	return r;
}

static void remember(struct identity *id, struct arena *a, const char *name,
		     const struct identity_get_signing_key_response *got, struct caller *ret)
{
	int64_t now_ms = clock_unix_ms();

	pthread_mutex_lock(&id->lock);
	struct entry *x = place(id, name);

	id->down_until_ms = 0;
	x->known = true;
	x->fresh_until_ms = got->valid_until.value;
	x->usable_until_ms = got->valid_until.value + IDENTITY_STALE_MS;
	x->account_id = strdup(got->account_id);
	x->account_name = strdup(got->account_name ? got->account_name : "");
	x->canonical_id = strdup(got->canonical_id);
	x->arn = strdup(got->arn);
	memcpy(x->signing_key, got->signing_key.data, SIGV4_KEY_LEN);
	copy_out(x, a, now_ms, ret);
	pthread_mutex_unlock(&id->lock);
}

static void remember_unknown(struct identity *id, const char *name)
{
	int64_t now_ms = clock_unix_ms();

	pthread_mutex_lock(&id->lock);
	struct entry *x = place(id, name);

	id->down_until_ms = 0;
	x->fresh_until_ms = now_ms + IDENTITY_NEGATIVE_MS;
	x->used_ms = now_ms;
	pthread_mutex_unlock(&id->lock);
}

/* --- the call --- */

static int take_client(struct identity *id, struct client **ret)
{
	pthread_mutex_lock(&id->lock);
	struct client *c = id->idle;

	if (c)
		id->idle = c->next;
	pthread_mutex_unlock(&id->lock);
	if (!c) {
		c = calloc(1, sizeof(*c));
		if (!c)
			abort();
		int r = rpc_client_new(id->tls, TLS_ROLE_CLC, id->url, &c->rpc);

		if (r < 0) {
			free(c);
			return r;
		}
	}
	*ret = c;
	return 0;
}

static void give_client(struct identity *id, struct client *c)
{
	pthread_mutex_lock(&id->lock);
	c->next = id->idle;
	id->idle = c;
	pthread_mutex_unlock(&id->lock);
}

static int ask(struct identity *id, struct arena *a, const struct sigv4_auth *auth,
	       struct identity_get_signing_key_response **ret, struct error *e)
{
	const struct identity_get_signing_key_request req = {
	    .access_key_id = auth->access_key_id,
	    .date = auth->date,
	    .region = auth->region,
	    .service = auth->service,
	};
	struct client *c;
	void *out = NULL;
	int r = take_client(id, &c);

	if (r < 0)
		return error_errno(e, r, "making a connection to the cloud controller");
	r = rpc_call(c->rpc, &identity_service, "GetSigningKey", &req, a, &out, IDENTITY_TIMEOUT_MS,
		     e);
	give_client(id, c);
	if (r < 0)
		return r;
	*ret = out;
	if ((*ret)->signing_key.len != SIGV4_KEY_LEN)
		return error_set(e, "InternalError",
				 "The cloud controller gave a signing key of %zu bytes.",
				 (*ret)->signing_key.len);
	return 0;
}

int identity_get(struct identity *id, struct arena *a, const struct sigv4_auth *auth,
		 struct caller *ret, struct error *e)
{
	const char *name = arena_printf(a, "%s/%s/%s/%s", auth->access_key_id, auth->date,
					auth->region, auth->service);
	struct identity_get_signing_key_response *got = NULL;
	struct error asked = {0};
	int r = look_up(id, a, name, false, ret, e);

	if (r != 0)
		return r < 0 ? r : 0;
	r = ask(id, a, auth, &got, &asked);
	if (r >= 0) {
		remember(id, a, name, got, ret);
		return 0;
	}
	if (str_eq(asked.code, "InvalidAccessKeyId")) {
		remember_unknown(id, name);
		return unknown_key(e);
	}
	pthread_mutex_lock(&id->lock);
	id->down_until_ms = clock_mono_ms() + IDENTITY_RETRY_MS;
	pthread_mutex_unlock(&id->lock);
	if (look_up(id, a, name, true, ret, NULL) > 0)
		return 0;
	return error_set(e, "ServiceUnavailable",
			 "The cloud controller cannot tell who signed this: %.300s Try again.",
			 asked.message);
}
