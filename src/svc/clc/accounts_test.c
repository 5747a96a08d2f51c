/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/text.h"
#include "gen/admin_rpc.h"
#include "gen/identity_rpc.h"
#include "svc/clc/testing.h"
#include "wire/sigv4.h"

static int setup(void **state)
{
	*state = fixture_new();
	return 0;
}

static int teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

static void first_start_makes_one(void **state)
{
	struct fixture *f = *state;
	struct account *all, again;
	struct error e = {0};
	size_t count;

	assert_int_equal(account_ensure_default(&f->clc, &e), 0);
	assert_int_equal(account_list(&f->clc, f->arena, &all, &count, &e), 0);
	assert_int_equal(count, 1);
	assert_string_equal(all[0].record->name, "default");
	assert_int_equal(strlen(all[0].record->account_id), 12);
	assert_int_equal(strspn(all[0].record->account_id, "0123456789"), 12);
	assert_int_equal(strlen(all[0].key->access_key_id), 20);
	assert_int_equal(strncmp(all[0].key->access_key_id, "AKIA", 4), 0);
	assert_int_equal(strlen(all[0].key->secret_access_key), 40);
	assert_int_equal(strlen(all[0].record->canonical_id), 64);
	assert_int_equal(
	    account_by_access_key(&f->clc, f->arena, all[0].key->access_key_id, &again, &e), 0);
	assert_string_equal(again.record->account_id, all[0].record->account_id);
	assert_int_equal(
	    account_by_access_key(&f->clc, f->arena, "AKIA0000000000000000", &again, &e), -ENOENT);
	assert_false(error_is_set(&e));
}

static void names(void **state)
{
	static const struct {
		const char *name, *code;
	} cases[] = {{"ok", ""},
		     {"a-9", ""},
		     {"ok", "AccountExists"},
		     {"default", "AccountExists"},
		     {"", "InvalidParameterValue"},
		     {"9a", "InvalidParameterValue"},
		     {"-a", "InvalidParameterValue"},
		     {"Upper", "InvalidParameterValue"},
		     {"a b", "InvalidParameterValue"},
		     {"a\n", "InvalidParameterValue"},
		     {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", ""},
		     {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		      "InvalidParameterValue"}};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct account acc;
		struct error e = {0};
		int r = account_create(&f->clc, f->arena, cases[i].name, &acc, &e);

		assert_string_equal(e.code, cases[i].code);
		assert_int_equal(r < 0, *cases[i].code != '\0');
	}
}

static void inactive_key_is_none(void **state)
{
	struct fixture *f = *state;
	struct account acc;
	struct error e = {0};

	f->account.key->status = "Inactive";
	assert_int_equal(record_put(&f->clc, KIND_ACCESS_KEY, f->account.record->account_id,
				    f->account.key->access_key_id, NULL, f->account.key, &e),
			 0);
	assert_int_equal(
	    account_by_access_key(&f->clc, f->arena, f->account.key->access_key_id, &acc, &e),
	    -ENOENT);
	const char *url;
	assert_int_equal(
	    identity_presign(&f->clc, f->arena, f->account.record->account_id, "b/k", 60, &url, &e),
	    -ENOENT);
}

static void network_follows_the_settings(void **state)
{
	struct fixture *f = *state;
	struct account other;
	struct record_list l;
	struct error e = {0};

	assert_int_equal(account_create(&f->clc, f->arena, "other", &other, &e), 0);
	int64_t revision = state_revision(f->clc.state);
	assert_int_equal(account_follow_settings(&f->clc, &e), 0);
	assert_int_equal(state_revision(f->clc.state), revision);
	strcpy(f->clc.network.cidr, "10.9.0.0/24");
	assert_int_equal(account_follow_settings(&f->clc, &e), 0);
	assert_int_equal(record_list(&f->clc, f->arena, KIND_SUBNET, NULL, 0, &l, &e), 0);
	assert_int_equal(l.count, 2);
	for (size_t i = 0; i < l.count; i++)
		assert_string_equal(((struct records_subnet *)l.items[i].value)->cidr_block,
				    "10.9.0.0/24");
	assert_int_equal(
	    record_list(&f->clc, f->arena, KIND_VPC, other.record->account_id, 0, &l, &e), 0);
	assert_int_equal(l.count, 1);
	assert_string_equal(((struct records_vpc *)l.items[0].value)->cidr_block, "10.9.0.0/24");
}

