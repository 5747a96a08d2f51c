/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates and keys by GnuTLS: reading, writing, making. What they mean to us is in tls.c. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/id.h"
#include "base/secret.h"
#include "base/text.h"
#include "os/file.h"
#include "tls/tls_priv.h"

int x509_error(struct error *e, int gnutls_code, const char *fmt, ...)
{
	char what[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	error_set(e, "InternalError", "%s: %s", what, gnutls_strerror(gnutls_code));
	return gnutls_code == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EIO;
}

static int read_pem(const char *path, gnutls_datum_t *ret, struct error *e)
{
	char *data;
	size_t len;
	int r = file_read(path, TLS_PEM_MAX_BYTES, &data, &len);

	if (r == -ENOENT)
		return r;
	if (r < 0)
		return error_errno(e, r, "Cannot read %s", path);
	*ret = (gnutls_datum_t){.data = (unsigned char *)data, .size = (unsigned)len};
	return 0;
}

int x509_crt_read(const char *path, gnutls_x509_crt_t *ret, struct error *e)
{
	_cleanup_(x509_crt_freep) gnutls_x509_crt_t crt = NULL;
	gnutls_datum_t pem;
	int r = read_pem(path, &pem, e);

	if (r < 0)
		return r;
	r = gnutls_x509_crt_init(&crt);
	if (r == 0)
		r = gnutls_x509_crt_import(crt, &pem, GNUTLS_X509_FMT_PEM);
	free(pem.data);
	if (r < 0)
		return x509_error(e, r, "%s is not a certificate", path);
	*ret = TAKE_PTR(crt);
	return 0;
}

int x509_key_read(const char *path, gnutls_x509_privkey_t *ret, struct error *e)
{
	_cleanup_(x509_key_freep) gnutls_x509_privkey_t key = NULL;
	gnutls_datum_t pem;
	int r = read_pem(path, &pem, e);

	if (r < 0)
		return r;
	r = gnutls_x509_privkey_init(&key);
	if (r == 0)
		r = gnutls_x509_privkey_import(key, &pem, GNUTLS_X509_FMT_PEM);
	secret_free_string((char *)pem.data);
	if (r < 0)
		return x509_error(e, r, "%s is not a private key", path);
	*ret = TAKE_PTR(key);
	return 0;
}

int x509_key_generate(gnutls_x509_privkey_t *ret, struct error *e)
{
	_cleanup_(x509_key_freep) gnutls_x509_privkey_t key = NULL;
	int r = gnutls_x509_privkey_init(&key);

	if (r == 0)
		r = gnutls_x509_privkey_generate(
		    key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
	if (r < 0)
		return x509_error(e, r, "Cannot make a private key");
	*ret = TAKE_PTR(key);
	return 0;
}

int x509_crt_write(const char *path, gnutls_x509_crt_t crt, struct error *e)
{
	gnutls_datum_t pem;
	int r = gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem);

	if (r < 0)
		return x509_error(e, r, "Cannot encode the certificate %s", path);
	r = file_write_atomic(path, pem.data, pem.size, 0644);
	gnutls_free(pem.data);
	return r < 0 ? error_errno(e, r, "Cannot write %s", path) : 0;
}

int x509_key_write(const char *path, gnutls_x509_privkey_t key, struct error *e)
{
	gnutls_datum_t pem;
	struct stat st;
	bool had_owner = stat(path, &st) == 0;
	int r = gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN,
						  &pem);

	if (r < 0)
		return x509_error(e, r, "Cannot encode the key %s", path);
	r = file_write_atomic(path, pem.data, pem.size, 0600);
	gnutls_memset(pem.data, 0, pem.size);
	gnutls_free(pem.data);
	if (r == 0 && had_owner && st.st_uid != geteuid() && chown(path, st.st_uid, st.st_gid) < 0)
		r = -errno;
	return r < 0 ? error_errno(e, r, "Cannot write %s", path) : 0;
}

bool x509_key_fits(gnutls_x509_crt_t crt, gnutls_x509_privkey_t key)
{
	unsigned char a[64], b[64];
	size_t a_len = sizeof(a), b_len = sizeof(b);

	return gnutls_x509_crt_get_key_id(crt, GNUTLS_KEYID_USE_SHA256, a, &a_len) == 0 &&
	       gnutls_x509_privkey_get_key_id(key, GNUTLS_KEYID_USE_SHA256, b, &b_len) == 0 &&
	       a_len == b_len && memcmp(a, b, a_len) == 0;
}

