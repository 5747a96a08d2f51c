/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "svc/clc/strmap.h"

enum { MANY = 5000 };

static void keeps_what_it_is_given(void **state)
{
	static int values[MANY];
	struct strmap *m = strmap_new();
	char key[32];

	for (int i = 0; i < MANY; i++) {
		snprintf(key, sizeof(key), "i-%d", i);
		assert_null(strmap_put(m, key, &values[i]));
	}
	assert_int_equal(strmap_count(m), MANY);
	snprintf(key, sizeof(key), "i-%d", 7);
	assert_ptr_equal(strmap_put(m, key, &values[8]), &values[7]);
	assert_ptr_equal(strmap_put(m, key, &values[7]), &values[8]);
	/* removing every third leaves the others to be found, across what was moved up */
	for (int i = 0; i < MANY; i += 3) {
		snprintf(key, sizeof(key), "i-%d", i);
		assert_ptr_equal(strmap_remove(m, key), &values[i]);
		assert_null(strmap_remove(m, key));
	}
	for (int i = 0; i < MANY; i++) {
		snprintf(key, sizeof(key), "i-%d", i);
		assert_ptr_equal(strmap_get(m, key), i % 3 ? &values[i] : NULL);
	}
	size_t pos = 0, seen = 0;
	const char *k;
	while (strmap_next(m, &pos, &k))
		seen++;
	assert_int_equal(seen, strmap_count(m));
	assert_int_equal(seen, MANY - (MANY + 2) / 3);
	strmap_free(m);
	strmap_free(NULL);
}

static void empty(void **state)
{
	struct strmap *m = strmap_new();
	size_t pos = 0;

	assert_null(strmap_get(m, ""));
	assert_null(strmap_remove(m, "x"));
	assert_null(strmap_next(m, &pos, NULL));
	strmap_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(keeps_what_it_is_given),
	    cmocka_unit_test(empty),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