/* The key that Walrus gets verifies what the secret signs, and the secret is not in the answer. */
static void signing_key(void **state)
{
	struct fixture *f = *state;
	struct identity_get_signing_key_request in = {.access_key_id =
							  f->account.key->access_key_id,
						      .date = "20261122",
						      .region = "us-east-1",
						      .service = "s3"};
	struct identity_get_signing_key_response out = {0};
	unsigned char expect[SIGV4_KEY_LEN];
	struct error e = {0};

	assert_ptr_equal(identity_binding(&f->clc).ctx, &f->clc);
	assert_int_equal(ARRAY_SIZE(identity_rpc_handlers), identity_service.action_count);
	assert_int_equal(identity_get_signing_key(&f->clc, f->arena, NULL, &in, &out, &e), 0);
	struct secret s = secret_new(f->account.key->secret_access_key);
	sigv4_signing_key(&s, "20261122", "us-east-1", "s3", expect);
	secret_done(&s);
	assert_int_equal(out.signing_key.len, SIGV4_KEY_LEN);
	assert_memory_equal(out.signing_key.data, expect, SIGV4_KEY_LEN);
	assert_string_equal(out.account_id, f->account.record->account_id);
	assert_string_equal(out.canonical_id, f->account.record->canonical_id);
	assert_true(out.valid_until.value > clock_unix_ms());
	in.access_key_id = "AKIA0000000000000000";
	assert_true(identity_get_signing_key(&f->clc, f->arena, NULL, &in, &out, &e) < 0);
	assert_string_equal(e.code, "InvalidAccessKeyId");
	static const char *const bad_dates[] = {"", "2026112", "2026-11-22", "2026112x"};
	for (size_t i = 0; i < ARRAY_SIZE(bad_dates); i++) {
		error_clear(&e);
		in.date = bad_dates[i];
		assert_true(identity_get_signing_key(&f->clc, f->arena, NULL, &in, &out, &e) < 0);
		assert_string_equal(e.code, "InvalidParameterValue");
	}
}

static void operators_view(void **state)
{
	struct fixture *f = *state;
	struct admin_account acc = {0};
	struct admin_list_accounts_response all = {0};
	struct admin_get_status_response status = {0};
	struct error e = {0};
	const char *id;

	assert_int_equal(ARRAY_SIZE(admin_rpc_handlers), admin_service.action_count);
	assert_int_equal(admin_create_account(&f->clc, f->arena, NULL,
					      &(struct admin_create_account_request){.name = "two"},
					      &acc, &e),
			 0);
	assert_int_equal(strlen(acc.secret_access_key), 40);
	struct admin_account got = {0};
	assert_int_equal(admin_get_account(&f->clc, f->arena, NULL,
					   &(struct admin_get_account_request){.name = "two"}, &got,
					   &e),
			 0);
	assert_string_equal(got.secret_access_key, acc.secret_access_key);
	assert_int_equal(admin_list_accounts(&f->clc, f->arena, NULL, &all, &e), 0);
	assert_int_equal(all.accounts.count, 2);
	for (size_t i = 0; i < 2; i++)
		assert_null(all.accounts.items[i].secret_access_key); /* a list shows no secrets */
	assert_true(admin_get_account(&f->clc, f->arena, NULL,
				      &(struct admin_get_account_request){.name = "none"}, &got,
				      &e) < 0);
	assert_string_equal(e.code, "AccountNotFound");
	fixture_run(f, 1, "", &id);
	assert_int_equal(admin_get_status(&f->clc, f->arena, NULL, &status, &e), 0);
	assert_int_equal(status.instances_pending.value, 1);
	assert_int_equal(status.accounts.value, 2);
	assert_string_equal(status.clusters.items[0].state, "available");
	/* one that is away, and another program in its place */
	static const char *const failures[] = {"ServiceUnavailable", "PeerNotTrusted"};
	for (size_t i = 0; i < ARRAY_SIZE(failures); i++) {
		_cleanup_(buf_done) struct buf reply = BUF_INIT;

		f->cluster.fail = failures[i];
		fixture_call(f, &f->account,
			     arena_printf(f->arena, "Action=GetConsoleOutput&InstanceId=%s", id),
			     &reply);
		assert_int_equal(admin_get_status(&f->clc, f->arena, NULL, &status, &e), 0);
		assert_string_equal(status.clusters.items[0].state, "unavailable");
		assert_non_null(status.clusters.items[0].reason);
	}
}

static void zone_ids_and_names(void **state)
{
	static const struct {
		const char *region, *zone, *id, *dns;
	} cases[] = {
	    {"us-east-1", "us-east-1a", "use1-az1", "ip-10-1-0-5.ec2.internal"},
	    {"ap-southeast-2", "ap-southeast-2b", "apse2-az2",
	     "ip-10-1-0-5.ap-southeast-2.compute.internal"},
	    {"eu-central-1", "eu-central-1c", "euc1-az3",
	     "ip-10-1-0-5.eu-central-1.compute.internal"},
	    {"us-gov-west-1", "us-gov-west-1a", "usgw1-az1",
	     "ip-10-1-0-5.us-gov-west-1.compute.internal"},
	    {"home", "home", "home-az5", "ip-10-1-0-5.home.compute.internal"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		f->clc.region = cases[i].region;
		f->clc.zone = cases[i].zone;
		assert_string_equal(clc_zone_id(&f->clc, f->arena), cases[i].id);
		assert_string_equal(clc_private_dns_name(&f->clc, f->arena, "10.1.0.5"),
				    cases[i].dns);
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(first_start_makes_one),	TEST(names),	   TEST(inactive_key_is_none),
	    TEST(network_follows_the_settings), TEST(signing_key), TEST(operators_view),
	    TEST(zone_ids_and_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
