/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <gnutls/gnutls.h>

#include "base/text.h"
#include "os/file.h"
#include "tls/tls_priv.h"

struct fixture {
	char dir[64], other[64]; /* two clouds' folders */
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error e = {0};

	strcpy(f->dir, "/tmp/mallee-tls-XXXXXX");
	strcpy(f->other, "/tmp/mallee-tls-XXXXXX");
	*state = f;
	if (!mkdtemp(f->dir) || !mkdtemp(f->other))
		return -1;
	return tls_ca_init(f->dir, "ab12", &e) < 0 || tls_ca_init(f->other, "cd34", &e) < 0 ? -1
											    : 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int r = dir_remove(f->dir) | dir_remove(f->other);

	free(f);
	return r;
}

static void issue(const char *dir, enum tls_role role, const char *id)
{
	struct error e = {0};

	if (tls_issue(dir, role, id, NULL, &e) < 0)
		fail_msg("%s", e.message);
}

static struct tls_context *load(const char *dir, enum tls_role role)
{
	struct tls_context *t = NULL;
	struct error e = {0};

	if (tls_context_load(dir, role, &t, &e) < 0)
		fail_msg("%s", e.message);
	return t;
}

/* ---- a handshake within this thread, over a socket pair ---- */

struct end {
	gnutls_session_t session;
	gnutls_certificate_credentials_t creds;
	bool done;
};

static void end_init(struct end *end, unsigned flags, int fd, const char *cert_pem,
		     const char *key_pem)
{
	assert_int_equal(gnutls_certificate_allocate_credentials(&end->creds), 0);
	if (cert_pem) {
		gnutls_datum_t cert = {(unsigned char *)cert_pem, (unsigned)strlen(cert_pem)};
		gnutls_datum_t key = {(unsigned char *)key_pem, (unsigned)strlen(key_pem)};

		assert_int_equal(gnutls_certificate_set_x509_key_mem(end->creds, &cert, &key,
								     GNUTLS_X509_FMT_PEM),
				 0);
	}
	assert_int_equal(gnutls_init(&end->session, flags | GNUTLS_NONBLOCK), 0);
	assert_int_equal(
	    gnutls_priority_set_direct(end->session, "NORMAL:-VERS-ALL:+VERS-TLS1.3", NULL), 0);
	gnutls_credentials_set(end->session, GNUTLS_CRD_CERTIFICATE, end->creds);
	if (flags & GNUTLS_SERVER)
		gnutls_certificate_server_set_request(end->session, GNUTLS_CERT_REQUEST);
	gnutls_transport_set_int(end->session, fd);
}

static void end_done(struct end *end)
{
	gnutls_deinit(end->session);
	gnutls_certificate_free_credentials(end->creds);
}

static void shake(struct end *a, struct end *b)
{
	for (int i = 0; i < 200 && !(a->done && b->done); i++) {
		struct end *end = i % 2 ? a : b;
		int r = end->done ? 0 : gnutls_handshake(end->session);

		if (r == 0)
			end->done = true;
		else if (gnutls_error_is_fatal(r))
			fail_msg("handshake: %s", gnutls_strerror(r));
	}
	assert_true(a->done && b->done);
}

/* What the server `as` thinks of a peer with this certificate (NULL: none). */
static int judge(const struct tls_context *as, const char *cert_pem, const char *key_pem,
		 struct tls_identity *ret)
{
	struct end server = {0}, client = {0};
	int pair[2], r;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	end_init(&server, GNUTLS_SERVER, pair[0], as->cert_pem, as->key_pem);
	end_init(&client, GNUTLS_CLIENT, pair[1], cert_pem, key_pem);
	shake(&server, &client);
	r = tls_peer_identity(as, server.session, ret);
	end_done(&server);
	end_done(&client);
	close(pair[0]);
	close(pair[1]);
	return r;
}

static void test_right_peer_is_known(void **state)
{
	struct fixture *f = *state;
	struct tls_context *clc, *nc;
	struct tls_identity id = {TLS_ROLE_NONE, ""};

	issue(f->dir, TLS_ROLE_CLC, "clc");
	issue(f->dir, TLS_ROLE_NC, "node-1.example");
	clc = load(f->dir, TLS_ROLE_CLC);
	nc = load(f->dir, TLS_ROLE_NC);
	assert_int_equal(nc->self.role, TLS_ROLE_NC);
	assert_string_equal(nc->self.id, "node-1.example");
	assert_int_equal(judge(clc, nc->cert_pem, nc->key_pem, &id), 0);
	assert_int_equal(id.role, TLS_ROLE_NC);
	assert_string_equal(id.id, "node-1.example");
	tls_context_free(clc);
	tls_context_free(nc);
}

