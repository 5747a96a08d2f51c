/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cloud's certificate authority and the identities that it issues. A pair of files is not
 * replaced at one instant: the key is written first, and a certificate that does not fit its key
 * counts as none, so that the next call mends what a crash left.
 */
#include "tls/tls_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/secret.h"
#include "base/text.h"
#include "os/file.h"

static const char *const role_names[] = {
    [TLS_ROLE_NONE] = "none",
    [TLS_ROLE_CLC] = "clc",
    [TLS_ROLE_CC] = "cc",
    [TLS_ROLE_NC] = "nc",
    [TLS_ROLE_SC] = "sc",
    [TLS_ROLE_WALRUS] = "walrus",
    [TLS_ROLE_OPERATOR] = "operator",
};

/* Clocks of several hosts differ a little. */
#define CLOCK_SLACK ((time_t)300)

const char *tls_role_name(enum tls_role r)
{
	return r < ARRAY_SIZE(role_names) ? role_names[r] : "none";
}

enum tls_role tls_role_parse(const char *name)
{
	for (size_t i = TLS_ROLE_NONE + 1; i < ARRAY_SIZE(role_names); i++) {
		if (str_eq(name, role_names[i]))
			return (enum tls_role)i;
	}
	return TLS_ROLE_NONE;
}

static time_t now(void)
{
	return (time_t)(clock_unix_ms() / 1000);
}

static char *path_in(const char *dir, const char *name, const char *suffix)
{
	char *path;

	if (asprintf(&path, "%s/%s%s", dir, name, suffix) < 0)
		abort();
	return path;
}

/* ---- the authority ---- */

static int make_ca(const char *key_path, const char *crt_path, const char *organisation,
		   struct error *e)
{
	_cleanup_(x509_key_freep) gnutls_x509_privkey_t key = NULL;
	_cleanup_(x509_crt_freep) gnutls_x509_crt_t crt = NULL;
	struct x509_request q = {.common_name = "Mallee certificate authority",
				 .organisation = organisation,
				 .ca = true,
				 .from = now() - CLOCK_SLACK,
				 .until = now() + TLS_CA_DAYS * TLS_DAY};
	int r = x509_key_read(key_path, &key, e);

	if (r == -ENOENT) {
		r = x509_key_generate(&key, e);
		if (r == 0)
			r = x509_key_write(key_path, key, e);
	}
	if (r == 0)
		r = x509_make(&q, key, NULL, key, &crt, e);
	if (r == 0)
		r = x509_crt_write(crt_path, crt, e);
	return r;
}

int tls_ca_init(const char *dir, const char *cloud_id, struct error *e)
{
	_cleanup_(freep) char *key_path = path_in(dir, "ca", ".key");
	_cleanup_(freep) char *crt_path = path_in(dir, "ca", ".crt");
	_cleanup_(x509_crt_freep) gnutls_x509_crt_t crt = NULL;
	char organisation[64], found[64];
	int r;

	if (!*cloud_id || (size_t)snprintf(organisation, sizeof(organisation), "mallee %s",
					   cloud_id) >= sizeof(organisation))
		return error_errno(e, EINVAL, "\"%.64s\" cannot be a cloud's id", cloud_id);
	r = x509_crt_read(crt_path, &crt, e);
	if (r == -ENOENT)
		return make_ca(key_path, crt_path, organisation, e);
	if (r < 0)
		return r;
	x509_subject(crt, GNUTLS_OID_X520_ORGANIZATION_NAME, found, sizeof(found));
	if (!str_eq(found, organisation)) {
		error_set(
		    e, "InternalError",
		    "%s belongs to another cloud (\"%s\", not \"%s\"). Use a state folder of its own.",
		    crt_path, found, organisation);
		return -EEXIST;
	}
	return 0;
}

struct authority {
	gnutls_x509_privkey_t key;
	gnutls_x509_crt_t crt;
	char organisation[64];
};

static void authority_done(struct authority *ca)
{
	x509_key_freep(&ca->key);
	x509_crt_freep(&ca->crt);
}

