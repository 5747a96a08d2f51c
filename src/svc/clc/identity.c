/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/secret.h"
#include "base/text.h"
#include "gen/identity_rpc.h"
#include "svc/clc/accounts.h"
#include "wire/sigv4.h"

/* How long Walrus may go on with a key before it asks again whether it is still good. */
enum { KEY_VALID_MS = 5 * 60 * 1000, DATE_LEN = 8 };

static bool is_date(const char *s)
{
	return strlen(s) == DATE_LEN && strspn(s, "0123456789") == DATE_LEN;
}

int identity_get_signing_key(void *ctx, struct arena *a, const struct tls_identity *peer,
			     const struct identity_get_signing_key_request *in,
			     struct identity_get_signing_key_response *out, struct error *e)
{
	struct clc *c = ctx;
	struct account acc;
	unsigned char *key = arena_alloc(a, SIGV4_KEY_LEN);

	if (!is_date(in->date) || !*in->region || !*in->service)
		return error_set(e, "InvalidParameterValue",
				 "Date must be YYYYMMDD; Region and Service must not be empty");
	int r = account_by_access_key(c, a, in->access_key_id, &acc, e);
	if (r == -ENOENT)
		return error_set(e, "InvalidAccessKeyId",
				 "The access key id does not exist in this cloud");
	if (r < 0)
		return r;
	struct secret secret = secret_new(acc.key->secret_access_key);
	sigv4_signing_key(&secret, in->date, in->region, in->service, key);
	secret_done(&secret);
	out->account_id = acc.record->account_id;
	out->account_name = acc.record->name;
	out->canonical_id = acc.record->canonical_id;
	out->arn = acc.arn;
	out->signing_key = (struct wire_blob){.data = key, .len = SIGV4_KEY_LEN};
	out->valid_until = WIRE_TIME_OF(clock_unix_ms() + KEY_VALID_MS);
	return 0;
}

int identity_get_service_key(void *ctx, struct arena *a, const struct tls_identity *peer,
			     struct identity_get_service_key_response *out, struct error *e)
{
	struct clc *c = ctx;
	struct error none = {0};
	struct account acc;
	int r = account_by_name(c, a, STORAGE_ACCOUNT, &acc, &none);

	if (r < 0 && !str_eq(none.code, "AccountNotFound"))
		return error_set(e, none.code, "%s", none.message);
	if (r < 0)
		r = account_create(c, a, STORAGE_ACCOUNT, &acc, e);
	if (r < 0)
		return r;
	out->account_id = acc.record->account_id;
	out->access_key_id = acc.key->access_key_id;
	out->secret_access_key = acc.key->secret_access_key;
	return 0;
}

struct rpc_binding identity_binding(struct clc *c)
{
	return (struct rpc_binding){
	    .service = &identity_service, .handlers = identity_rpc_handlers, .ctx = c};
}

static const char *s3_host(const struct settings *s)
{
	const char *listen = settings_get(s, SETTING_LISTEN);

	/* Listening everywhere is listening on loopback too. */
	return str_eq(listen, "0.0.0.0") || !*listen ? "127.0.0.1" : listen;
}

int identity_presign(struct clc *c, struct arena *a, const char *account_id, const char *location,
		     int64_t expires_s, const char **ret_url, struct error *e)
{
	struct record_list keys;
	struct records_access_key *k = NULL;
	int r = record_list(c, a, KIND_ACCESS_KEY, account_id, 0, &keys, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < keys.count && !k; i++) {
		struct records_access_key *candidate = keys.items[i].value;

		if (str_eq(candidate->status, "Active"))
			k = candidate;
	}
	if (!k)
		return -ENOENT;
	const char *url = arena_printf(a, "http://%s:%u/%s", s3_host(c->settings),
				       settings_port(c->settings, PORT_S3),
				       uri_encode(a, location, strlen(location), true));
	struct secret secret = secret_new(k->secret_access_key);
	*ret_url = sigv4_presign(a, k->access_key_id, &secret, c->region, "s3", "GET", url,
				 expires_s, clock_unix_ms());
	secret_done(&secret);
	return 0;
}

const char *clc_private_dns_name(struct clc *c, struct arena *a, const char *ip)
{
	char *name = arena_printf(a, "ip-%s", ip);

	for (char *p = name; *p; p++)
		if (*p == '.')
			*p = '-';
	if (str_eq(c->region, "us-east-1"))
		return arena_printf(a, "%s.ec2.internal", name);
	return arena_printf(a, "%s.%s.compute.internal", name, c->region);
}

/* The first letters of a compass direction's parts: southeast is "se", east is "e". */
static void add_direction(struct buf *out, const char *word, size_t len)
{
	static const char *const second[] = {"east", "west"};

	buf_putc(out, word[0]);
	for (size_t i = 0; i < ARRAY_SIZE(second); i++)
		if (len > 5 && strncmp(word + 5, second[i], len - 5) == 0)
			buf_putc(out, second[i][0]);
}

/* As Amazon forms them: us-east-1a is use1-az1, ap-southeast-2b is apse2-az2. */
const char *clc_zone_id(struct clc *c, struct arena *a)
{
	_cleanup_(buf_done) struct buf id = BUF_INIT;
	const char *p = c->region, *dash = strchr(p, '-');
	size_t zone_len = strlen(c->zone);
	char letter = zone_len ? c->zone[zone_len - 1] : 'a';

	buf_append(&id, p, dash ? (size_t)(dash - p) : strlen(p));
	while (dash) {
		p = dash + 1;
		dash = strchr(p, '-');
		if (dash)
			add_direction(&id, p, (size_t)(dash - p));
		else
			buf_puts(&id, p);
	}
	return arena_printf(a, "%s-az%d", id.data,
			    letter >= 'a' && letter <= 'z' ? letter - 'a' + 1 : 1);
}