static void test_no_certificate_is_refused(void **state)
{
	struct fixture *f = *state;
	struct tls_context *clc;
	struct tls_identity id = {TLS_ROLE_NONE, ""};

	issue(f->dir, TLS_ROLE_CLC, "clc");
	clc = load(f->dir, TLS_ROLE_CLC);
	assert_int_equal(judge(clc, NULL, NULL, &id), -EACCES);
	assert_int_equal(id.role, TLS_ROLE_NONE);
	tls_context_free(clc);
}

static void test_other_authority_is_refused(void **state)
{
	struct fixture *f = *state;
	struct tls_context *clc, *stranger;
	struct tls_identity id = {TLS_ROLE_NONE, ""};
	struct error e = {0};

	/* Of the same names: only the signature tells. */
	assert_int_equal(dir_remove(f->other), 0);
	assert_int_equal(mkdir(f->other, 0700), 0);
	assert_int_equal(tls_ca_init(f->other, "ab12", &e), 0);
	issue(f->dir, TLS_ROLE_CLC, "clc");
	issue(f->other, TLS_ROLE_OPERATOR, "operator");
	clc = load(f->dir, TLS_ROLE_CLC);
	stranger = load(f->other, TLS_ROLE_OPERATOR);
	assert_int_equal(judge(clc, stranger->cert_pem, stranger->key_pem, &id), -EACCES);
	assert_int_equal(id.role, TLS_ROLE_NONE);
	tls_context_free(clc);
	tls_context_free(stranger);
}

/* A certificate and key that tls_context_load() would not take, as PEM. */
static void read_pair(const char *dir, const char *role, char **cert, char **key)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s.crt", dir, role);
	assert_int_equal(file_read(path, TLS_PEM_MAX_BYTES, cert, NULL), 0);
	snprintf(path, sizeof(path), "%s/%s.key", dir, role);
	assert_int_equal(file_read(path, TLS_PEM_MAX_BYTES, key, NULL), 0);
}

static void test_dates_count(void **state)
{
	const struct {
		time_t from, until;
		const char *says;
	} cases[] = {{-20, -10, "expired"}, {10, 20, "not valid"}};
	struct fixture *f = *state;
	struct tls_context *clc, *none = NULL;
	struct tls_identity id = {TLS_ROLE_NONE, ""};
	time_t today = time(NULL);

	issue(f->dir, TLS_ROLE_CLC, "clc");
	clc = load(f->dir, TLS_ROLE_CLC);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(freep) char *cert = NULL;
		_cleanup_(freep) char *key = NULL;
		struct error e = {0};

		assert_int_equal(tls_issue_dated(f->dir, TLS_ROLE_CC, "cc", NULL,
						 today + cases[i].from * TLS_DAY,
						 today + cases[i].until * TLS_DAY, &e),
				 0);
		read_pair(f->dir, "cc", &cert, &key);
		assert_int_equal(judge(clc, cert, key, &id), -EACCES);
		assert_true(tls_context_load(f->dir, TLS_ROLE_CC, &none, &e) < 0);
		assert_null(none);
		assert_non_null(strstr(e.message, cases[i].says));
		assert_non_null(strstr(e.message, "mallee up"));
	}
	tls_context_free(clc);
}

/* Signed by our authority with the right names, but for signing code. */
static void make_code_signer(gnutls_x509_privkey_t key, gnutls_x509_crt_t ca,
			     gnutls_x509_privkey_t ca_key, gnutls_x509_crt_t *ret)
{
	gnutls_x509_crt_t crt;

	assert_int_equal(gnutls_x509_crt_init(&crt), 0);
	assert_int_equal(gnutls_x509_crt_set_version(crt, 3), 0);
	assert_int_equal(gnutls_x509_crt_set_serial(crt, "\x01", 1), 0);
	assert_int_equal(gnutls_x509_crt_set_activation_time(crt, time(NULL) - 100), 0);
	assert_int_equal(gnutls_x509_crt_set_expiration_time(crt, time(NULL) + 100), 0);
	assert_int_equal(gnutls_x509_crt_set_key(crt, key), 0);
	assert_int_equal(gnutls_x509_crt_set_dn(crt, "CN=x,OU=cc,O=mallee ab12", NULL), 0);
	assert_int_equal(gnutls_x509_crt_set_key_usage(crt, GNUTLS_KEY_DIGITAL_SIGNATURE), 0);
	assert_int_equal(gnutls_x509_crt_set_key_purpose_oid(crt, GNUTLS_KP_CODE_SIGNING, 0), 0);
	assert_int_equal(gnutls_x509_crt_sign2(crt, ca, ca_key, GNUTLS_DIG_SHA256, 0), 0);
	*ret = crt;
}

