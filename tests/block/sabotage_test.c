/* SPDX-License-Identifier: Apache-2.0 */
/* The tests of this folder, tested: each fault of the filter `sabotage` must be found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "harness.h"

#define LIVES 60u

static bool is_found(const char *filter, enum ending ending)
{
	struct stack_case c = { .name = "sabotage", .filters = { filter }, .queues = 2, .size_bytes = 1 << 20 };
	struct harness *h = harness_new(&c, harness_seed());
	bool found;

	h->may_fail = true;
	for (unsigned i = 0; i < LIVES && !h->failed; i++)
		harness_life(h, 100, ending);
	found = h->failed;
	harness_free(h);
	return found;
}

static void test_lost_flush(void **state)
{
	assert_true(is_found("sabotage:how=no-flush", END_POWER));
}

static void test_lost_fua(void **state)
{
	assert_true(is_found("sabotage:how=no-fua", END_POWER));
}

static void test_hidden_cache(void **state)
{
	assert_true(is_found("sabotage:how=hidden-cache", END_POWER));
}

static void test_lost_write(void **state)
{
	assert_true(is_found("sabotage:how=lost-write", END_CLEAN));
}

static void test_misplaced_write(void **state)
{
	assert_true(is_found("sabotage:how=misplaced", END_CLEAN));
}

/* Without the buffer that coalesce leaves, what it had acknowledged is gone; without this boot's bits, what cow had filled. */
static bool kill_finds(const struct stack_case *c)
{
	bool found = false;

	for (unsigned volume = 0; volume < LIVES && !found; volume++) {
		struct harness *h = harness_new(c, harness_seed());
		h->may_fail = h->lose_at_kill = true;
		for (unsigned i = 0; i < 4 && !h->failed; i++)
			harness_life(h, 100, END_KILL);
		found = h->failed;
		harness_free(h);
	}
	return found;
}

static void test_lost_buffer(void **state)
{
	const struct stack_case c = { .name = "sabotage", .filters = { "coalesce:buffer=%/buffer,size=1M" }, .volatile_files = { "%/buffer" },
				      .queues = 2, .size_bytes = 1 << 20 };

	assert_true(kill_finds(&c));
}

static void test_lost_boot(void **state)
{
	const struct stack_case c = { .name = "sabotage", .filters = { "cow:source=pattern:size=1M,map=%/map,chunk=4k,fill=off" }, .files = { "%/map" },
				      .queues = 2, .size_bytes = 1 << 20, .source_bytes = 1 << 20 };

	assert_true(kill_finds(&c));
}

static void test_nothing_wrong(void **state)
{
	assert_false(is_found("sabotage:how=nothing", END_KILL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lost_flush),
		cmocka_unit_test(test_lost_fua),
		cmocka_unit_test(test_hidden_cache),
		cmocka_unit_test(test_lost_write),
		cmocka_unit_test(test_misplaced_write),
		cmocka_unit_test(test_lost_buffer),
		cmocka_unit_test(test_lost_boot),
		cmocka_unit_test(test_nothing_wrong),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
