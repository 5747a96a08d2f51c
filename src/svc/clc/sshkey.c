/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/clc/sshkey.h"

#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <string.h>

#include "base/buf.h"
#include "base/id.h"
#include "base/text.h"

enum { ED25519_LEN = 32, BLOB_MAX = 8192, MATERIAL_MAX = 16384 };

static int key_error(struct error *e, int gnutls_code, const char *what)
{
	error_set(e, "InternalError", "Could not %s: %s", what, gnutls_strerror(gnutls_code));
	return -EIO;
}

static int bad_format(struct error *e)
{
	error_set(
	    e, "InvalidKey.Format",
	    "Key is not in valid OpenSSH public key format: send an RSA (1024, 2048 or 4096 bits) or "
	    "Ed25519 public key as an OpenSSH line, in RFC 4716 form, or as base64 of DER");
	return -EINVAL;
}

/* RFC 4251 section 5: string, and mpint of a non-negative number. */
static void put_u32(struct buf *b, uint32_t v)
{
	const unsigned char n[4] = {v >> 24, v >> 16, v >> 8, v};

	buf_append(b, n, sizeof(n));
}

static void put_string(struct buf *b, const void *data, size_t len)
{
	put_u32(b, len);
	buf_append(b, data, len);
}

static void put_mpint(struct buf *b, const gnutls_datum_t *n)
{
	const unsigned char *p = n->data;
	size_t len = n->size;

	while (len > 0 && *p == 0) {
		p++;
		len--;
	}
	const bool pad = len > 0 && (p[0] & 0x80);

	put_u32(b, len + pad);
	if (pad)
		buf_putc(b, 0);
	buf_append(b, p, len);
}

static char *public_line(struct arena *a, const char *algorithm, const struct buf *blob,
			 const char *comment)
{
	const char *b64 = base64_encode(a, blob->data, blob->len);

	return comment && *comment ? arena_printf(a, "%s %s %s", algorithm, b64, comment)
				   : arena_printf(a, "%s %s", algorithm, b64);
}

/* base64 of SHA-256 with padding, as Amazon shows it for Ed25519. */
static const char *sha256_fingerprint(struct arena *a, const struct buf *blob)
{
	unsigned char digest[32];

	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, blob->data, blob->len, digest) < 0)
		return NULL;
	return base64_encode(a, digest, sizeof(digest));
}

static const char *colon_fingerprint(struct arena *a, gnutls_digest_algorithm_t alg,
				     const gnutls_datum_t *der)
{
	unsigned char digest[64];
	const size_t len = gnutls_hash_get_len(alg);
	struct buf out = BUF_INIT;

	if (gnutls_hash_fast(alg, der->data, der->size, digest) < 0)
		return NULL;
	for (size_t i = 0; i < len; i++)
		buf_printf(&out, "%s%02x", i ? ":" : "", digest[i]);
	const char *s = arena_strdup(a, out.data);

	buf_done(&out);
	return s;
}

/* openssh-key-v1, unencrypted, one key. seed and pub are 32 bytes each. */
static const char *openssh_private(struct arena *a, const unsigned char *seed,
				   const unsigned char *pub, const struct buf *blob,
				   const char *comment)
{
	struct buf inner = BUF_INIT, outer = BUF_INIT, pem = BUF_INIT;
	uint32_t check;

	random_bytes(&check, sizeof(check));
	put_u32(&inner, check);
	put_u32(&inner, check);
	put_string(&inner, "ssh-ed25519", 11);
	put_string(&inner, pub, ED25519_LEN);
	put_u32(&inner, 2 * ED25519_LEN);
	buf_append(&inner, seed, ED25519_LEN);
	buf_append(&inner, pub, ED25519_LEN);
	put_string(&inner, comment, strlen(comment));
	for (char pad = 1; inner.len % 8; pad++)
		buf_putc(&inner, pad);

	buf_append(&outer, "openssh-key-v1", 15); /* with its NUL */
	put_string(&outer, "none", 4);
	put_string(&outer, "none", 4);
	put_string(&outer, "", 0);
	put_u32(&outer, 1);
	put_string(&outer, blob->data, blob->len);
	put_string(&outer, inner.data, inner.len);

	const char *b64 = base64_encode(a, outer.data, outer.len);

	buf_puts(&pem, "-----BEGIN OPENSSH PRIVATE KEY-----\n");
	for (size_t n = strlen(b64); n > 0;) {
		const size_t line = MIN_OF(n, 70);

		buf_append(&pem, b64, line);
		buf_putc(&pem, '\n');
		b64 += line;
		n -= line;
	}
	buf_puts(&pem, "-----END OPENSSH PRIVATE KEY-----\n");
	const char *text = arena_strdup(a, pem.data);

	explicit_bzero(inner.data, inner.len);
	explicit_bzero(outer.data, outer.len);
	explicit_bzero(pem.data, pem.len);
	buf_done(&inner);
	buf_done(&outer);
	buf_done(&pem);
	return text;
}

