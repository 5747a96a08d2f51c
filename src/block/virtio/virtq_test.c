/* SPDX-License-Identifier: Apache-2.0 */
#include "block/virtio/virtq.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "block/virtio/vdriver.h"

/* Two regions that touch each other to the guest and not here, and one far off. */
#define NUM 8u
#define BASE UINT64_C(0x100000)
#define PART UINT64_C(0x10000)
#define FAR UINT64_C(0xfffffffff0000000)

static struct machine {
	struct vmem mem;
	struct vdriver driver;
	struct virtq q;
	struct virtq_chain chain;
	char *low, *high, *far;
} m;

static void add_region(uint64_t guest, uint64_t user, char **ret)
{
	*ret = aligned_alloc(4096, PART);
	memset(*ret, 0, PART);
	struct vmem_region r = { .guest = guest, .user = user, .size_bytes = PART, .host = *ret };
	assert_int_equal(vmem_add(&m.mem, &r), 0);
}

static void restart(bool event_idx)
{
	m.q.event_idx = m.driver.event_idx = event_idx;
	virtq_start(&m.q, 0);
}

static int set_up(void **state)
{
	memset(&m, 0, sizeof(m));
	add_region(BASE, 0x7000000, &m.low);
	add_region(BASE + PART, 0x9000000, &m.high);
	add_region(FAR, 0x1000, &m.far);
	vdriver_init(&m.driver, m.low, BASE, NUM, 0, false);
	m.q = (struct virtq){ .mem = &m.mem, .desc = m.driver.desc, .avail = m.driver.avail, .used = m.driver.used, .num = NUM,
			      .indirect = true };
	restart(false);
	return 0;
}

static int tear_down(void **state)
{
	free(m.low);
	free(m.high);
	free(m.far);
	return 0;
}

static void put(unsigned at, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	m.driver.desc[at] = (struct vring_desc){ addr, len, flags, next };
}

/* Makes the chain at head available and pops it. */
static int pop(uint16_t head)
{
	m.driver.avail->ring[m.driver.avail->idx++ & (NUM - 1)] = head;
	return virtq_pop(&m.q, &m.chain);
}

static void test_addresses(void **state)
{
	struct iovec iov[4];
	struct vmem_region r;

	assert_int_equal(vmem_guest(&m.mem, BASE, PART, iov, 4), 1);
	assert_ptr_equal(iov[0].iov_base, m.low);
	assert_int_equal(vmem_guest(&m.mem, BASE + 1, 2 * PART - 1, iov, 4), 2);
	assert_int_equal(iov[0].iov_len, PART - 1);
	assert_ptr_equal(iov[1].iov_base, m.high);
	assert_int_equal(vmem_guest(&m.mem, BASE + 1, 2 * PART - 1, iov, 1), -E2BIG);
	assert_int_equal(vmem_guest(&m.mem, BASE + 1, 2 * PART, iov, 4), -EFAULT);
	assert_int_equal(vmem_guest(&m.mem, BASE - 1, 2, iov, 4), -EFAULT);
	assert_int_equal(vmem_guest(&m.mem, FAR + PART - 1, UINT64_MAX, iov, 4), -EFAULT);
	assert_int_equal(vmem_guest(&m.mem, UINT64_MAX, 1, iov, 4), -EFAULT);
	assert_ptr_equal(vmem_user(&m.mem, 0x7000010, PART - 0x10, 16), m.low + 0x10);
	assert_null(vmem_user(&m.mem, 0x7000010, PART, 16));
	assert_null(vmem_user(&m.mem, 0x7000008, 16, 16));
	assert_null(vmem_user(&m.mem, UINT64_MAX, 16, 1));
	assert_null(vmem_user(&m.mem, 0x7000000, UINT64_MAX, 1));

	r = (struct vmem_region){ .guest = BASE + PART - 1, .user = 1, .size_bytes = 1, .host = m.low };
	assert_int_equal(vmem_add(&m.mem, &r), -EEXIST);
	r.guest = UINT64_MAX;
	r.size_bytes = 2;
	assert_int_equal(vmem_add(&m.mem, &r), -EINVAL);
	r.size_bytes = 0;
	assert_int_equal(vmem_add(&m.mem, &r), -EINVAL);
	r = (struct vmem_region){ .guest = 0, .user = UINT64_MAX - 10, .size_bytes = 4096, .host = m.low };
	assert_int_equal(vmem_add(&m.mem, &r), -EINVAL);
	assert_int_equal(vmem_remove(&m.mem, FAR, 0x1000, PART - 1, &r), -ENOENT);
	assert_int_equal(vmem_remove(&m.mem, FAR, 0x1000, PART, &r), 0);
	assert_ptr_equal(r.host, m.far);
	assert_int_equal(vmem_guest(&m.mem, FAR, 1, iov, 4), -EFAULT);
}

