/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_TLS_SESSION_H
#define MALLEE_TLS_SESSION_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "tls/tls.h"

/*
 * TLS over a non-blocking socket that is the caller's, between identities of one cloud: both sides show a certificate, and a
 * peer that tls_peer_identity() does not know is refused. One thread at a time.
 */
struct tls_session;

/* tls must outlive it. The descriptor stays the caller's. */
int tls_session_new(const struct tls_context *tls, bool server, int fd, struct tls_session **ret);
/* Sends the closing alert if the socket takes it. NULL is fine. */
void tls_session_free(struct tls_session *s);

/* 0 when done; -EAGAIN: once the socket is ready (for writing if tls_session_wants_write()) call again; -EACCES: the peer is not
 * trusted; -EPROTO. */
int tls_session_handshake(struct tls_session *s);
bool tls_session_wants_write(const struct tls_session *s);
/* After the handshake. */
struct tls_identity tls_session_peer(const struct tls_session *s);

/* Bytes received; 0 at the peer's end; -EAGAIN; -ECONNRESET, -EPROTO. */
ssize_t tls_session_recv(struct tls_session *s, void *data, size_t len);
/* Bytes taken of iov, at least one; -EAGAIN: none, wait until the socket can be written. What was taken may still wait in here:
 * while tls_session_unsent(), call again when the socket can be written, with more or with nothing (0). */
ssize_t tls_session_send(struct tls_session *s, const struct iovec *iov, unsigned count);
bool tls_session_unsent(const struct tls_session *s);

#endif
