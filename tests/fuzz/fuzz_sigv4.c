/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "wire/sigv4_priv.h"

/*
 * Reading and checking a signature out of a request's text: "METHOD TARGET", then header lines.
 * Whatever the bytes, the reader answers with an error or with fields of the promised form, and the
 * same text has one canonical form.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_HEADERS 64

struct text_request {
	char *names[MAX_HEADERS], *values[MAX_HEADERS];
	size_t count;
};

static const char *get_header(void *ctx, const char *name)
{
	struct text_request *t = ctx;

	for (size_t i = 0; i < t->count; i++) {
		if (strcasecmp(t->names[i], name) == 0)
			return t->values[i];
	}
	return NULL;
}

static void each_header(void *ctx, void (*fn)(void *fn_ctx, const char *name, const char *value),
			void *fn_ctx)
{
	struct text_request *t = ctx;

	for (size_t i = 0; i < t->count; i++)
		fn(fn_ctx, t->names[i], t->values[i]);
}

static void read_headers(struct text_request *t, char *rest)
{
	char *save = NULL;

	for (char *line = strtok_r(rest, "\n", &save); line && t->count < MAX_HEADERS;
	     line = strtok_r(NULL, "\n", &save)) {
		char *colon = strchr(line, ':');

		if (!colon)
			continue;
		*colon = '\0';
		t->names[t->count] = line;
		t->values[t->count++] = colon + 1 + strspn(colon + 1, " ");
	}
}

static void check_fields(const struct sigv4_auth *auth)
{
	if (!auth->access_key_id || !auth->region || !auth->service || !auth->signed_headers ||
	    strlen(auth->date) != 8 || strlen(auth->signature) != 64 ||
	    (auth->form == SIGV4_QUERY &&
	     (auth->expires_s < 1 || auth->expires_s > SIGV4_MAX_EXPIRES_S)))
		abort();
}

static void check_verify(struct arena *a, struct sigv4_source *src, struct sigv4_auth *auth)
{
	static const unsigned char key[SIGV4_KEY_LEN] = {1, 2, 3};
	unsigned char signature[SIGV4_DIGEST_LEN];
	char hex[2 * SIGV4_DIGEST_LEN + 1];
	struct error e = {0};
	char *canonical = sigv4_canonical_request(a, src, auth, "hash");

	/* The right signature passes (the query form's own is not part of what is signed), and so
	 * only that. */
	sigv4_signature(a, auth, canonical, key, signature);
	hex_encode(signature, sizeof(signature), hex);
	auth->signature = hex;
	if (sigv4_verify_source(a, src, auth, key, "hash", &e) < 0)
		abort();
	hex[0] = hex[0] == '0' ? '1' : '0';
	if (sigv4_verify_source(a, src, auth, key, "hash", &e) >= 0)
		abort();
	/* Normalising what is normal changes nothing. */
	canonical = sigv4_normalise(a, src->path, strlen(src->path), true, false);
	if (!str_eq(canonical, sigv4_normalise(a, canonical, strlen(canonical), true, false)))
		abort();
}

static void check_v2(struct arena *a, struct sigv4_source *src, struct sigv4_auth *auth)
{
	static const unsigned char key[SIGV4_KEY_LEN] = {1, 2, 3};
	unsigned char mac[SIGV2_DIGEST_LEN];

	if (!*auth->access_key_id || !str_eq(auth->date, SIGV4_DATE_V2) || auth->expires_s < 0)
		abort();
	sigv2_mac(key, sigv2_string_to_sign(a, src), mac);
	auth->signature = base64_encode(a, mac, sizeof(mac));
	if (!sigv2_matches(a, src, auth, key))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *a = arena_new();
	char *text = arena_strndup(a, (const char *)data, size);
	char *rest = text + strcspn(text, "\n"), *target, *query;
	struct text_request t = {.count = 0};
	struct sigv4_source src = {
	    .method = text, .header = get_header, .each_header = each_header, .ctx = &t};

	if (*rest)
		*rest++ = '\0';
	target = text + strcspn(text, " ");
	if (*target)
		*target++ = '\0';
	query = target + strcspn(target, "?");
	if (*query)
		*query++ = '\0';
	src.path = target;
	src.query = query;
	read_headers(&t, rest);
	for (int s3 = 0; s3 < 2; s3++) {
		struct sigv4_auth auth;
		struct error e = {0};

		if (sigv4_parse_source(a, &src, s3, INT64_C(1795341600000), &auth, &e) < 0) {
			if (!error_is_set(&e))
				abort();
			continue;
		}
		if (auth.form == SIGV4_QUERY_V2) {
			check_v2(a, &src, &auth);
			continue;
		}
		check_fields(&auth);
		check_verify(a, &src, &auth);
	}
	arena_free(a);
	return 0;
}