static void test_table_is_bounded(void **state)
{
	struct vmem_region r = { .user = 0x100000000, .size_bytes = 16, .host = m.low };

	for (unsigned i = m.mem.count; i < VMEM_REGIONS_MAX; i++) {
		r.guest = i * 16;
		assert_int_equal(vmem_add(&m.mem, &r), 0);
	}
	r.guest = VMEM_REGIONS_MAX * 16;
	assert_int_equal(vmem_add(&m.mem, &r), -ENOSPC);
}

static void test_a_chain(void **state)
{
	assert_int_equal(virtq_pop(&m.q, &m.chain), 0);
	put(3, BASE + 0x8000, 16, VRING_DESC_F_NEXT, 5);
	put(5, BASE + PART - 100, 300, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1); /* spans two regions */
	put(1, FAR, 1, VRING_DESC_F_WRITE, 99);
	assert_int_equal(pop(3), 1);
	assert_int_equal(m.chain.head, 3);
	assert_int_equal(m.chain.out, 1);
	assert_int_equal(m.chain.in, 3);
	assert_int_equal(m.chain.out_bytes, 16);
	assert_int_equal(m.chain.in_bytes, 301);
	assert_ptr_equal(m.chain.iov[1].iov_base, m.low + PART - 100);
	assert_int_equal(m.chain.iov[1].iov_len, 100);
	assert_ptr_equal(m.chain.iov[2].iov_base, m.high);
	assert_ptr_equal(m.chain.iov[3].iov_base, m.far);
	assert_int_equal(virtq_pop(&m.q, &m.chain), 0);
	assert_null(m.q.broken);
}

static void test_indirect(void **state)
{
	struct vring_desc *t = (void *)(m.high + 0x100);

	/* a direct descriptor first, then a table: allowed (2.7.5.3.1) */
	t[0] = (struct vring_desc){ BASE, 8, VRING_DESC_F_NEXT, 2 };
	t[2] = (struct vring_desc){ BASE, 4, VRING_DESC_F_WRITE, 0 };
	put(0, BASE, 16, VRING_DESC_F_NEXT, 1);
	put(1, BASE + PART + 0x100, 3 * 16, VRING_DESC_F_INDIRECT, 0);
	assert_int_equal(pop(0), 1);
	assert_int_equal(m.chain.out_bytes, 24);
	assert_int_equal(m.chain.in_bytes, 4);
}

static void fails(uint16_t head)
{
	assert_int_equal(pop(head), -EBADMSG);
	assert_non_null(m.q.broken);
	assert_int_equal(virtq_pop(&m.q, &m.chain), -EBADMSG); /* and stays so, at that chain */
	assert_int_equal(m.q.next_avail, 0);
	virtq_start(&m.q, 0);
	m.driver.avail->idx = 0;
	m.q.indirect = true;
}

