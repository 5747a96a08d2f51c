/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_TLS_TLS_PRIV_H
#define MALLEE_TLS_TLS_PRIV_H

#include <gnutls/x509.h>
#include <time.h>

#include "tls/tls.h"

#define TLS_PEM_MAX_BYTES 65536
#define TLS_DAY ((time_t)86400)
#define TLS_CA_DAYS 3650
#define TLS_IDENTITY_DAYS 730
#define TLS_RENEW_DAYS 90

static inline void x509_crt_freep(gnutls_x509_crt_t *c)
{
	if (*c)
		gnutls_x509_crt_deinit(*c);
}

static inline void x509_key_freep(gnutls_x509_privkey_t *k)
{
	if (*k)
		gnutls_x509_privkey_deinit(*k);
}

/* GnuTLS' error as ours: *e gets "<what>: <its text>". Returns -EIO or a nearer errno. */
int x509_error(struct error *e, int gnutls_code, const char *fmt, ...) _printf_(3, 4);

/* Read a PEM file. -ENOENT (with *e untouched) when it is missing. */
int x509_crt_read(const char *path, gnutls_x509_crt_t *ret, struct error *e);
int x509_key_read(const char *path, gnutls_x509_privkey_t *ret, struct error *e);
int x509_key_generate(gnutls_x509_privkey_t *ret, struct error *e);
int x509_crt_write(const char *path, gnutls_x509_crt_t crt, struct error *e);
/* 0600; keeps the owner of the file that it replaces. */
int x509_key_write(const char *path, gnutls_x509_privkey_t key, struct error *e);

bool x509_key_fits(gnutls_x509_crt_t crt, gnutls_x509_privkey_t key);
/* One attribute of the subject; "" when it is missing, doubled, too long or not text. */
void x509_subject(gnutls_x509_crt_t crt, const char *oid, char *out, size_t size);
/* Role and id out of a subject whose organisation is the one given; -EACCES otherwise. */
int x509_identity(gnutls_x509_crt_t crt, const char *organisation, struct tls_identity *ret);

struct x509_request {
	const char *common_name, *unit, *organisation; /* unit NULL: none */
	bool ca;
	const char *const *names; /* subjectAltName, NULL-terminated; NULL: none */
	time_t from, until;
};

/* Make a certificate for subject_key signed by signer (signer_crt NULL: self-signed). */
int x509_make(const struct x509_request *q, gnutls_x509_privkey_t subject_key,
	      gnutls_x509_crt_t signer_crt, gnutls_x509_privkey_t signer_key,
	      gnutls_x509_crt_t *ret, struct error *e);

/* tls_issue() with dates of the caller's choice, always anew: for tests of expiry. */
int tls_issue_dated(const char *dir, enum tls_role role, const char *id, const char *const *names,
		    time_t from, time_t until, struct error *e);

#endif