void x509_subject(gnutls_x509_crt_t crt, const char *oid, char *out, size_t size)
{
	size_t len = size, other = 0;

	out[0] = '\0';
	if (gnutls_x509_crt_get_dn_by_oid(crt, oid, 1, 0, NULL, &other) !=
	    GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
		return; /* two of them: which one would count? */
	if (gnutls_x509_crt_get_dn_by_oid(crt, oid, 0, 0, out, &len) < 0 || strlen(out) != len ||
	    !utf8_valid(out, len))
		out[0] = '\0';
}

int x509_identity(gnutls_x509_crt_t crt, const char *organisation, struct tls_identity *ret)
{
	struct tls_identity found = {TLS_ROLE_NONE, ""};
	char text[128];

	x509_subject(crt, GNUTLS_OID_X520_ORGANIZATION_NAME, text, sizeof(text));
	if (!*text || !str_eq(text, organisation))
		return -EACCES;
	x509_subject(crt, GNUTLS_OID_X520_ORGANIZATIONAL_UNIT_NAME, text, sizeof(text));
	found.role = tls_role_parse(text);
	x509_subject(crt, GNUTLS_OID_X520_COMMON_NAME, found.id, sizeof(found.id));
	if (found.role == TLS_ROLE_NONE || !*found.id)
		return -EACCES;
	*ret = found;
	return 0;
}

/* ---- making ---- */

static int set_subject(gnutls_x509_crt_t crt, const struct x509_request *q)
{
	const struct {
		const char *oid, *value;
	} parts[] = {
	    {GNUTLS_OID_X520_ORGANIZATION_NAME, q->organisation},
	    {GNUTLS_OID_X520_ORGANIZATIONAL_UNIT_NAME, q->unit},
	    {GNUTLS_OID_X520_COMMON_NAME, q->common_name},
	};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(parts) && r == 0; i++) {
		if (parts[i].value)
			r = gnutls_x509_crt_set_dn_by_oid(crt, parts[i].oid, 0, parts[i].value,
							  (unsigned)strlen(parts[i].value));
	}
	return r;
}

static int add_name(gnutls_x509_crt_t crt, const char *name)
{
	struct in6_addr six;
	struct in_addr four;

	if (inet_pton(AF_INET, name, &four) == 1)
		return gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, &four,
							    sizeof(four), GNUTLS_FSAN_APPEND);
	if (inet_pton(AF_INET6, name, &six) == 1)
		return gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, &six,
							    sizeof(six), GNUTLS_FSAN_APPEND);
	return gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, name,
						    (unsigned)strlen(name), GNUTLS_FSAN_APPEND);
}

static int set_usage(gnutls_x509_crt_t crt, const struct x509_request *q)
{
	int r;

	if (q->ca) {
		r = gnutls_x509_crt_set_basic_constraints(crt, 1, 0);
		return r < 0 ? r
			     : gnutls_x509_crt_set_key_usage(crt, GNUTLS_KEY_KEY_CERT_SIGN |
								      GNUTLS_KEY_CRL_SIGN);
	}
	r = gnutls_x509_crt_set_basic_constraints(crt, 0, -1);
	if (r == 0)
		r = gnutls_x509_crt_set_key_usage(crt, GNUTLS_KEY_DIGITAL_SIGNATURE);
	if (r == 0)
		r = gnutls_x509_crt_set_key_purpose_oid(crt, GNUTLS_KP_TLS_WWW_SERVER, 0);
	if (r == 0)
		r = gnutls_x509_crt_set_key_purpose_oid(crt, GNUTLS_KP_TLS_WWW_CLIENT, 0);
	for (const char *const *name = q->names; r == 0 && name && *name; name++)
		r = add_name(crt, *name);
	return r;
}

static int set_key_ids(gnutls_x509_crt_t crt, gnutls_x509_crt_t signer)
{
	unsigned char id[64];
	size_t len = sizeof(id);
	int r = gnutls_x509_crt_get_key_id(crt, 0, id, &len);

	if (r == 0)
		r = gnutls_x509_crt_set_subject_key_id(crt, id, len);
	len = sizeof(id);
	if (r == 0)
		r = gnutls_x509_crt_get_key_id(signer, 0, id, &len);
	if (r == 0)
		r = gnutls_x509_crt_set_authority_key_id(crt, id, len);
	return r;
}

static int fill(gnutls_x509_crt_t crt, const struct x509_request *q, gnutls_x509_privkey_t key)
{
	unsigned char serial[16];
	int r = gnutls_x509_crt_set_version(crt, 3);

	random_bytes(serial, sizeof(serial));
	serial[0] = (serial[0] & 0x7f) | 0x40; /* positive, and of full length */
	if (r == 0)
		r = gnutls_x509_crt_set_serial(crt, serial, sizeof(serial));
	if (r == 0)
		r = gnutls_x509_crt_set_activation_time(crt, q->from);
	if (r == 0)
		r = gnutls_x509_crt_set_expiration_time(crt, q->until);
	if (r == 0)
		r = gnutls_x509_crt_set_key(crt, key);
	if (r == 0)
		r = set_subject(crt, q);
	if (r == 0)
		r = set_usage(crt, q);
	return r;
}

int x509_make(const struct x509_request *q, gnutls_x509_privkey_t subject_key,
	      gnutls_x509_crt_t signer_crt, gnutls_x509_privkey_t signer_key,
	      gnutls_x509_crt_t *ret, struct error *e)
{
	_cleanup_(x509_crt_freep) gnutls_x509_crt_t crt = NULL;
	int r = gnutls_x509_crt_init(&crt);

	if (r == 0)
		r = fill(crt, q, subject_key);
	if (r == 0)
		r = set_key_ids(crt, signer_crt ? signer_crt : crt);
	if (r == 0)
		r = gnutls_x509_crt_sign2(crt, signer_crt ? signer_crt : crt, signer_key,
					  GNUTLS_DIG_SHA256, 0);
	if (r < 0)
		return x509_error(e, r, "Cannot make the certificate of %s", q->common_name);
	*ret = TAKE_PTR(crt);
	return 0;
}