/* One that our authority signed, but for another purpose, with no role, or of another organisation.
 */
static void test_usage_role_and_organisation_count(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *unit, *organisation;
		bool code_signer;
		int want;
	} cases[] = {
	    {"cc", "mallee ab12", false, 0},	   {"cc", "mallee cd34", false, -EACCES},
	    {"cc", NULL, false, -EACCES},	   {"king", "mallee ab12", false, -EACCES},
	    {NULL, "mallee ab12", false, -EACCES}, {"none", "mallee ab12", false, -EACCES},
	    {"cc", "mallee ab12", true, -EACCES},
	};
	_cleanup_(x509_key_freep) gnutls_x509_privkey_t ca_key = NULL;
	_cleanup_(x509_crt_freep) gnutls_x509_crt_t ca = NULL;
	struct tls_context *clc;
	struct error e = {0};
	char path[128];

	issue(f->dir, TLS_ROLE_CLC, "clc");
	clc = load(f->dir, TLS_ROLE_CLC);
	snprintf(path, sizeof(path), "%s/ca.key", f->dir);
	assert_int_equal(x509_key_read(path, &ca_key, &e), 0);
	snprintf(path, sizeof(path), "%s/ca.crt", f->dir);
	assert_int_equal(x509_crt_read(path, &ca, &e), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(x509_key_freep) gnutls_x509_privkey_t key = NULL;
		_cleanup_(x509_crt_freep) gnutls_x509_crt_t crt = NULL;
		_cleanup_(freep) char *cert_pem = NULL;
		_cleanup_(freep) char *key_pem = NULL;
		struct x509_request q = {.common_name = "x",
					 .unit = cases[i].unit,
					 .organisation = cases[i].organisation,
					 .from = time(NULL) - 100,
					 .until = time(NULL) + 100};
		struct tls_identity id;

		assert_int_equal(x509_key_generate(&key, &e), 0);
		if (cases[i].code_signer)
			make_code_signer(key, ca, ca_key, &crt);
		else
			assert_int_equal(x509_make(&q, key, ca, ca_key, &crt, &e), 0);
		snprintf(path, sizeof(path), "%s/odd.crt", f->dir);
		assert_int_equal(x509_crt_write(path, crt, &e), 0);
		snprintf(path, sizeof(path), "%s/odd.key", f->dir);
		assert_int_equal(x509_key_write(path, key, &e), 0);
		read_pair(f->dir, "odd", &cert_pem, &key_pem);
		assert_int_equal(judge(clc, cert_pem, key_pem, &id), cases[i].want);
	}
	tls_context_free(clc);
}

