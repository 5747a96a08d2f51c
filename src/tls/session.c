/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending: bytes are gathered into a record's worth (`stage`) and given to GnuTLS, which keeps what the socket does not take
 * and wants to be called again for it without anything new in between (`pending`).
 */
#include "tls/session.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

#define RECORD_BYTES 16384

struct tls_session {
	const struct tls_context *tls;
	gnutls_certificate_credentials_t creds;
	gnutls_session_t gnutls;
	struct tls_identity peer;
	bool ready, pending;
	char stage[RECORD_BYTES];
};

/* TLS 1.3; 1.2 because NBD asks for it ("TLS versions" of its protocol). */
#define PRIORITY "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

static int load(struct tls_session *s)
{
	gnutls_datum_t ca = { (unsigned char *)s->tls->ca_pem, (unsigned)strlen(s->tls->ca_pem) };
	gnutls_datum_t cert = { (unsigned char *)s->tls->cert_pem, (unsigned)strlen(s->tls->cert_pem) };
	gnutls_datum_t key = { (unsigned char *)s->tls->key_pem, (unsigned)strlen(s->tls->key_pem) };
	int r = gnutls_certificate_allocate_credentials(&s->creds);

	if (r >= 0) /* so that a server names it when it asks for certificates */
		r = gnutls_certificate_set_x509_trust_mem(s->creds, &ca, GNUTLS_X509_FMT_PEM);
	if (r >= 0)
		r = gnutls_certificate_set_x509_key_mem(s->creds, &cert, &key, GNUTLS_X509_FMT_PEM);
	return r;
}

int tls_session_new(const struct tls_context *tls, bool server, int fd, struct tls_session **ret)
{
	struct tls_session *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->tls = tls;
	int r = load(s);
	if (r >= 0)
		r = gnutls_init(&s->gnutls, (server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
	if (r >= 0)
		r = gnutls_priority_set_direct(s->gnutls, PRIORITY, NULL);
	if (r >= 0)
		r = gnutls_credentials_set(s->gnutls, GNUTLS_CRD_CERTIFICATE, s->creds);
	if (r < 0) {
		tls_session_free(s);
		return -ENOMEM;
	}
	if (server)
		gnutls_certificate_server_set_request(s->gnutls, GNUTLS_CERT_REQUIRE);
	gnutls_transport_set_int(s->gnutls, fd);
	*ret = s;
	return 0;
}

void tls_session_free(struct tls_session *s)
{
	if (!s)
		return;
	if (s->gnutls) {
		if (s->ready && !s->pending)
			gnutls_bye(s->gnutls, GNUTLS_SHUT_WR);
		gnutls_deinit(s->gnutls);
	}
	if (s->creds)
		gnutls_certificate_free_credentials(s->creds);
	explicit_bzero(s->stage, sizeof(s->stage));
	free(s);
}

static int error_of(ssize_t r)
{
	switch (r) {
	case GNUTLS_E_AGAIN:
	case GNUTLS_E_INTERRUPTED:
		return -EAGAIN;
	case GNUTLS_E_PUSH_ERROR:
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PREMATURE_TERMINATION:
		return -ECONNRESET;
	case GNUTLS_E_NO_CERTIFICATE_FOUND:
	case GNUTLS_E_CERTIFICATE_REQUIRED:
		return -EACCES;
	default:
		return -EPROTO;
	}
}

int tls_session_handshake(struct tls_session *s)
{
	int r;

	do
		r = gnutls_handshake(s->gnutls);
	while (r == GNUTLS_E_INTERRUPTED || (r < 0 && r != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(r)));
	if (r < 0)
		return error_of(r);
	r = tls_peer_identity(s->tls, s->gnutls, &s->peer);
	if (r < 0)
		return r;
	s->ready = true;
	return 0;
}

bool tls_session_wants_write(const struct tls_session *s)
{
	return gnutls_record_get_direction(s->gnutls) == 1;
}

struct tls_identity tls_session_peer(const struct tls_session *s)
{
	return s->peer;
}

ssize_t tls_session_recv(struct tls_session *s, void *data, size_t len)
{
	ssize_t n;

	do
		n = gnutls_record_recv(s->gnutls, data, len);
	while (n == GNUTLS_E_INTERRUPTED);
	if (n == GNUTLS_E_REHANDSHAKE || n == GNUTLS_E_REAUTH_REQUEST)
		return -EPROTO;
	return n < 0 ? error_of(n) : n;
}

/* 0, or an error; -EAGAIN: it waits in GnuTLS. */
static int push(struct tls_session *s, const void *data, size_t len)
{
	ssize_t n;

	do
		n = gnutls_record_send(s->gnutls, data, len);
	while (n == GNUTLS_E_INTERRUPTED);
	s->pending = n == GNUTLS_E_AGAIN;
	return n < 0 ? error_of(n) : 0;
}

/* Up to a record of [skip, …) of iov into the stage: its length. */
static size_t gather(struct tls_session *s, const struct iovec *iov, unsigned count, size_t skip)
{
	size_t len = 0;

	for (unsigned i = 0; i < count && len < RECORD_BYTES; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		size_t take = MIN_OF(iov[i].iov_len - skip, RECORD_BYTES - len);
		memcpy(s->stage + len, (const char *)iov[i].iov_base + skip, take);
		len += take;
		skip = 0;
	}
	return len;
}

ssize_t tls_session_send(struct tls_session *s, const struct iovec *iov, unsigned count)
{
	size_t taken = 0;
	int r = s->pending ? push(s, NULL, 0) : 0;

	while (r == 0) {
		size_t len = gather(s, iov, count, taken);
		if (len == 0)
			break;
		r = push(s, s->stage, len);
		if (r == 0 || r == -EAGAIN)
			taken += len;
	}
	if (r < 0 && r != -EAGAIN)
		return r;
	return taken || !r ? (ssize_t)taken : -EAGAIN;
}

bool tls_session_unsent(const struct tls_session *s)
{
	return s->pending;
}
