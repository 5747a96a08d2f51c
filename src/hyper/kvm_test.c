/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kvm driver on libvirt's own test driver, which needs neither root nor a daemon: domains that
 * others undefine between one call and the next.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "hyper/kvm_priv.h"

#define URI "test:///default"
#define NAME "mallee-t-i-1"

static const struct hyper_ops *const ops = &hyper_kvm_ops;

struct fixture {
	struct hyper *h;
	virConnectPtr other; /* somebody else's connection to the same domains */
	struct error e;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct hyper_config c = {.cloud_id = "t", .accel = HYPER_ACCEL_TCG, .uri = URI};

	assert_non_null(f);
	assert_int_equal(ops->open(&c, &f->h, &f->e), 0);
	f->other = virConnectOpen(URI);
	assert_non_null(f->other);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	virConnectClose(f->other);
	ops->close(f->h);
	error_clear(&f->e);
	free(f);
	return 0;
}

static void define(struct fixture *f)
{
	virDomainPtr dom = virDomainDefineXML(f->other, "<domain type='test'><name>" NAME "</name>"
							"<memory>1024</memory><os><type>hvm</type></os></domain>");

	assert_non_null(dom);
	virDomainFree(dom);
}

static void undefine(struct fixture *f)
{
	virDomainPtr dom = virDomainLookupByName(f->other, NAME);

	assert_non_null(dom);
	assert_int_equal(virDomainUndefine(dom), 0);
	virDomainFree(dom);
}

static enum hyper_state state_of(struct fixture *f)
{
	struct hyper_status st;

	assert_int_equal(ops->status(f->h, NAME, &st, &f->e), 0);
	return st.state;
}

/* The domain was found, and is undefined before it is looked at. */
static int look_too_late(struct kvm *k, virConnectPtr conn, virDomainPtr dom, void *ctx, struct error *e)
{
	int state, reason;

	undefine(ctx);
	assert_int_equal(virDomainGetState(dom, &state, &reason, 0), -1);
	return kvm_domain_error(k, dom, e, "look at");
}

static void test_absent(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(state_of(f), HYPER_ABSENT);
	define(f);
	assert_int_equal(state_of(f), HYPER_OFF);
	undefine(f);
	assert_int_equal(state_of(f), HYPER_ABSENT);
	assert_int_equal(ops->destroy(f->h, NAME, &f->e), 0);
	assert_int_equal(ops->shutdown(f->h, NAME, &f->e), -ENOENT);
	assert_non_null(strstr(f->e.message, NAME));
}

static void test_gone_between_two_calls(void **state)
{
	struct fixture *f = *state;
	bool absent = false;

	define(f);
	assert_int_equal(kvm_on_domain(f->h, NAME, &absent, look_too_late, f, &f->e), 0);
	assert_true(absent);
	assert_false(error_is_set(&f->e));

	define(f);
	assert_int_equal(kvm_on_domain(f->h, NAME, NULL, look_too_late, f, &f->e), -ENOENT);
	assert_non_null(strstr(f->e.message, "look at " NAME ": Domain not found")); /* libvirt's words */
	assert_int_equal(state_of(f), HYPER_ABSENT); /* the connection is the same, and works */
}

static int resume_too_late(struct kvm *k, virConnectPtr conn, virDomainPtr dom, void *ctx, struct error *e)
{
	undefine(ctx);
	return kvm_resume(k, dom, e);
}

static void test_gone_before_it_is_resumed(void **state)
{
	struct fixture *f = *state;

	define(f);
	assert_int_equal(kvm_on_domain(f->h, NAME, NULL, resume_too_late, f, &f->e), 1);
	assert_false(error_is_set(&f->e));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_absent, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_gone_between_two_calls, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_gone_before_it_is_resumed, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
