/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/sigv4.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/text.h"
#include "wire/sigv4_priv.h"

/*
 * Reading who signed a request, and comparing. Nothing here trusts the text: what is read is only
 * believed once sigv4_verify() has found it signed. Each service family has codes of its own for
 * the same fault; the table below keeps the pairs together.
 */
enum fault {
	FAULT_MISSING,
	FAULT_ALGORITHM,
	FAULT_FORM,
	FAULT_QUERY_FORM,
	FAULT_DATE,
	FAULT_SKEW,
	FAULT_EXPIRED,
	FAULT_NOT_YET,
	FAULT_SCOPE,
	FAULT_UNSIGNED,
	FAULT_TWICE,
	FAULT_PAYLOAD,
	FAULT_MISMATCH
};

static const struct {
	const char *code, *s3_code;
} fault_codes[] = {
    [FAULT_MISSING] = {"MissingAuthenticationToken", "AccessDenied"},
    [FAULT_ALGORITHM] = {"IncompleteSignature", "InvalidRequest"},
    [FAULT_FORM] = {"IncompleteSignature", "AuthorizationHeaderMalformed"},
    [FAULT_QUERY_FORM] = {"IncompleteSignature", "AuthorizationQueryParametersError"},
    [FAULT_DATE] = {"IncompleteSignature", "AccessDenied"},
    [FAULT_SKEW] = {"RequestExpired", "RequestTimeTooSkewed"},
    [FAULT_EXPIRED] = {"RequestExpired", "AccessDenied"},
    [FAULT_NOT_YET] = {"RequestExpired", "AccessDenied"},
    [FAULT_SCOPE] = {"SignatureDoesNotMatch", "AuthorizationHeaderMalformed"},
    [FAULT_UNSIGNED] = {"SignatureDoesNotMatch", "AccessDenied"},
    [FAULT_TWICE] = {"IncompleteSignature", "InvalidArgument"},
    [FAULT_PAYLOAD] = {"IncompleteSignature", "InvalidArgument"},
    [FAULT_MISMATCH] = {"SignatureDoesNotMatch", "SignatureDoesNotMatch"},
};

struct reader {
	struct arena *a;
	const struct sigv4_source *src;
	bool s3;
	int64_t now_ms;
	struct sigv4_auth *auth;
	struct error *e;
};

static int fault(const struct reader *p, enum fault which, const char *message)
{
	if (which == FAULT_SCOPE && p->s3 && p->auth->form == SIGV4_QUERY)
		which = FAULT_QUERY_FORM;
	return error_set(p->e, p->s3 ? fault_codes[which].s3_code : fault_codes[which].code, "%s",
			 message);
}

/* --- pieces --- */

/* Credential: AKID/YYYYMMDD/region/service/aws4_request; the key id may itself hold slashes in no
 * known cloud. */
static int read_credential(const struct reader *p, const char *text, enum fault form)
{
	char *copy = arena_strdup(p->a, text), *save = NULL, *part[6];
	size_t n = 0;

	for (char *t = strtok_r(copy, "/", &save); t; t = strtok_r(NULL, "/", &save)) {
		if (n == 5)
			return fault(p, form,
				     "The credential has too many parts; it must be "
				     "KEY/YYYYMMDD/REGION/SERVICE/aws4_request.");
		part[n++] = t;
	}
	if (n != 5)
		return fault(
		    p, form,
		    "The credential is not of the form KEY/YYYYMMDD/REGION/SERVICE/aws4_request.");
	if (strlen(part[1]) != 8 || strspn(part[1], "0123456789") != 8)
		return fault(p, form, "The credential's date is not of the form YYYYMMDD.");
	if (!str_eq(part[4], "aws4_request"))
		return fault(p, FAULT_SCOPE, "The credential must end in aws4_request.");
	if (strlen(part[0]) > 128)
		return fault(p, form, "The access key id is too long.");
	p->auth->access_key_id = part[0];
	p->auth->date = part[1];
	p->auth->region = part[2];
	p->auth->service = part[3];
	return 0;
}

static int read_signature(const struct reader *p, const char *text, enum fault form)
{
	unsigned char bytes[SIGV4_DIGEST_LEN];

	if (strlen(text) != 2 * SIGV4_DIGEST_LEN || hex_decode(text, strlen(text), bytes) < 0)
		return fault(p, form, "The signature is not 64 hexadecimal digits.");
	p->auth->signature = text;
	return 0;
}

