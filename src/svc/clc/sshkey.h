/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_SSHKEY_H
#define MALLEE_SVC_CLC_SSHKEY_H

#include "base/arena.h"
#include "base/error.h"

/*
 * SSH key pairs as EC2 makes and takes them. Private keys come in the form that OpenSSH and
 * Amazon's clients read: PKCS #1 PEM for RSA, openssh-key-v1 (PROTOCOL.key of OpenSSH) for Ed25519.
 * Fingerprints are Amazon's: SHA-1 of the PKCS #8 DER for an RSA key made here, MD5 of the
 * SubjectPublicKeyInfo DER for an imported one (both in hexadecimal pairs with colons), and base64
 * of the SHA-256 of the public blob for Ed25519.
 */
struct sshkey {
	const char *type;	/* "rsa" or "ed25519" */
	const char *public_key; /* "ssh-ed25519 AAAA… comment", no line break */
	const char *fingerprint;
	const char *private_pem; /* NULL for an imported key; wipe it once it was sent */
};

/* A new pair; type is "rsa" (2048 bits) or "ed25519". Strings live in a. -EINVAL for another type.
 */
int sshkey_generate(struct arena *a, const char *type, const char *comment, struct sshkey *ret,
		    struct error *e);

/* A public key that a user sends: an OpenSSH line, RFC 4716, or base64 of a DER RSA key.
 * InvalidKey.Format when it is none of these, is damaged, or is of a kind or length that EC2
 * refuses (RSA 1024, 2048 and 4096 and Ed25519 are taken). */
int sshkey_import(struct arena *a, const void *material, size_t len, const char *comment,
		  struct sshkey *ret, struct error *e);

#endif