static int generate_ed25519(struct arena *a, const char *comment, gnutls_privkey_t key,
			    struct sshkey *ret, struct error *e)
{
	gnutls_datum_t pub = {0}, seed = {0};
	gnutls_ecc_curve_t curve;
	struct buf blob = BUF_INIT;
	int r = gnutls_privkey_export_ecc_raw(key, &curve, &pub, NULL, &seed);

	if (r < 0)
		return key_error(e, r, "export an Ed25519 key");
	put_string(&blob, "ssh-ed25519", 11);
	put_string(&blob, pub.data, pub.size);
	*ret = (struct sshkey){
	    .type = "ed25519",
	    .public_key = public_line(a, "ssh-ed25519", &blob, comment),
	    .fingerprint = sha256_fingerprint(a, &blob),
	    .private_pem = openssh_private(a, seed.data, pub.data, &blob, comment ? comment : ""),
	};
	gnutls_memset(seed.data, 0, seed.size);
	gnutls_free(seed.data);
	gnutls_free(pub.data);
	buf_done(&blob);
	return 0;
}

static void rsa_blob(struct buf *blob, const gnutls_datum_t *modulus,
		     const gnutls_datum_t *exponent)
{
	put_string(blob, "ssh-rsa", 7);
	put_mpint(blob, exponent);
	put_mpint(blob, modulus);
}

static int generate_rsa(struct arena *a, const char *comment, gnutls_privkey_t key,
			struct sshkey *ret, struct error *e)
{
	gnutls_datum_t n = {0}, exp = {0}, pkcs8 = {0}, pem = {0};
	gnutls_x509_privkey_t x = NULL;
	struct buf blob = BUF_INIT;
	int r = gnutls_privkey_export_x509(key, &x);

	if (r >= 0)
		r = gnutls_privkey_export_rsa_raw(key, &n, &exp, NULL, NULL, NULL, NULL, NULL,
						  NULL);
	if (r >= 0)
		r = gnutls_x509_privkey_export2_pkcs8(x, GNUTLS_X509_FMT_DER, NULL,
						      GNUTLS_PKCS_PLAIN, &pkcs8);
	if (r >= 0)
		r = gnutls_x509_privkey_export2(x, GNUTLS_X509_FMT_PEM, &pem);
	if (r >= 0) {
		rsa_blob(&blob, &n, &exp);
		*ret = (struct sshkey){
		    .type = "rsa",
		    .public_key = public_line(a, "ssh-rsa", &blob, comment),
		    .fingerprint = colon_fingerprint(a, GNUTLS_DIG_SHA1, &pkcs8),
		    .private_pem = arena_strndup(a, (const char *)pem.data, pem.size),
		};
	}
	if (pkcs8.data)
		gnutls_memset(pkcs8.data, 0, pkcs8.size);
	if (pem.data)
		gnutls_memset(pem.data, 0, pem.size);
	gnutls_free(pkcs8.data);
	gnutls_free(pem.data);
	gnutls_free(n.data);
	gnutls_free(exp.data);
	if (x)
		gnutls_x509_privkey_deinit(x);
	buf_done(&blob);
	return r < 0 ? key_error(e, r, "export an RSA key") : 0;
}

int sshkey_generate(struct arena *a, const char *type, const char *comment, struct sshkey *ret,
		    struct error *e)
{
	const bool rsa = str_eq(type, "rsa");
	gnutls_privkey_t key;
	int r;

	if (!rsa && !str_eq(type, "ed25519"))
		return -EINVAL;
	r = gnutls_privkey_init(&key);
	if (r < 0)
		return key_error(e, r, "make a key");
	r = gnutls_privkey_generate(key, rsa ? GNUTLS_PK_RSA : GNUTLS_PK_EDDSA_ED25519,
				    rsa ? 2048 : GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_ED25519), 0);
	if (r < 0)
		r = key_error(e, r, "generate a key");
	else
		r = rsa ? generate_rsa(a, comment, key, ret, e)
			: generate_ed25519(a, comment, key, ret, e);
	gnutls_privkey_deinit(key);
	return r;
}

/* A length-prefixed field of an SSH blob; -EINVAL past the end. */
static int take_string(const unsigned char **p, size_t *left, gnutls_datum_t *ret)
{
	uint32_t len;

	if (*left < 4)
		return -EINVAL;
	len = (uint32_t)(*p)[0] << 24 | (uint32_t)(*p)[1] << 16 | (uint32_t)(*p)[2] << 8 | (*p)[3];
	if (len > *left - 4)
		return -EINVAL;
	*ret = (gnutls_datum_t){.data = (unsigned char *)*p + 4, .size = len};
	*p += 4 + (size_t)len;
	*left -= 4 + (size_t)len;
	return 0;
}

static int import_rsa(struct arena *a, gnutls_pubkey_t key, const char *comment, struct sshkey *ret,
		      struct error *e)
{
	gnutls_datum_t n = {0}, exp = {0}, spki = {0};
	struct buf blob = BUF_INIT;
	unsigned int bits = 0;
	int r = gnutls_pubkey_get_pk_algorithm(key, &bits);