/* "a;b;c", lower case, in order, which also keeps one from being named twice. */
static int read_signed_headers(const struct reader *p, const char *text, enum fault form)
{
	const char *before = NULL;
	size_t before_len = 0;

	if (!*text)
		return fault(p, form, "The list of signed headers is empty.");
	for (const char *t = text; *t;) {
		size_t len = strcspn(t, ";");
		int order = 1;

		for (size_t i = 0; i < len; i++) {
			if ((unsigned char)t[i] <= ' ' || t[i] == ':' ||
			    isupper((unsigned char)t[i]))
				return fault(p, form,
					     "The list of signed headers must be lower-case header "
					     "names joined with ';'.");
		}
		if (before) {
			order = memcmp(t, before, MIN_OF(len, before_len));
			if (!order)
				order = len > before_len ? 1 : -1;
		}
		if (!len || order <= 0)
			return fault(p, form,
				     "The list of signed headers must be sorted, each named once.");
		before = t;
		before_len = len;
		t += len;
		if (*t == ';' && !*++t)
			return fault(p, form, "The list of signed headers ends in ';'.");
	}
	p->auth->signed_headers = text;
	return 0;
}

static bool is_basic_date(const char *s)
{
	return strlen(s) == 16 && strspn(s, "0123456789") == 8 && s[8] == 'T' &&
	       strspn(s + 9, "0123456789") == 6 && s[15] == 'Z';
}

static int read_time(const struct reader *p, const char *amz_date, const char *http_date)
{
	struct sigv4_auth *auth = p->auth;
	char basic[17];

	if (amz_date ? !is_basic_date(amz_date) || clock_parse(amz_date, &auth->time_ms) < 0
		     : !http_date || clock_parse(http_date, &auth->time_ms) < 0)
		return fault(p, FAULT_DATE,
			     "The request needs an X-Amz-Date of the form YYYYMMDDTHHMMSSZ, or a "
			     "valid Date header.");
	clock_format_basic(auth->time_ms, basic);
	if (strncmp(basic, auth->date, 8) != 0)
		return fault(
		    p, FAULT_SCOPE,
		    "The credential's date is not the date that the request was signed on.");
	return 0;
}

/* --- what must be signed --- */

static bool is_signed(const char *signed_headers, const char *name)
{
	size_t name_len = strlen(name);

	for (const char *p = signed_headers; *p;) {
		size_t len = strcspn(p, ";");

		if (len == name_len && strncasecmp(p, name, len) == 0)
			return true;
		p += len + (p[len] == ';');
	}
	return false;
}

struct unsigned_search {
	const struct sigv4_auth *auth;
	const char *found;
};

static void look_for_unsigned(void *ctx, const char *name, const char *value)
{
	struct unsigned_search *s = ctx;

	if (!s->found && (strncasecmp(name, "x-amz-", 6) == 0 || strcasecmp(name, "host") == 0) &&
	    !is_signed(s->auth->signed_headers, name))
		s->found = name;
}

static int check_signed(const struct reader *p)
{
	struct unsigned_search s = {.auth = p->auth};

	if (!is_signed(p->auth->signed_headers, "host"))
		return fault(p, FAULT_UNSIGNED, "The Host header must be signed.");
	p->src->each_header(p->src->ctx, look_for_unsigned, &s);
	if (s.found)
		return fault(
		    p, FAULT_UNSIGNED,
		    arena_printf(p->a,
				 "There were headers present in the request which were not "
				 "signed: %.64s",
				 s.found));
	return 0;
}

/* S3 signs a header that says how the body is covered. */
static int check_payload(const struct reader *p)
{
	const char *h = p->auth->payload_hash;

	if (!p->s3)
		return 0;
	if (!h && p->auth->form == SIGV4_QUERY) {
		p->auth->payload_hash = "UNSIGNED-PAYLOAD";
		return 0;
	}
	if (!h)
		return error_set(p->e, "InvalidRequest",
				 "Missing required header for this request: "
				 "x-amz-content-sha256");
	if (str_eq(h, "UNSIGNED-PAYLOAD") || str_prefix(h, "STREAMING-"))
		return 0;
	if (strlen(h) != 64 || strspn(h, "0123456789abcdef") != 64)
		return fault(p, FAULT_PAYLOAD,
			     "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING- form, or "
			     "a SHA-256 in 64 lower-case hexadecimal digits.");
	return 0;
}

/* --- the two forms --- */

struct header_fields {
	const char *credential, *signed_headers, *signature;
};