static void test_broken_chains(void **state)
{
	struct vring_desc *t = (void *)(m.high + 0x100);
	const uint64_t table = BASE + PART + 0x100;

	fails(NUM); /* head out of range */
	fails(0); /* no length */
	put(0, BASE, 16, VRING_DESC_F_NEXT, NUM);
	fails(0); /* successor out of range */
	put(0, BASE, 16, VRING_DESC_F_NEXT, 1);
	put(1, BASE, 16, VRING_DESC_F_NEXT, 0);
	fails(0); /* a loop */
	put(1, BASE, 16, VRING_DESC_F_NEXT, 1);
	fails(1); /* a small one */
	put(0, BASE, 16, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
	put(1, BASE, 16, 0, 0);
	fails(0); /* to read behind to write */
	put(0, BASE + PART, PART + 1, 0, 0);
	fails(0); /* partly outside */
	put(0, 0, 1, 0, 0);
	fails(0);
	put(0, UINT64_MAX, 0xffffffff, 0, 0);
	fails(0); /* wraps */

	put(0, table, 0, VRING_DESC_F_INDIRECT, 0);
	fails(0);
	put(0, table, 17, VRING_DESC_F_INDIRECT, 0);
	fails(0);
	put(0, table, 0xfffffff0, VRING_DESC_F_INDIRECT, 0);
	fails(0); /* overlong */
	put(0, table + 4, 16, VRING_DESC_F_INDIRECT, 0);
	fails(0); /* not aligned */
	put(0, BASE + PART - 16, 32, VRING_DESC_F_INDIRECT, 0);
	fails(0); /* a table over two regions */
	put(0, 8, 16, VRING_DESC_F_INDIRECT, 0);
	fails(0);
	put(0, table, 32, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1);
	fails(0);
	put(0, table, 32, VRING_DESC_F_INDIRECT, 0);
	t[0] = (struct vring_desc){ table, 16, VRING_DESC_F_INDIRECT, 0 };
	fails(0); /* a table in a table */
	t[0] = (struct vring_desc){ BASE, 16, VRING_DESC_F_NEXT, 2 };
	fails(0);
	t[0] = (struct vring_desc){ BASE, 16, VRING_DESC_F_NEXT, 0 };
	fails(0);
	t[0] = (struct vring_desc){ BASE, 16, 0, 0 };
	m.q.indirect = false;
	fails(0); /* not negotiated */
	assert_int_equal(pop(0), 1); /* and this one is fine */
	m.driver.avail->idx = (uint16_t)(m.q.next_avail + NUM + 1);
	assert_int_equal(virtq_pop(&m.q, &m.chain), -EBADMSG);
	assert_string_equal(m.q.broken, "more chains are available than the queue is long");
}

static void test_too_many_pieces(void **state)
{
	struct vring_desc *t = (void *)m.high;

	for (unsigned i = 0; i < VIRTQ_IOV_MAX; i++)
		t[i] = (struct vring_desc){ BASE, 1, VRING_DESC_F_NEXT, (uint16_t)(i + 1) };
	t[VIRTQ_IOV_MAX - 1].flags = 0;
	put(0, BASE + PART, VIRTQ_IOV_MAX * 16, VRING_DESC_F_INDIRECT, 0);
	put(1, BASE, 16, VRING_DESC_F_NEXT, 0);
	assert_int_equal(pop(0), 1);
	assert_int_equal(m.chain.out, VIRTQ_IOV_MAX);
	assert_int_equal(pop(1), -EBADMSG);
	assert_string_equal(m.q.broken, "a chain is too long");
}

/* Random numbers of chains of random length through a queue, both ways of being told; nothing is lost. */
static void run_both_sides(bool event_idx, unsigned table)
{
	unsigned taken = 0, given = 0, back = 0, calls = 0, kicks = 0;
	uint16_t held[NUM], holding = 0;
	struct vdriver_buf buf[3] = { { BASE + 0x9000, 16, false }, { BASE + 0x9100, 512, true }, { BASE + 0x9400, 1, true } };
	bool kicked = false, called = false;
	uint32_t len;

	m.driver.num = NUM;
	memset(m.low, 0, PART);
	vdriver_init(&m.driver, m.low, BASE, NUM, table, event_idx);
	restart(event_idx);
	for (unsigned round = 0; round < 20000; round++) {
		for (unsigned n = (unsigned)rand() % 4; n && vdriver_add(&m.driver, buf, 2 + n % 2) >= 0; n--)
			given++;
		if (vdriver_show(&m.driver)) {
			kicked = true;
			kicks++;
		}
		if (kicked && rand() % 2) {
			kicked = false;
			virtq_notify_off(&m.q);
			do {
				while (holding < NUM && virtq_pop(&m.q, &m.chain) == 1) {
					held[holding++] = m.chain.head;
					taken++;
				}
			} while (virtq_notify_on(&m.q) && holding < NUM);
		}
		if (rand() % 2) {
			unsigned some = holding ? 1 + (unsigned)rand() % holding : 0;
			while (some--) {
				virtq_push(&m.q, held[--holding], 7);
				if (!some && virtq_publish(&m.q)) {
					called = true;
					calls++;
				}
			}
		}
		if (called && rand() % 2) {
			called = false;
			vdriver_call_off(&m.driver);
			do {
				while (vdriver_get(&m.driver, &len) >= 0) {
					assert_int_equal(len, 7);
					back++;
				}
			} while (vdriver_call_on(&m.driver));
		}
		assert_null(m.q.broken);
		/* who waits to be told has nothing to wait for, or is told */
		assert_true(kicked || taken == given || holding == NUM);
		assert_true(called || m.q.used_idx == m.driver.used_seen);
	}
	assert_true(given > 1000 && back > given - NUM - 1);
	assert_true(calls < back && kicks < given);
}

static void test_both_sides(void **state)
{
	srand(7);
	run_both_sides(false, 0);
	run_both_sides(true, 0);
	run_both_sides(false, 4);
	run_both_sides(true, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_addresses, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_table_is_bounded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_chain, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_indirect, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_broken_chains, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_many_pieces, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_both_sides, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
