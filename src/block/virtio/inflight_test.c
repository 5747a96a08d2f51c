/* SPDX-License-Identifier: Apache-2.0 */
#include "block/virtio/inflight.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NUM 16u

/* A device that may die after any step: what it knew is thrown away, the ring and the part remain. */
static struct {
	struct {
		uint16_t flags, idx;
		struct vring_used_elem ring[NUM];
		uint16_t event;
	} used;
	struct {
		uint16_t flags, idx, ring[NUM + 1];
	} avail;
	void *memory;
	struct inflight_queue *part;
	struct virtq q;
	struct inflight f;
	uint16_t order[NUM]; /* taken and not published, in order */
	unsigned taken, steps_left;
} d;

static void start(uint16_t *heads, int expect)
{
	uint16_t next = 777;

	d.q = (struct virtq){ .num = NUM, .used = (void *)&d.used, .avail = (void *)&d.avail };
	virtq_start(&d.q, 0);
	int n = inflight_attach(&d.f, d.part, NUM, &d.q, heads, &next);
	assert_int_equal(n, expect);
	if (n > 0)
		assert_int_equal((uint16_t)(d.used.idx + n), next);
}

static void set_up_ring(void)
{
	memset(&d.used, 0, sizeof(d.used));
	memset(&d.avail, 0, sizeof(d.avail));
	free(d.memory);
	d.memory = calloc(1, inflight_bytes(2, NUM));
	d.part = inflight_queue_at(d.memory, 1, NUM);
	d.taken = 0;
}

static void test_layout(void **state)
{
	set_up_ring();
	assert_ptr_equal(inflight_queue_at(d.memory, 0, NUM), d.memory);
	assert_true((char *)(inflight_tail_at(d.memory, 2, NUM) + 1) == (char *)d.memory + inflight_bytes(2, NUM));
	assert_true((char *)&d.part->desc[NUM] <= (char *)inflight_tail_at(d.memory, 2, NUM));
}

static void test_fresh(void **state)
{
	uint16_t heads[NUM], next = 42;

	set_up_ring();
	d.used.idx = 9; /* a ring that has run before */
	start(heads, 0);
	assert_int_equal(d.part->version, 1);
	assert_int_equal(d.part->desc_num, NUM);
	assert_int_equal(d.part->used_idx, 9);
	memset(d.part, 0, 64);
	assert_int_equal(inflight_attach(&d.f, d.part, NUM, &d.q, heads, &next), 0);
	assert_int_equal(next, 42); /* the peer's base stands */
	assert_int_equal(inflight_attach(&d.f, NULL, 0, &d.q, heads, &next), 0);
	inflight_taken(&d.f, 3); /* no memory: nothing happens */
	inflight_pushed(&d.f, 3);
	inflight_published(&d.f, 3);
}

static void test_order_of_resubmission(void **state)
{
	static const uint16_t taken[] = { 5, 0, 15, 7, 3 };
	uint16_t heads[NUM];

	set_up_ring();
	start(heads, 0);
	for (unsigned i = 0; i < 5; i++)
		inflight_taken(&d.f, taken[i]);
	virtq_push(&d.q, 15, 1);
	inflight_pushed(&d.f, 15);
	virtq_publish(&d.q);
	inflight_published(&d.f, d.q.used_idx);
	start(heads, 4);
	assert_int_equal(heads[0], 5);
	assert_int_equal(heads[1], 0);
	assert_int_equal(heads[2], 7);
	assert_int_equal(heads[3], 3);
	inflight_taken(&d.f, 1); /* counts on from there */
	start(heads, 5);
	assert_int_equal(heads[4], 1);
}

/* Death between the ring's idx and the marks: what the ring has is not done again, whatever was cleared already. */
static void test_death_in_publishing(void **state)
{
	for (unsigned cleared = 0; cleared <= 3; cleared++) {
		uint16_t heads[NUM];
		set_up_ring();
		d.used.idx = 65534; /* over the wrap */
		start(heads, 0);
		for (uint16_t i = 0; i < 6; i++)
			inflight_taken(&d.f, i);
		for (uint16_t i = 1; i < 4; i++) {
			virtq_push(&d.q, i, 1);
			inflight_pushed(&d.f, i);
		}
		if (cleared == 3) { /* before the idx: all six are still in flight */
			start(heads, 6);
			continue;
		}
		virtq_publish(&d.q);
		for (unsigned i = 0; i < cleared; i++)
			d.part->desc[3 - i].inflight = 0;
		start(heads, 3);
		assert_int_equal(heads[0], 0);
		assert_int_equal(heads[1], 4);
		assert_int_equal(heads[2], 5);
		assert_int_equal(d.part->used_idx, d.used.idx);
	}
}

static void test_nonsense_is_refused(void **state)
{
	uint16_t heads[NUM];

	set_up_ring();
	start(heads, 0);
	d.part->version = 2;
	start(heads, -EBADMSG);
	d.part->version = 1;
	d.part->desc_num = NUM + 1;
	start(heads, -EBADMSG);
	d.part->desc_num = NUM;
	d.used.idx = NUM + 1; /* a batch longer than the queue */
	start(heads, -EBADMSG);
	d.used.idx = 2;
	d.part->last_batch_head = 500;
	start(heads, -EBADMSG);
	d.used.idx = 0;
	start(heads, 0);
	inflight_taken(&d.f, 1);
	inflight_pushed(&d.f, 1);
	d.part->last_batch_head = 60000; /* the peer writes into it: nothing outside is touched */
	d.part->desc_num = 65535;
	inflight_published(&d.f, 1);
}

/* Random work, death after any whole step: every chain is published exactly once. */
static void test_random_deaths(void **state)
{
	uint16_t heads[NUM], held[NUM];
	unsigned holding = 0, published[NUM] = { 0 }, taken[NUM] = { 0 };

	srand(11);
	set_up_ring();
	start(heads, 0);
	for (unsigned round = 0; round < 20000; round++) {
		uint16_t head = (uint16_t)(rand() % NUM);
		if (taken[head] == published[head]) {
			inflight_taken(&d.f, head);
			taken[head]++;
			held[holding++] = head;
		}
		unsigned some = (unsigned)rand() % (holding + 1), pushed = 0;
		for (; pushed < some; pushed++) {
			unsigned at = (unsigned)rand() % holding;
			uint16_t h = held[at];
			held[at] = held[--holding];
			virtq_push(&d.q, h, 1);
			inflight_pushed(&d.f, h);
			heads[pushed] = h;
		}
		bool shown = rand() % 8 != 0;
		if (shown && pushed) {
			virtq_publish(&d.q);
			for (unsigned i = 0; i < pushed; i++)
				published[heads[i]]++;
			if (rand() % 8) {
				inflight_published(&d.f, d.q.used_idx);
				continue;
			}
		}
		/* dies here */
		holding = 0;
		for (unsigned i = 0; i < NUM; i++)
			holding += taken[i] - published[i];
		start(held, (int)holding);
		for (unsigned i = 0; i < holding; i++)
			assert_int_equal(taken[held[i]], published[held[i]] + 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_fresh),
		cmocka_unit_test(test_order_of_resubmission),
		cmocka_unit_test(test_death_in_publishing),
		cmocka_unit_test(test_nonsense_is_refused),
		cmocka_unit_test(test_random_deaths),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	free(d.memory);
	return failed;
}
