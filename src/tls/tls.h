/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_TLS_TLS_H
#define MALLEE_TLS_TLS_H

#include <stdbool.h>

#include "base/error.h"

/*
 * The cloud's own certificate authority and the identities it issues. Service-to-service messages travel over
 * TLS 1.3 between certificates whose subject is CN=<id>, OU=<role>, O=mallee <cloud id>; nothing else is trusted.
 * ECDSA P-256 keys; CA valid ten years, identities two, renewed by `mallee up` when less than 90 days are left.
 * Layout of a certificate folder: ca.crt; and per identity ROLE.crt, ROLE.key (0600, owned by the role's user).
 */
enum tls_role { TLS_ROLE_NONE, TLS_ROLE_CLC, TLS_ROLE_CC, TLS_ROLE_NC, TLS_ROLE_SC, TLS_ROLE_WALRUS, TLS_ROLE_OPERATOR };
#define TLS_ROLE_BIT(r) (1u << (r))

const char *tls_role_name(enum tls_role r);          /* "clc" … */
enum tls_role tls_role_parse(const char *name);      /* TLS_ROLE_NONE when unknown */

struct tls_identity {
	enum tls_role role;
	char id[64];
};

/* Create dir/ca.key (0600) and dir/ca.crt if missing. */
int tls_ca_init(const char *dir, const char *cloud_id, struct error *e);
/* Issue dir/ROLE.crt and .key for id, unless a valid one for the same id with 90 days left is there. names is a
 * NULL-terminated list of DNS names and IP addresses for subjectAltName (127.0.0.1 and localhost are added). */
int tls_issue(const char *dir, enum tls_role role, const char *id, const char *const *names, struct error *e);

/* What a server or a client loads: own certificate and key, the CA. PEM texts in memory. */
struct tls_context {
	char *ca_pem, *cert_pem, *key_pem;
	char *ca_path, *cert_path, *key_path;
	struct tls_identity self;
};
int tls_context_load(const char *dir, enum tls_role role, struct tls_context **ret, struct error *e);
void tls_context_free(struct tls_context *t);

/* The verified peer's identity out of a GnuTLS session (gnutls_session_t as void *): checks chain against the CA,
 * dates, key usage, organisation. -EACCES when not trusted. */
int tls_peer_identity(const struct tls_context *t, void *gnutls_session, struct tls_identity *ret);

#endif