static int authority_load(const char *dir, struct authority *ca, struct error *e)
{
	_cleanup_(freep) char *key_path = path_in(dir, "ca", ".key");
	_cleanup_(freep) char *crt_path = path_in(dir, "ca", ".crt");
	int r = x509_crt_read(crt_path, &ca->crt, e);

	if (r < 0)
		return error_errno(e, r, "Cannot read %s", crt_path);
	r = x509_key_read(key_path, &ca->key, e);
	if (r < 0)
		return error_errno(e, r, "Cannot read %s", key_path);
	x509_subject(ca->crt, GNUTLS_OID_X520_ORGANIZATION_NAME, ca->organisation,
		     sizeof(ca->organisation));
	if (x509_key_fits(ca->crt, ca->key) && *ca->organisation)
		return 0;
	error_set(e, "InternalError", "%s and %s do not belong together.", crt_path, key_path);
	return -EKEYREJECTED;
}

/* ---- identities ---- */

static bool has_name(gnutls_x509_crt_t crt, const char *name)
{
	/* Compares IP addresses as such, DNS names without regard to case. */
	return gnutls_x509_crt_check_hostname2(crt, name, GNUTLS_VERIFY_DO_NOT_ALLOW_WILDCARDS) !=
	       0;
}

/* Whether the files hold what tls_issue() would make, with enough time left. */
static bool still_good(const struct authority *ca, const char *key_path, const char *crt_path,
		       const struct tls_identity *want, const char *const *names)
{
	_cleanup_(x509_key_freep) gnutls_x509_privkey_t key = NULL;
	_cleanup_(x509_crt_freep) gnutls_x509_crt_t crt = NULL;
	struct tls_identity found;
	unsigned status;

	if (x509_crt_read(crt_path, &crt, NULL) < 0 || x509_key_read(key_path, &key, NULL) < 0 ||
	    !x509_key_fits(crt, key) || x509_identity(crt, ca->organisation, &found) < 0 ||
	    found.role != want->role || !str_eq(found.id, want->id))
		return false;
	for (; *names; names++) {
		if (!has_name(crt, *names))
			return false;
	}
	return gnutls_x509_crt_verify(crt, &ca->crt, 1, 0, &status) == 0 && status == 0 &&
	       gnutls_x509_crt_get_expiration_time(crt) >= now() + TLS_RENEW_DAYS * TLS_DAY;
}

#define NAMES_MAX 32

/* names with those that every identity has in front. */
static int all_names(const char *const *names, const char *out[static NAMES_MAX + 1],
		     struct error *e)
{
	size_t n = 0;

	out[n++] = "localhost";
	out[n++] = "127.0.0.1";
	for (; names && *names; names++) {
		if (n == NAMES_MAX)
			return error_errno(e, E2BIG, "Too many names for one certificate");
		out[n++] = *names;
	}
	out[n] = NULL;
	return 0;
}

static int issue(const char *dir, const struct tls_identity *who, const char *const *more_names,
		 time_t from, time_t until, bool anew, struct error *e)
{
	_cleanup_(freep) char *key_path = path_in(dir, tls_role_name(who->role), ".key");
	_cleanup_(freep) char *crt_path = path_in(dir, tls_role_name(who->role), ".crt");
	_cleanup_(authority_done) struct authority ca = {0};
	_cleanup_(x509_key_freep) gnutls_x509_privkey_t key = NULL;
	_cleanup_(x509_crt_freep) gnutls_x509_crt_t crt = NULL;
	const char *names[NAMES_MAX + 1];
	struct x509_request q = {.common_name = who->id,
				 .unit = tls_role_name(who->role),
				 .organisation = ca.organisation,
				 .names = names,
				 .from = from,
				 .until = until};
	int r = all_names(more_names, names, e);

	if (r == 0)
		r = authority_load(dir, &ca, e);
	if (r < 0)
		return r;
	if (!anew && still_good(&ca, key_path, crt_path, who, names))
		return 0;
	r = x509_key_generate(&key, e);
	if (r == 0)
		r = x509_make(&q, key, ca.crt, ca.key, &crt, e);
	if (r == 0)
		r = x509_key_write(key_path, key, e);
	if (r == 0)
		r = x509_crt_write(crt_path, crt, e);
	return r;
}

