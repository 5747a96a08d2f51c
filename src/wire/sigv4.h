/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_WIRE_SIGV4_H
#define MALLEE_WIRE_SIGV4_H

#include "base/arena.h"
#include "base/error.h"
#include "base/secret.h"
#include "wire/http_server.h"

/*
 * AWS Signature Version 4: header form and query (presigned) form, and Version 2's query form that `aws s3 presign` makes.
 * Verification is in two steps, since the key lives elsewhere: sigv4_parse() reads who signed and for what; the caller fetches
 * that credential's signing key; sigv4_verify() compares in constant time.
 */
#define SIGV4_KEY_LEN 32

enum sigv4_form { SIGV4_HEADER, SIGV4_QUERY };

struct sigv4_auth {
	enum sigv4_form form;
	const char *access_key_id;
	const char *date;    /* YYYYMMDD */
	const char *region, *service;
	const char *signed_headers; /* as sent: a;b;c */
	const char *signature;      /* hexadecimal, as sent */
	int64_t time_ms;            /* X-Amz-Date or Date */
	int64_t expires_s;          /* query form: X-Amz-Expires; 0 else */
	const char *session_token;  /* NULL when none */
	/* x-amz-content-sha256 as sent, or NULL: 64 hex digits, UNSIGNED-PAYLOAD, STREAMING-… */
	const char *payload_hash;
};

/* What the request's own text says. Errors (EC2's codes; S3's differ and are mapped by `s3`): MissingAuthenticationToken (S3:
 * AccessDenied), IncompleteSignature, AuthFailure, RequestExpired (S3: RequestTimeTooSkewed, AccessDenied "Request has expired"),
 * InvalidClientTokenId… Checks the form, dates, a 15-minute skew, expiry (1 s to 7 days), that host and, where sent, every
 * x-amz-* header is signed. now_ms is the caller's clock. */
int sigv4_parse(struct arena *a, const struct http_request *r, bool s3, int64_t now_ms, struct sigv4_auth *ret, struct error *e);

/* Derive the signing key of a day, region and service. */
void sigv4_signing_key(const struct secret *secret_key, const char *date, const char *region, const char *service,
		       unsigned char out[static SIGV4_KEY_LEN]);

/* Compare. payload_sha256_hex is what the body's hash must be signed as: the real hash, or auth->payload_hash for S3 (the
 * caller then checks the body against it). SignatureDoesNotMatch on failure. */
int sigv4_verify(struct arena *a, const struct http_request *r, const struct sigv4_auth *auth,
		 const unsigned char key[static SIGV4_KEY_LEN], const char *payload_sha256_hex, struct error *e);

/* Client side. Headers ("Name: value", NULL-terminated, in the arena) to add to a request. */
const char **sigv4_sign(struct arena *a, const char *access_key_id, const struct secret *secret_key, const char *region,
			const char *service, const char *method, const char *url, const void *body, size_t body_len, int64_t now_ms);
/* A presigned GET of url, valid expires_s. */
char *sigv4_presign(struct arena *a, const char *access_key_id, const struct secret *secret_key, const char *region,
		    const char *service, const char *method, const char *url, int64_t expires_s, int64_t now_ms);

#endif
