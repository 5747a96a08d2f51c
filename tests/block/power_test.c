/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loss of power at every moment of a short run, with every choice of the writes that may be lost (as long as they are few; else a
 * sample, torn ones among them): the stack is opened on what is left, and what the guest was told to be durable must be there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness.h"

#define DEFAULT_STATES 300u
#define SIZE_BYTES (256u << 10)
#define EXHAUSTIVE_BITS 6u
#define ROUND_STATES 150u

struct round {
	struct world *left;      /* what the power leaves */
	bool every_moment;
	uint64_t states;         /* most */
	uint64_t masks;          /* result: states of exhaustive choices */
};

static void check_state(struct harness *h, struct round *r, uint64_t at, enum power_choice choice, uint64_t mask)
{
	char what[128];

	snprintf(what, sizeof(what), "power lost at %llu, choice %d, mask %llx", (unsigned long long)at, choice, (unsigned long long)mask);
	world_power(h->world, r->left, at, choice, mask, &h->random);
	world_forget(r->left);
	harness_lose_files(h);
	recorder_world = r->left;
	harness_verify(h, VIEW_POWER, at, what);
	h->results[RESULT_STATES]++;
}

static void check_moment(struct harness *h, struct round *r, uint64_t at)
{
	uint32_t unknown[64];
	unsigned bits = tape_unknown(&h->world->disk, at, h->world->write_through, unknown, 64);

	for (uint64_t mask = 0; bits <= EXHAUSTIVE_BITS && mask < UINT64_C(1) << bits; mask++) {
		check_state(h, r, at, POWER_MASK, mask);
		h->results[RESULT_EXHAUSTIVE]++;
	}
	for (unsigned i = 0; i < 4 && bits > EXHAUSTIVE_BITS; i++)
		check_state(h, r, at, i == 0 ? POWER_NONE : i == 1 ? POWER_ALL : POWER_WRITES, 0);
	for (unsigned i = 0; i < 2 && bits; i++)
		check_state(h, r, at, POWER_TORN, 0);
}

static void explore(struct harness *h, void *ctx)
{
	struct round *r = ctx;
	uint64_t end = h->results[RESULT_STATES] + r->states, last = atomic_load(&h->world->clock);

	for (uint64_t at = 0; r->every_moment && at <= last && h->results[RESULT_STATES] < end; at++)
		check_moment(h, r, at);
	while (!r->every_moment && h->results[RESULT_STATES] < end)
		check_moment(h, r, random_below(&h->random, last + 1));
}

static void run_some(struct harness *h, void *ctx)
{
	struct load l = { .world = h->world, .model = h->model, .ops = *(unsigned *)ctx, .seed = h->random, .meanwhile = h->c->meanwhile, .ctx = h };

	recorder_world = h->world;
	l.stack = harness_open(h, h->c->queues);
	load_run(&l);
	if (h->c->finish)
		h->c->finish(&l);
	harness_close(h, l.stack);
	h->world->kill_after = -1;
}

static void play(const struct stack_case *c, uint64_t seed, bool every_moment, uint64_t states, uint64_t results[RESULTS])
{
	struct harness *h = harness_new(c, seed);
	struct round r = { .left = world_new(c->size_bytes, seed), .every_moment = every_moment, .states = states };
	unsigned ops = every_moment ? 4 : 40;

	h->results[RESULT_SEED] = seed;
	r.left->write_through = c->write_through;
	memcpy(r.left->boot_file, h->world->boot_file, sizeof(r.left->boot_file));
	for (unsigned i = 0; i < FILES_MAX && h->world->file[i].size_bytes; i++)
		world_file(r.left, h->world->file[i].path, h->world->file[i].size_bytes);
	for (bool again = true; again;) { /* who dies on the way may be followed by another that goes on with what is there */
		if (random_below(&h->random, 2))
			h->world->kill_after = (int64_t)random_below(&h->random, ops * c->queues * 6);
		again = harness_child(h, run_some, &ops, -1) && random_below(&h->random, 2);
		h->world->kill_after = -1;
		world_cut_off(h->world, &h->random);
		history_cut_off(&h->model->history);
	}
	harness_child(h, explore, &r, -1);
	results[RESULT_FILE_OPS] += h->world->file[0].size_bytes ? h->world->file[0].history.ops : 0;
	results[RESULT_STATES] += h->results[RESULT_STATES];
	results[RESULT_EXHAUSTIVE] += h->results[RESULT_EXHAUSTIVE];
	world_free(r.left);
	harness_free(h);
}

static void check(void **state)
{
	struct stack_case c = *(const struct stack_case *)*state;
	uint64_t seed = harness_seed(), wanted = harness_number("MALLEE_POWER_STATES", DEFAULT_STATES), results[RESULTS] = { 0 };
	bool every_moment = true;

	c.size_bytes = SIZE_BYTES;
	print_message("%s: seed %llu\n", c.name, (unsigned long long)seed);
	while (results[RESULT_STATES] < wanted) {
		play(&c, seed++, every_moment, ROUND_STATES, results);
		every_moment = !every_moment;
	}
	print_message("%s: %llu states, %llu of them by exhaustive choice; %llu writes and syncs of the file beside the disk\n", c.name,
		      (unsigned long long)results[RESULT_STATES], (unsigned long long)results[RESULT_EXHAUSTIVE], (unsigned long long)results[RESULT_FILE_OPS]);
	assert_true(!c.files[0] || results[RESULT_FILE_OPS] > 0);
	assert_true(results[RESULT_EXHAUSTIVE] > 0);
}

int main(void)
{
	struct CMUnitTest tests[32];
	unsigned count = 0;
	const char *only = getenv("MALLEE_STACK");

	for (const struct stack_case *c = stack_cases; c->name; c++) {
		if ((!only || strcmp(only, c->name) == 0) && !c->fail_permille && !c->back)
			tests[count++] = (struct CMUnitTest){ c->name, check, NULL, NULL, (void *)c };
	}
	return _cmocka_run_group_tests("block_power", tests, count, NULL, NULL);
}