static int check_identity(enum tls_role role, const char *id, struct tls_identity *ret,
			  struct error *e)
{
	if (tls_role_parse(tls_role_name(role)) == TLS_ROLE_NONE)
		return error_errno(e, EINVAL, "No certificate without a role");
	if (!*id || strlen(id) >= sizeof(ret->id) || !utf8_valid(id, strlen(id)))
		return error_errno(e, EINVAL, "\"%.80s\" cannot be the id of a %s", id,
				   tls_role_name(role));
	ret->role = role;
	snprintf(ret->id, sizeof(ret->id), "%s", id);
	return 0;
}

int tls_issue_dated(const char *dir, enum tls_role role, const char *id, const char *const *names,
		    time_t from, time_t until, struct error *e)
{
	struct tls_identity who;
	int r = check_identity(role, id, &who, e);

	return r < 0 ? r : issue(dir, &who, names, from, until, true, e);
}

int tls_issue(const char *dir, enum tls_role role, const char *id, const char *const *names,
	      struct error *e)
{
	struct tls_identity who;
	int r = check_identity(role, id, &who, e);

	return r < 0 ? r
		     : issue(dir, &who, names, now() - CLOCK_SLACK,
			     now() + TLS_IDENTITY_DAYS * TLS_DAY, false, e);
}

/* ---- what a program loads ---- */

static int check_own(const struct tls_context *t, enum tls_role role, struct tls_identity *ret,
		     struct error *e)
{
	_cleanup_(x509_crt_freep) gnutls_x509_crt_t ca = NULL;
	_cleanup_(x509_crt_freep) gnutls_x509_crt_t crt = NULL;
	_cleanup_(x509_key_freep) gnutls_x509_privkey_t key = NULL;
	char organisation[64];
	unsigned status = 0;
	int r = x509_crt_read(t->ca_path, &ca, e);

	if (r == 0)
		r = x509_crt_read(t->cert_path, &crt, e);
	if (r == 0)
		r = x509_key_read(t->key_path, &key, e);
	if (r < 0)
		return r;
	x509_subject(ca, GNUTLS_OID_X520_ORGANIZATION_NAME, organisation, sizeof(organisation));
	if (!x509_key_fits(crt, key))
		return error_set(e, "InternalError",
				 "%s does not fit %s. Run \"mallee up\" to issue both anew.",
				 t->cert_path, t->key_path);
	if (x509_identity(crt, organisation, ret) < 0 || ret->role != role)
		return error_set(e, "InternalError",
				 "%s is not the certificate of a %s of this cloud.", t->cert_path,
				 tls_role_name(role));
	if (gnutls_x509_crt_verify(crt, &ca, 1, 0, &status) < 0)
		status = GNUTLS_CERT_INVALID;
	if (status & GNUTLS_CERT_EXPIRED)
		return error_set(e, "InternalError",
				 "%s has expired. Run \"mallee up\" to renew it.", t->cert_path);
	if (status)
		return error_set(e, "InternalError",
				 "%s is not valid by %s. Run \"mallee up\" to issue it anew.",
				 t->cert_path, t->ca_path);
	return 0;
}

static int load_text(const char *path, char **ret, struct error *e)
{
	int r = file_read(path, TLS_PEM_MAX_BYTES, ret, NULL);

	return r < 0 ? error_errno(e, r, "Cannot read %s", path) : 0;
}

int tls_context_load(const char *dir, enum tls_role role, struct tls_context **ret, struct error *e)
{
	struct tls_context *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		abort();
	t->ca_path = path_in(dir, "ca", ".crt");
	t->cert_path = path_in(dir, tls_role_name(role), ".crt");
	t->key_path = path_in(dir, tls_role_name(role), ".key");
	r = load_text(t->ca_path, &t->ca_pem, e);
	if (r == 0)
		r = load_text(t->cert_path, &t->cert_pem, e);
	if (r == 0)
		r = load_text(t->key_path, &t->key_pem, e);
	if (r == 0)
		r = check_own(t, role, &t->self, e);
	if (r < 0) {
		tls_context_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

void tls_context_free(struct tls_context *t)
{
	if (!t)
		return;
	free(t->ca_pem);
	free(t->cert_pem);
	secret_free_string(t->key_pem);
	free(t->ca_path);
	free(t->cert_path);
	free(t->key_path);
	free(t);
}
