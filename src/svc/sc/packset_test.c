/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/sc/packset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "svc/sc/testkit_priv.h"

#define NUMBERS 60u

/* Against an array of flags. */
static void test_model(void **state)
{
	uint64_t seed = (uint64_t)time(NULL) | 1;
	struct upload_id ids[3] = { { "snap-a", 1 }, { "snap-a", 2 }, { "snap-b", 1 } };
	bool model[3][NUMBERS] = { 0 };
	struct packset s = PACKSET_INIT, half = PACKSET_INIT;

	print_message("seed %llu\n", (unsigned long long)seed);
	for (unsigned op = 0; op < 20000; op++) {
		unsigned u = (unsigned)(bucket_random(&seed) % 3), first = (unsigned)(bucket_random(&seed) % NUMBERS);
		unsigned count = (unsigned)(bucket_random(&seed) % 8), size = 0;
		bool add = bucket_random(&seed) % 2;

		count = first + count > NUMBERS ? NUMBERS - first : count;
		(add ? packset_add : packset_remove)(&s, &ids[u], first, count);
		for (unsigned i = 0; i < count; i++)
			model[u][first + i] = add;
		for (unsigned i = 0; i < 3; i++) {
			for (unsigned j = 0; j < NUMBERS; j++) {
				assert_int_equal(packset_has(&s, &ids[i], j), model[i][j]);
				size += model[i][j];
			}
		}
		assert_int_equal(packset_size(&s), size);
		for (unsigned i = 0; i < s.count; i++) { /* as few runs as can be */
			for (unsigned j = 1; j < s.uploads[i].count; j++)
				assert_true(s.uploads[i].runs[j - 1].first + s.uploads[i].runs[j - 1].count < s.uploads[i].runs[j].first);
		}
	}
	packset_add_all(&half, &s);
	assert_int_equal(packset_size(&half), packset_size(&s));
	packset_remove_snapshot(&half, "snap-a");
	for (unsigned j = 0; j < NUMBERS; j++) {
		assert_false(packset_has(&half, &ids[0], j) || packset_has(&half, &ids[1], j));
		assert_int_equal(packset_has(&half, &ids[2], j), model[2][j]);
	}
	packset_subtract(&s, &half);
	assert_int_equal(packset_has(&s, &ids[0], 7), model[0][7]);
	packset_done(&s);
	assert_int_equal(packset_size(&s), 0);
	packset_done(&s);
	packset_done(&half);
}

static void test_the_last_number(void **state)
{
	struct upload_id id = { "snap-a", 1 };
	struct packset s = PACKSET_INIT;

	packset_add(&s, &id, UINT32_MAX - 1, 1);
	packset_add(&s, &id, 0, 1);
	assert_true(packset_has(&s, &id, UINT32_MAX - 1) && !packset_has(&s, &id, UINT32_MAX) && packset_has(&s, &id, 0));
	packset_remove(&s, &id, 1, UINT32_MAX - 1);
	assert_int_equal(packset_size(&s), 1);
	packset_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_model), cmocka_unit_test(test_the_last_number) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