static int split_authorization(const struct reader *p, const char *text, struct header_fields *ret)
{
	char *copy = arena_strdup(p->a, text), *save = NULL;

	for (char *t = strtok_r(copy, ", \t", &save); t; t = strtok_r(NULL, ", \t", &save)) {
		const char **slot = NULL;
		char *eq = strchr(t, '=');

		if (!eq)
			return fault(p, FAULT_FORM,
				     "The Authorization header is not a list of NAME=VALUE.");
		*eq = '\0';
		if (str_eq(t, "Credential"))
			slot = &ret->credential;
		else if (str_eq(t, "SignedHeaders"))
			slot = &ret->signed_headers;
		else if (str_eq(t, "Signature"))
			slot = &ret->signature;
		if (!slot || *slot)
			return fault(p, FAULT_FORM,
				     "The Authorization header takes Credential, SignedHeaders and "
				     "Signature, each once.");
		*slot = eq + 1;
	}
	if (!ret->credential || !ret->signed_headers || !ret->signature)
		return fault(
		    p, FAULT_FORM,
		    "The Authorization header needs Credential, SignedHeaders and Signature.");
	return 0;
}

static int read_header_form(const struct reader *p, const char *authorization)
{
	const struct sigv4_source *src = p->src;
	struct header_fields f = {0};
	size_t len = strlen(SIGV4_ALGORITHM);
	int r;

	if (strncmp(authorization, SIGV4_ALGORITHM, len) != 0 ||
	    (authorization[len] != ' ' && authorization[len] != '\t'))
		return fault(p, FAULT_ALGORITHM,
			     "The authorization mechanism is not supported; use "
			     "AWS4-HMAC-SHA256.");
	p->auth->form = SIGV4_HEADER;
	if ((r = split_authorization(p, authorization + len, &f)) < 0 ||
	    (r = read_credential(p, f.credential, FAULT_FORM)) < 0 ||
	    (r = read_signed_headers(p, f.signed_headers, FAULT_FORM)) < 0 ||
	    (r = read_signature(p, f.signature, FAULT_FORM)) < 0 ||
	    (r = read_time(p, src->header(src->ctx, "X-Amz-Date"), src->header(src->ctx, "Date"))) <
		0)
		return r;
	p->auth->session_token = src->header(src->ctx, "X-Amz-Security-Token");
	p->auth->payload_hash = src->header(src->ctx, "X-Amz-Content-Sha256");
	if (p->auth->time_ms > p->now_ms + SIGV4_SKEW_MS ||
	    p->auth->time_ms < p->now_ms - SIGV4_SKEW_MS)
		return fault(p, FAULT_SKEW,
			     "The difference between the request's time and this server's clock is "
			     "larger than 15 minutes.");
	return 0;
}

/* One X-Amz-… parameter that must be there once. */
static int need_param(const struct reader *p, const char *name, const char **ret)
{
	size_t count;

	*ret = sigv4_query_param(p->a, p->src->query, name, &count);
	if (count == 1 && **ret)
		return 0;
	return fault(p, FAULT_QUERY_FORM,
		     arena_printf(p->a, "The query parameter %s %s.", name,
				  count > 1 ? "is given more than once" : "is missing"));
}

static int read_expires(const struct reader *p)
{
	size_t count;
	const char *text = sigv4_query_param(p->a, p->src->query, "X-Amz-Expires", &count);

	if (!count && !p->s3) {
		p->auth->expires_s = SIGV4_SKEW_MS / 1000;
		return 0;
	}
	if (count != 1 || parse_i64(text, 1, SIGV4_MAX_EXPIRES_S, &p->auth->expires_s) < 0)
		return fault(
		    p, FAULT_QUERY_FORM,
		    "X-Amz-Expires must be a number of seconds from 1 to 604800 (a week).");
	return 0;
}

static int check_expiry(const struct reader *p)
{
	const struct sigv4_auth *auth = p->auth;

	if (auth->time_ms > p->now_ms + SIGV4_SKEW_MS)
		return fault(p, FAULT_NOT_YET, "The request is not valid yet.");
	if (auth->time_ms + auth->expires_s * 1000 < p->now_ms)
		return fault(p, FAULT_EXPIRED, "Request has expired");
	return 0;
}

static int read_query_form(const struct reader *p)
{
	const char *algorithm, *credential, *headers, *signature, *date, *query = p->src->query;
	int r;

	p->auth->form = SIGV4_QUERY;
	if ((r = need_param(p, "X-Amz-Algorithm", &algorithm)) < 0)
		return r;
	if (!str_eq(algorithm, SIGV4_ALGORITHM))
		return fault(p, FAULT_QUERY_FORM, "X-Amz-Algorithm must be AWS4-HMAC-SHA256.");
	if ((r = need_param(p, "X-Amz-Credential", &credential)) < 0 ||
	    (r = need_param(p, "X-Amz-SignedHeaders", &headers)) < 0 ||
	    (r = need_param(p, "X-Amz-Signature", &signature)) < 0 ||
	    (r = need_param(p, "X-Amz-Date", &date)) < 0 ||
	    (r = read_credential(p, credential, FAULT_QUERY_FORM)) < 0 ||
	    (r = read_signed_headers(p, headers, FAULT_QUERY_FORM)) < 0 ||
	    (r = read_signature(p, signature, FAULT_QUERY_FORM)) < 0 ||
	    (r = read_time(p, date, NULL)) < 0 || (r = read_expires(p)) < 0 ||
	    (r = check_expiry(p)) < 0)
		return r;
	p->auth->session_token = sigv4_query_param(p->a, query, "X-Amz-Security-Token", NULL);
	p->auth->payload_hash = p->src->header(p->src->ctx, "X-Amz-Content-Sha256");
	if (!p->auth->payload_hash)
		p->auth->payload_hash =
		    sigv4_query_param(p->a, query, "X-Amz-Content-Sha256", NULL);
	return 0;
}