static void test_issue_is_idempotent(void **state)
{
	struct fixture *f = *state;
	_cleanup_(freep) char *cert = NULL;
	_cleanup_(freep) char *key = NULL;
	_cleanup_(freep) char *cert2 = NULL;
	_cleanup_(freep) char *key2 = NULL;
	struct error e = {0};
	char path[128];
	struct stat st;

	issue(f->dir, TLS_ROLE_CC, "cc");
	read_pair(f->dir, "cc", &cert, &key);
	issue(f->dir, TLS_ROLE_CC, "cc");
	read_pair(f->dir, "cc", &cert2, &key2);
	assert_string_equal(cert, cert2);
	assert_string_equal(key, key2);
	snprintf(path, sizeof(path), "%s/cc.key", f->dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	snprintf(path, sizeof(path), "%s/ca.key", f->dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(tls_ca_init(f->dir, "ab12", &e), 0);
	assert_int_equal(tls_ca_init(f->dir, "zz99", &e), -EEXIST);
	assert_non_null(strstr(e.message, "another cloud"));
}

static bool was_renewed(const char *dir, const char *old_cert)
{
	_cleanup_(freep) char *cert = NULL;
	_cleanup_(freep) char *key = NULL;

	read_pair(dir, "cc", &cert, &key);
	return strcmp(cert, old_cert) != 0;
}

static void test_issue_renews_what_does_not_fit(void **state)
{
	static const char *const names[] = {"10.1.0.1", "cloud.example", NULL};
	struct fixture *f = *state;
	time_t today = time(NULL);
	struct error e = {0};
	char *cert, *key;

	/* Too little time left. */
	assert_int_equal(
	    tls_issue_dated(f->dir, TLS_ROLE_CC, "cc", NULL, today - 9, today + 89 * TLS_DAY, &e),
	    0);
	read_pair(f->dir, "cc", &cert, &key);
	issue(f->dir, TLS_ROLE_CC, "cc");
	assert_true(was_renewed(f->dir, cert));
	free(cert);
	free(key);
	/* Another id, then names that are not in it, then the same again. */
	read_pair(f->dir, "cc", &cert, &key);
	issue(f->dir, TLS_ROLE_CC, "cc-2");
	assert_true(was_renewed(f->dir, cert));
	free(cert);
	free(key);
	read_pair(f->dir, "cc", &cert, &key);
	assert_int_equal(tls_issue(f->dir, TLS_ROLE_CC, "cc-2", names, &e), 0);
	assert_true(was_renewed(f->dir, cert));
	free(cert);
	free(key);
	read_pair(f->dir, "cc", &cert, &key);
	assert_int_equal(tls_issue(f->dir, TLS_ROLE_CC, "cc-2", names, &e), 0);
	assert_false(was_renewed(f->dir, cert));
	free(cert);
	free(key);
}

/* A crash between the two files: mended by the next issue, refused by a load before. */
static void test_half_written_pair_is_mended(void **state)
{
	struct fixture *f = *state;
	struct tls_context *t = NULL;
	struct error e = {0};
	char from[128], to[128];

	issue(f->dir, TLS_ROLE_CC, "cc");
	issue(f->dir, TLS_ROLE_NC, "nc");
	snprintf(from, sizeof(from), "%s/nc.key", f->dir);
	snprintf(to, sizeof(to), "%s/cc.key", f->dir);
	assert_int_equal(rename(from, to), 0);
	assert_true(tls_context_load(f->dir, TLS_ROLE_CC, &t, &e) < 0);
	assert_non_null(strstr(e.message, "does not fit"));
	issue(f->dir, TLS_ROLE_CC, "cc");
	t = load(f->dir, TLS_ROLE_CC);
	tls_context_free(t);
}

static void test_errors_name_the_file(void **state)
{
	struct fixture *f = *state;
	struct tls_context *t = NULL;
	struct error e = {0};
	char path[128];

	assert_int_equal(tls_context_load(f->dir, TLS_ROLE_SC, &t, &e), -ENOENT);
	assert_non_null(strstr(e.message, "/sc.crt"));
	error_clear(&e);
	issue(f->dir, TLS_ROLE_SC, "sc");
	snprintf(path, sizeof(path), "%s/sc.crt", f->dir);
	assert_int_equal(file_write_atomic(path, "rubbish", 7, 0644), 0);
	assert_true(tls_context_load(f->dir, TLS_ROLE_SC, &t, &e) < 0);
	assert_non_null(strstr(e.message, "/sc.crt is not a certificate"));
	assert_null(t);
	error_clear(&e);
	assert_true(tls_issue("/tmp/mallee-no-such-folder", TLS_ROLE_CC, "cc", NULL, &e) < 0);
	assert_non_null(strstr(e.message, "/tmp/mallee-no-such-folder/ca.crt"));
	error_clear(&e);
	assert_int_equal(tls_issue(f->dir, TLS_ROLE_NONE, "x", NULL, &e), -EINVAL);
	assert_int_equal(tls_issue(f->dir, TLS_ROLE_CC, "", NULL, &e), -EINVAL);
	tls_context_free(NULL);
}

static void test_role_names(void **state)
{
	for (int r = TLS_ROLE_CLC; r <= TLS_ROLE_OPERATOR; r++)
		assert_int_equal(tls_role_parse(tls_role_name((enum tls_role)r)), r);
	assert_int_equal(tls_role_parse("none"), TLS_ROLE_NONE);
	assert_int_equal(tls_role_parse(""), TLS_ROLE_NONE);
	assert_int_equal(tls_role_parse(NULL), TLS_ROLE_NONE);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_right_peer_is_known),
	    TEST(test_no_certificate_is_refused),
	    TEST(test_other_authority_is_refused),
	    TEST(test_dates_count),
	    TEST(test_usage_role_and_organisation_count),
	    TEST(test_issue_is_idempotent),
	    TEST(test_issue_renews_what_does_not_fit),
	    TEST(test_half_written_pair_is_mended),
	    TEST(test_errors_name_the_file),
	    cmocka_unit_test(test_role_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
