/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_WIRE_SIGV4_H
#define MALLEE_WIRE_SIGV4_H

#include "base/arena.h"
#include "base/error.h"
#include "base/secret.h"
#include "wire/http_server.h"

/*
 * AWS Signature Version 4: header form and query (presigned) form, and for S3 Version 2's query form, which `aws s3 presign`
 * and boto3 make in us-east-1. Verification is in two steps, since the key lives elsewhere: sigv4_parse() reads who signed and
 * for what; the caller fetches that credential's signing key for auth's date, region and service; sigv4_verify() compares in
 * constant time. The secret follows from no key: Version 2's is not the secret itself either, but what SHA-1 makes of it.
 */
#define SIGV4_KEY_LEN 40 /* Version 4 fills 32 of them, and zeros follow; Version 2 all */
#define SIGV4_DATE_V2 "00000000" /* Version 2 has one key for all days, regions and services */

enum sigv4_form { SIGV4_HEADER, SIGV4_QUERY, SIGV4_QUERY_V2 };

struct sigv4_auth {
	enum sigv4_form form;
	const char *access_key_id;
	const char *date;    /* YYYYMMDD; SIGV4_DATE_V2 */
	const char *region, *service;
	const char *signed_headers; /* as sent: a;b;c */
	const char *signature;      /* as sent: hexadecimal; base64 in Version 2 */
	int64_t time_ms;            /* X-Amz-Date or Date */
	int64_t expires_s;          /* query forms: for so long after time_ms; 0 else */
	const char *session_token;  /* NULL when none */
	/* x-amz-content-sha256 as sent, or NULL: 64 hex digits, UNSIGNED-PAYLOAD, STREAMING-… */
	const char *payload_hash;
};

/* What the request's own text says. Errors (EC2's codes; S3's differ and are mapped by `s3`): MissingAuthenticationToken (S3:
 * AccessDenied), IncompleteSignature, AuthFailure, RequestExpired (S3: RequestTimeTooSkewed, AccessDenied "Request has expired"),
 * InvalidClientTokenId… Checks the form, dates, a 15-minute skew, expiry (1 s to 7 days), that host and, where sent, every
 * x-amz-* header is signed. now_ms is the caller's clock. */
int sigv4_parse(struct arena *a, const struct http_request *r, bool s3, int64_t now_ms, struct sigv4_auth *ret, struct error *e);

/* Derive the signing key of a day, region and service; Version 2's for the date SIGV4_DATE_V2. */
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