static int read_v2_form(const struct reader *p, struct sigv4_auth *ret)
{
	const char *wrong = sigv2_read(p->a, p->src, p->now_ms, p->auth);

	if (wrong)
		return fault(p, FAULT_EXPIRED, wrong);
	*ret = *p->auth;
	return 0;
}

int sigv4_parse_source(struct arena *a, const struct sigv4_source *src, bool s3, int64_t now_ms,
		       struct sigv4_auth *ret, struct error *e)
{
	struct sigv4_auth auth = {0};
	struct reader p = {.a = a, .src = src, .s3 = s3, .now_ms = now_ms, .auth = &auth, .e = e};
	const char *authorization = src->header(src->ctx, "Authorization");
	size_t in_query = 0, v2 = 0;
	int r;

	sigv4_query_param(a, src->query, "X-Amz-Algorithm", &in_query);
	sigv4_query_param(a, src->query, "AWSAccessKeyId", &v2);
	if (authorization && (in_query || v2))
		return fault(
		    &p, FAULT_TWICE,
		    "Sign either in the Authorization header or in the query, not in both.");
	if (v2 && !s3)
		return fault(&p, FAULT_ALGORITHM,
			     "Signature Version 2 is not supported; use AWS4-HMAC-SHA256.");
	if (v2)
		return read_v2_form(&p, ret);
	if (!authorization && !in_query)
		return fault(&p, FAULT_MISSING, "The request is not signed.");
	r = authorization ? read_header_form(&p, authorization) : read_query_form(&p);
	if (r < 0 || (r = check_signed(&p)) < 0 || (r = check_payload(&p)) < 0)
		return r;
	*ret = auth;
	return 0;
}

int sigv4_verify_source(struct arena *a, const struct sigv4_source *src,
			const struct sigv4_auth *auth,
			const unsigned char key[static SIGV4_KEY_LEN],
			const char *payload_sha256_hex, struct error *e)
{
	unsigned char want[SIGV4_DIGEST_LEN], given[SIGV4_DIGEST_LEN];

	if (auth->form == SIGV4_QUERY_V2) {
		if (sigv2_matches(a, src, auth, key))
			return 0;
		goto mismatch;
	}
	sigv4_signature(a, auth, sigv4_canonical_request(a, src, auth, payload_sha256_hex), key,
			want);
	if (strlen(auth->signature) == 2 * SIGV4_DIGEST_LEN &&
	    hex_decode(auth->signature, 2 * SIGV4_DIGEST_LEN, given) == 0 &&
	    bytes_equal_const(want, given, sizeof(want)))
		return 0;
mismatch:
	return error_set(
	    e, fault_codes[FAULT_MISMATCH].code,
	    "The request signature we calculated does not match the signature you provided. Check "
	    "your secret access key and signing method.");
}

/* --- over a server's request --- */

static const char *request_header(void *ctx, const char *name)
{
	return http_header(ctx, name);
}

static void request_each_header(void *ctx,
				void (*fn)(void *fn_ctx, const char *name, const char *value),
				void *fn_ctx)
{
	http_each_header(ctx, fn, fn_ctx);
}

static struct sigv4_source request_source(const struct http_request *r)
{
	return (struct sigv4_source){
	    .method = http_method(r),
	    .path = http_path(r),
	    .query = http_query(r),
	    .header = request_header,
	    .each_header = request_each_header,
	    .ctx = (void *)(uintptr_t)r,
	};
}

int sigv4_parse(struct arena *a, const struct http_request *r, bool s3, int64_t now_ms,
		struct sigv4_auth *ret, struct error *e)
{
	struct sigv4_source src = request_source(r);

	return sigv4_parse_source(a, &src, s3, now_ms, ret, e);
}

int sigv4_verify(struct arena *a, const struct http_request *r, const struct sigv4_auth *auth,
		 const unsigned char key[static SIGV4_KEY_LEN], const char *payload_sha256_hex,
		 struct error *e)
{
	struct sigv4_source src = request_source(r);

	return sigv4_verify_source(a, &src, auth, key, payload_sha256_hex, e);
}