	if (r != GNUTLS_PK_RSA || (bits != 1024 && bits != 2048 && bits != 4096))
		return bad_format(e);
	r = gnutls_pubkey_export_rsa_raw(key, &n, &exp);
	if (r >= 0)
		r = gnutls_pubkey_export2(key, GNUTLS_X509_FMT_DER, &spki);
	if (r >= 0) {
		rsa_blob(&blob, &n, &exp);
		*ret = (struct sshkey){
		    .type = "rsa",
		    .public_key = public_line(a, "ssh-rsa", &blob, comment),
		    .fingerprint = colon_fingerprint(a, GNUTLS_DIG_MD5, &spki),
		};
	}
	gnutls_free(n.data);
	gnutls_free(exp.data);
	gnutls_free(spki.data);
	buf_done(&blob);
	return r < 0 ? bad_format(e) : 0;
}

static int import_blob(struct arena *a, const void *data, size_t len, const char *comment,
		       struct sshkey *ret, struct error *e)
{
	const unsigned char *p = data;
	gnutls_datum_t type, x, y;
	gnutls_pubkey_t key;
	size_t left = len;

	if (take_string(&p, &left, &type) < 0 || take_string(&p, &left, &x) < 0)
		return bad_format(e);
	if (type.size == 11 && memcmp(type.data, "ssh-ed25519", 11) == 0) {
		const struct buf blob = {.data = (char *)data, .len = len};

		if (x.size != ED25519_LEN || left != 0)
			return bad_format(e);
		*ret = (struct sshkey){
		    .type = "ed25519",
		    .public_key = public_line(a, "ssh-ed25519", &blob, comment),
		    .fingerprint = sha256_fingerprint(a, &blob),
		};
		return 0;
	}
	if (type.size != 7 || memcmp(type.data, "ssh-rsa", 7) != 0 ||
	    take_string(&p, &left, &y) < 0 || left != 0)
		return bad_format(e);
	if (gnutls_pubkey_init(&key) < 0)
		return bad_format(e);
	/* the blob has the exponent first */
	int r = gnutls_pubkey_import_rsa_raw(key, &y, &x) < 0 ? bad_format(e)
							      : import_rsa(a, key, comment, ret, e);

	gnutls_pubkey_deinit(key);
	return r;
}

static int import_base64(struct arena *a, const char *text, size_t len, const char *comment,
			 struct sshkey *ret, struct error *e)
{
	gnutls_pubkey_t key;
	size_t n;
	void *p;

	if (base64_decode(a, text, len, &p, &n) < 0 || n < 8 || n > BLOB_MAX)
		return bad_format(e);
	if (((unsigned char *)p)[0] != 0x30) /* not a DER sequence */
		return import_blob(a, p, n, comment, ret, e);
	if (gnutls_pubkey_init(&key) < 0)
		return bad_format(e);
	const gnutls_datum_t der = {.data = p, .size = n};
	int r = gnutls_pubkey_import(key, &der, GNUTLS_X509_FMT_DER) < 0
		    ? bad_format(e)
		    : import_rsa(a, key, comment, ret, e);

	gnutls_pubkey_deinit(key);
	return r;
}

/* RFC 4716: header lines hold a colon and go on after a backslash; the rest up to the end marker is
 * base64. */
static int import_rfc4716(struct arena *a, char *text, const char *comment, struct sshkey *ret,
			  struct error *e)
{
	struct buf b64 = BUF_INIT;
	bool ended = false, header = false;
	char *save = NULL;

	strtok_r(text, "\r\n", &save); /* the begin marker */
	for (char *line; !ended && (line = strtok_r(NULL, "\r\n", &save)) != NULL;) {
		const bool goes_on = str_suffix(line, "\\");

		if (str_prefix(line, "---- END"))
			ended = true;
		else if (!header && !strchr(line, ':'))
			buf_puts(&b64, line);
		else
			header = goes_on;
	}
	int r = ended && b64.len > 0 ? import_base64(a, b64.data, b64.len, comment, ret, e)
				     : bad_format(e);

	buf_done(&b64);
	return r;
}

int sshkey_import(struct arena *a, const void *material, size_t len, const char *comment,
		  struct sshkey *ret, struct error *e)
{
	if (len == 0 || len > MATERIAL_MAX || memchr(material, 0, len))
		return bad_format(e);

	char *text = arena_strndup(a, material, len);
	char *save = NULL;

	text += strspn(text, " \t\r\n");
	if (str_prefix(text, "---- BEGIN SSH2 PUBLIC KEY ----"))
		return import_rfc4716(a, text, comment, ret, e);
	if (!str_prefix(text, "ssh-"))
		return import_base64(a, text, strlen(text), comment, ret, e);

	const char *algorithm = strtok_r(text, " \t\r\n", &save);
	const char *b64 = strtok_r(NULL, " \t\r\n", &save);

	if (!b64)
		return bad_format(e);
	int r = import_base64(a, b64, strlen(b64), comment, ret, e);

	if (r == 0 && !str_prefix(ret->public_key, arena_printf(a, "%s ", algorithm)))
		return bad_format(e);
	return r;
}
