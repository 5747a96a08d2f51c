/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/clc/sshkey.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/text.h"

/* Made by ssh-keygen 9.2; their fingerprints by ssh-keygen -l and openssl md5 of the DER. */
#define ED25519_B64 "AAAAC3NzaC1lZDI1NTE5AAAAILVzbIvOjaAVGjIz6ZmVzqI65w4oAGoS8q7hqsVFiD2f"
#define ED25519_SHA256 "WQcbf8AFCwS+NN9C/iOi2y8F5SxGxw8NdMtniEkz1pA="
#define RSA_B64                                                                                    \
	"AAAAB3NzaC1yc2EAAAADAQABAAABAQCkv7AJ/7jC/XvWl71C1WDTxj0o34Vrjzt18uc3Ny"                   \
	"zhTpqo0XMPJ2oUb0WTo2oZwzop0ddC8zGDJJNb2gx9aI0JuY3veUT7p5P6YkpTFnvTLCzD"                   \
	"sbxOh2mGU/Q5i82OVqCtCFllqdBsvQTa85XF91NG9ZpHU4DRIGycBRRJO42DL32dP4EYS0"                   \
	"B13Q+ElwsYj5bz7YmvgBlNLeMw9qiWfDbun2oiAU9ulA6rZCrs0jVEy+iKGgyo9B2bwxue"                   \
	"VbyIJm9uZgWimmHReoz5jEISRv3WO2QkGRPATr+LjYbInJ2kJUiAzq5ZXoWVvILYRd0o4f"                   \
	"e0UfMKeFVYtX4peH/7pfaP"
#define RSA_DER_B64                                                                                \
	"MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEApL+wCf+4wv171pe9QtVg08Y9KN"                   \
	"+Fa487dfLnNzcs4U6aqNFzDydqFG9Fk6NqGcM6KdHXQvMxgySTW9oMfWiNCbmN73lE+6eT"                   \
	"+mJKUxZ70ywsw7G8TodphlP0OYvNjlagrQhZZanQbL0E2vOVxfdTRvWaR1OA0SBsnAUUST"                   \
	"uNgy99nT+BGEtAdd0PhJcLGI+W8+2Jr4AZTS3jMPaolnw27p9qIgFPbpQOq2Qq7NI1RMvo"                   \
	"ihoMqPQdm8MbnlW8iCZvbmYFopph0XqM+YxCEkb91jtkJBkTwE6/i42GyJydpCVIgM6uWV"                   \
	"6FlbyC2EXdKOH3tFHzCnhVWLV+KXh/+6X2jwIDAQAB"
#define RSA_MD5 "54:9b:69:bd:c2:9a:ea:cc:f0:76:5b:65:3f:44:f7:6a"
#define ECDSA_B64                                                                                  \
	"AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBJizmLP+/8na+LhuI+"                   \
	"Mu6PBzFH91yNxP/yhZT/TrWnPidwZKKg20hybSwkc4OZOMaxZN/LBlNzHVIyQUPMkFbp0="

static int import(struct arena *a, const char *text, struct sshkey *k, struct error *e)
{
	return sshkey_import(a, text, strlen(text), "name", k, e);
}

static void imports_known_keys(void **state)
{
	struct arena *a = arena_new();
	struct error e = {0};
	struct sshkey k;

	assert_int_equal(import(a, "ssh-ed25519 " ED25519_B64 " me@host\n", &k, &e), 0);
	assert_string_equal(k.type, "ed25519");
	assert_string_equal(k.fingerprint, ED25519_SHA256);
	assert_string_equal(k.public_key, "ssh-ed25519 " ED25519_B64 " name");
	assert_null(k.private_pem);

	const char *const forms[] = {
	    "ssh-rsa " RSA_B64 " r",
	    "ssh-rsa " RSA_B64,
	    RSA_DER_B64,
	    RSA_B64,
	    "---- BEGIN SSH2 PUBLIC KEY ----\nComment: \"a, \\\nb\"\n" RSA_B64
	    "\n---- END SSH2 PUBLIC KEY ----\n",
	};
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		assert_int_equal(import(a, forms[i], &k, &e), 0);
		assert_string_equal(k.type, "rsa");
		assert_string_equal(k.fingerprint, RSA_MD5);
		assert_string_equal(k.public_key, "ssh-rsa " RSA_B64 " name");
	}
	arena_free(a);
}

static void refuses_what_is_no_key(void **state)
{
	const char *const bad[] = {
	    "",
	    "hello",
	    "ssh-rsa",
	    "ssh-rsa !!!!",
	    "ssh-rsa AAAA",
	    "ssh-ed25519 " RSA_B64,
	    "ecdsa-sha2-nistp256 " ECDSA_B64,
	    ECDSA_B64,
	    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA",
	    "---- BEGIN SSH2 PUBLIC KEY ----\n" RSA_B64,
	    "---- BEGIN SSH2 PUBLIC KEY ----",
	    "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA",
	};
	struct arena *a = arena_new();

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error e = {0};
		struct sshkey k;

		assert_true(import(a, bad[i], &k, &e) < 0);
		assert_string_equal(e.code, "InvalidKey.Format");
	}
	arena_free(a);
}

/* What we make must come back through the import with the same public half. */
static void makes_keys(void **state)
{
	struct arena *a = arena_new();
	struct error e = {0};
	struct sshkey k, again;

	assert_int_equal(sshkey_generate(a, "ed25519", "name", &k, &e), 0);
	assert_true(str_prefix(k.private_pem, "-----BEGIN OPENSSH PRIVATE KEY-----\n"));
	assert_int_equal(import(a, k.public_key, &again, &e), 0);
	assert_string_equal(again.public_key, k.public_key);
	assert_string_equal(again.fingerprint, k.fingerprint);

	assert_int_equal(sshkey_generate(a, "rsa", "name", &k, &e), 0);
	assert_true(str_prefix(k.private_pem, "-----BEGIN RSA PRIVATE KEY-----\n"));
	assert_int_equal(strlen(k.fingerprint), 59); /* SHA-1: 20 pairs */
	assert_int_equal(import(a, k.public_key, &again, &e), 0);
	assert_string_equal(again.public_key, k.public_key);
	assert_int_equal(strlen(again.fingerprint), 47); /* MD5: 16 pairs */

	assert_int_equal(sshkey_generate(a, "dsa", "name", &k, &e), -EINVAL);
	arena_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(imports_known_keys),
	    cmocka_unit_test(refuses_what_is_no_key),
	    cmocka_unit_test(makes_keys),
	};

	return cmocka_run_group_tests_name("sshkey", tests, NULL, NULL);
}
