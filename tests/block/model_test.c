/* SPDX-License-Identifier: Apache-2.0 */
/* Random requests on every stack of cases.c, ended by close, kill and loss of power, against the model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/macros.h"
#include "harness.h"

#define DEFAULT_OPS 4000u
#define RUN_OPS 600u      /* of a queue, at most */
#define LONG_RUN_OPS 2000u /* the same of a test of many: what begins and ends a run takes most of its time */
#define MANY 100000u
#define VOLUME_RUNS 10u    /* as much as so many of the longest, then a fresh volume */

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* One volume, from its making on, for ops requests or a little more. */
static uint64_t live(const struct stack_case *c, uint64_t seed, uint64_t ops, unsigned run_ops, uint64_t total[RESULTS])
{
	struct harness *h = harness_new(c, seed);
	uint64_t done = 0;

	h->results[RESULT_SEED] = seed;
	while (done < ops) {
		unsigned n = 1 + (unsigned)random_below(&h->random, random_below(&h->random, 3) ? run_ops : RUN_OPS / 3);
		uint64_t how = random_below(&h->random, 8);
		harness_life(h, n, how < 2 ? END_CLEAN : how < 5 ? END_KILL : END_POWER);
		done += n * c->queues;
		h->results[RESULT_RUNS]++;
	}
	h->results[RESULT_CHECKED] = h->model->checked;
	for (unsigned i = 0; i < RESULTS; i++)
		total[i] += h->results[i];
	harness_free(h);
	return done;
}

static void check(void **state)
{
	const struct stack_case *c = *state;
	uint64_t seed = harness_seed(), ops = harness_number("MALLEE_MODEL_OPS", DEFAULT_OPS), done = 0, total[RESULTS] = { 0 };
	double began = seconds();

	print_message("%s: seed %llu\n", c->name, (unsigned long long)seed);
	unsigned run_ops = ops < MANY ? RUN_OPS : LONG_RUN_OPS;
	while (done < ops)
		done += live(c, seed++, MIN_OF(ops - done, (uint64_t)run_ops * VOLUME_RUNS), run_ops, total);
	print_message("%s: %llu requests asked for in %llu runs, %llu killed, %llu power losses, %llu failed; %llu sectors checked; %.1f s\n", c->name,
		      (unsigned long long)done, (unsigned long long)total[RESULT_RUNS], (unsigned long long)total[RESULT_KILLS],
		      (unsigned long long)total[RESULT_POWER], (unsigned long long)total[RESULT_FAILED], (unsigned long long)total[RESULT_CHECKED],
		      seconds() - began);
	if (c->servers[0])
		print_message("%s: %llu servers killed\n", c->name, (unsigned long long)total[RESULT_SERVERS]);
	if (c->finish)
		print_message("%s: %llu views, %llu of them committed; %llu sectors that had not changed\n", c->name,
			      (unsigned long long)total[RESULT_VIEWS], (unsigned long long)total[RESULT_COMMITTED],
			      (unsigned long long)total[RESULT_UNCHANGED]);
	assert_true(total[RESULT_CHECKED] > 0);
}

/* --list: the names that MALLEE_STACK may have. */
int main(int argc, char **argv)
{
	struct CMUnitTest tests[32];
	unsigned count = 0;
	const char *only = getenv("MALLEE_STACK");

	for (const struct stack_case *c = stack_cases; argc > 1 && c->name; c++)
		puts(c->name);
	if (argc > 1)
		return 0;

	for (const struct stack_case *c = stack_cases; c->name; c++) {
		if (!only || strcmp(only, c->name) == 0)
			tests[count++] = (struct CMUnitTest){ c->name, check, NULL, NULL, (void *)c };
	}
	return _cmocka_run_group_tests("block_model", tests, count, NULL, NULL);
}
