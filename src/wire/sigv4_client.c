/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/sigv4.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/text.h"
#include "wire/sigv4_priv.h"

/* Signing our own requests, with the same canonical form that the server checks. */

struct own_request {
	struct arena *a;
	const char *host, *date, *hash; /* headers that are signed; NULL: not sent */
	char *base;			/* URL without its query */
	struct sigv4_source src;
};

static const char *own_header(void *ctx, const char *name)
{
	struct own_request *o = ctx;

	if (strcasecmp(name, "host") == 0)
		return o->host;
	if (strcasecmp(name, "x-amz-date") == 0)
		return o->date;
	if (strcasecmp(name, "x-amz-content-sha256") == 0)
		return o->hash;
	return NULL;
}

/* Takes url apart: scheme://host[:port][/path][?query][#fragment]. Host as an HTTP client sends it:
 * without a default port. */
static void split_url(struct own_request *o, const char *method, const char *url)
{
	struct arena *a = o->a;
	const char *authority = strstr(url, "://");
	bool tls = strncasecmp(url, "https:", 6) == 0;
	size_t len, path_len, query_len;
	const char *path, *default_port = tls ? ":443" : ":80";
	char *host;

	authority = authority ? authority + 3 : url;
	len = strcspn(authority, "/?#");
	path = authority + len;
	path_len = strcspn(path, "?#");
	query_len = path[path_len] == '?' ? strcspn(path + path_len + 1, "#") : 0;
	host = arena_strndup(a, authority, len);
	if (str_suffix(host, default_port))
		host[strlen(host) - strlen(default_port)] = '\0';
	o->host = host;
	o->base = arena_printf(a, "%.*s%s", (int)(path + path_len - url), url, path_len ? "" : "/");
	o->src = (struct sigv4_source){
	    .method = method,
	    .path = path_len ? arena_strndup(a, path, path_len) : "/",
	    .query = query_len ? arena_strndup(a, path + path_len + 1, query_len) : "",
	    .header = own_header,
	    .ctx = o,
	};
}

static char *sign(struct own_request *o, struct sigv4_auth *auth, const struct secret *secret_key,
		  const char *payload_hash)
{
	unsigned char key[SIGV4_KEY_LEN], signature[SIGV4_DIGEST_LEN];
	char *hex = arena_alloc(o->a, 2 * SIGV4_DIGEST_LEN + 1);

	sigv4_signing_key(secret_key, auth->date, auth->region, auth->service, key);
	sigv4_signature(o->a, auth, sigv4_canonical_request(o->a, &o->src, auth, payload_hash), key,
			signature);
	explicit_bzero(key, sizeof(key));
	hex_encode(signature, sizeof(signature), hex);
	return hex;
}

const char **sigv4_sign(struct arena *a, const char *access_key_id, const struct secret *secret_key,
			const char *region, const char *service, const char *method,
			const char *url, const void *body, size_t body_len, int64_t now_ms)
{
	struct own_request o = {.a = a};
	struct sigv4_auth auth = {.form = SIGV4_HEADER,
				  .region = region,
				  .service = service,
				  .signed_headers = "host;x-amz-content-sha256;x-amz-date",
				  .time_ms = now_ms};
	char *date = arena_alloc(a, 17), *hash = arena_alloc(a, SIGV4_HASH_HEX_LEN);
	const char **headers = arena_new_array(a, const char *, 4);

	split_url(&o, method, url);
	clock_format_basic(now_ms, date);
	sigv4_sha256_hex(body_len ? body : "", body_len, hash);
	auth.date = arena_strndup(a, date, 8);
	o.date = date;
	o.hash = hash;
	headers[0] = arena_printf(a, "X-Amz-Date: %s", date);
	headers[1] = arena_printf(a, "X-Amz-Content-Sha256: %s", hash);
	headers[2] =
	    arena_printf(a,
			 "Authorization: " SIGV4_ALGORITHM
			 " Credential=%s/%s/%s/%s/aws4_request, SignedHeaders=%s, Signature=%s",
			 access_key_id, auth.date, region, service, auth.signed_headers,
			 sign(&o, &auth, secret_key, hash));
	return headers;
}

char *sigv4_presign(struct arena *a, const char *access_key_id, const struct secret *secret_key,
		    const char *region, const char *service, const char *method, const char *url,
		    int64_t expires_s, int64_t now_ms)
{
	struct own_request o = {.a = a};
	struct sigv4_auth auth = {.form = SIGV4_QUERY,
				  .region = region,
				  .service = service,
				  .signed_headers = "host",
				  .time_ms = now_ms};
	const char *credential;
	char date[17];

	split_url(&o, method, url);
	clock_format_basic(now_ms, date);
	auth.date = arena_strndup(a, date, 8);
	credential =
	    arena_printf(a, "%s/%s/%s/%s/aws4_request", access_key_id, auth.date, region, service);
	o.src.query = arena_printf(
	    a,
	    "%s%sX-Amz-Algorithm=" SIGV4_ALGORITHM
	    "&X-Amz-Credential=%s&X-Amz-Date=%s&X-Amz-Expires=%lld&X-Amz-SignedHeaders=%s",
	    o.src.query, *o.src.query ? "&" : "",
	    uri_encode(a, credential, strlen(credential), false), date, (long long)expires_s,
	    auth.signed_headers);
	return arena_printf(a, "%s?%s&X-Amz-Signature=%s", o.base, o.src.query,
			    sign(&o, &auth, secret_key,
				 str_eq(service, "s3") ? "UNSIGNED-PAYLOAD" : SIGV4_EMPTY_SHA256));
}
