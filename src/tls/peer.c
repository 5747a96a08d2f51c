/* SPDX-License-Identifier: Apache-2.0 */
/* Who is at the other end of a connection. */
#include "tls/tls_priv.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"

static int import_pem(const char *pem, gnutls_x509_crt_t *ret)
{
	gnutls_datum_t text = {.data = (unsigned char *)pem, .size = (unsigned)strlen(pem)};
	int r = gnutls_x509_crt_init(ret);

	return r < 0 ? r : gnutls_x509_crt_import(*ret, &text, GNUTLS_X509_FMT_PEM);
}

/* The first certificate that the peer sent; it has proven to have its key. */
static int import_peer(gnutls_session_t session, gnutls_x509_crt_t *ret)
{
	const gnutls_datum_t *chain;
	unsigned count = 0;
	int r;

	if (gnutls_certificate_type_get(session) != GNUTLS_CRT_X509)
		return -1;
	chain = gnutls_certificate_get_peers(session, &count);
	if (!chain || count == 0)
		return -1;
	r = gnutls_x509_crt_init(ret);
	return r < 0 ? r : gnutls_x509_crt_import(*ret, &chain[0], GNUTLS_X509_FMT_DER);
}

/* Made for signing the handshakes of a client or a server, and for no other certificates. */
static bool usage_fits(gnutls_x509_crt_t crt)
{
	unsigned usage = 0, critical;

	return gnutls_x509_crt_get_ca_status(crt, NULL) == 0 &&
	       gnutls_x509_crt_get_key_usage(crt, &usage, &critical) == 0 &&
	       usage & GNUTLS_KEY_DIGITAL_SIGNATURE &&
	       gnutls_x509_crt_check_key_purpose(crt, GNUTLS_KP_TLS_WWW_SERVER, 0) &&
	       gnutls_x509_crt_check_key_purpose(crt, GNUTLS_KP_TLS_WWW_CLIENT, 0);
}

/*
 * Not gnutls_certificate_verify_peers2(): that trusts whatever the session's credentials hold. Here
 * our CA signs directly, there are no intermediates, and nothing else is trusted.
 */
int tls_peer_identity(const struct tls_context *t, void *gnutls_session, struct tls_identity *ret)
{
	_cleanup_(x509_crt_freep) gnutls_x509_crt_t ca = NULL;
	_cleanup_(x509_crt_freep) gnutls_x509_crt_t peer = NULL;
	char organisation[64];
	unsigned status = 0;

	if (import_pem(t->ca_pem, &ca) < 0 || import_peer(gnutls_session, &peer) < 0)
		return -EACCES;
	if (gnutls_x509_crt_verify(peer, &ca, 1, 0, &status) < 0 || status != 0)
		return -EACCES;
	if (!usage_fits(peer))
		return -EACCES;
	x509_subject(ca, GNUTLS_OID_X520_ORGANIZATION_NAME, organisation, sizeof(organisation));
	return x509_identity(peer, organisation, ret);
}
