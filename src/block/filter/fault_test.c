/* SPDX-License-Identifier: Apache-2.0 */
#include "block/filter/filter.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/macros.h"
#include "block/filter/testkit.h"

static struct blk_stack *open_with(const char *spec)
{
	return kit_open(&blk_fault_ops, spec, "mem:size=1M", 1);
}

static void shut(struct blk_stack *s)
{
	kit_command(s, "fault", "clear", NULL);
	kit_command(s, "fault", "release", NULL);
	assert_int_equal(blk_stack_close(s, NULL), 0);
}

static void test_refusals(void **state)
{
	static const char *const bad[] = { "fault:op=eat,error=EIO", "fault:error=EWHAT", "fault:torn=512", "fault:op=write,torn=100",
					   "fault:ppm=0,error=EIO", "fault:every=0,error=EIO", "fault:id=1,error=EIO" };
	struct blk_stack *s;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error e = { 0 };
		assert_true(kit_try(&blk_fault_ops, bad[i], "mem:size=1M", 1, &s, &e) < 0);
	}
}

static void test_which(void **state)
{
	struct blk_stack *s = open_with("fault:op=write,off=64k,len=4k,error=ENOSPC");
	char data[8192] = "";

	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, data, 4096), 0);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 65536, data, 512), -ENOSPC);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 65536 - 512, data, 1024), -ENOSPC);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 65536 - 512, data, 512), 0);
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 65536 + 4096, data, 512), 0);
	assert_int_equal(kit_io(s, BLK_READ, 0, 65536, data, 512), 0);
	assert_int_equal(kit_io(s, BLK_WRITE_ZEROES, 0, 65536, NULL, 512), 0);
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), 0);
	kit_command(s, "fault", "set", "id=3,op=flush,error=EIO,once=on");
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), -EIO);
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), 0);
	kit_command(s, "fault", "clear", "id=0");
	assert_int_equal(kit_io(s, BLK_WRITE, 0, 65536, data, 512), 0);
	kit_command(s, "fault", "set", "op=change,error=EROFS");
	assert_int_equal(kit_io(s, BLK_DISCARD, 0, 0, NULL, 512), -EROFS);
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, 512), 0);
	kit_command(s, "fault", "set", "off=4k,error=EIO"); /* not everywhere: flushes have no place */
	assert_int_equal(kit_io(s, BLK_FLUSH, 0, 0, NULL, 0), 0);
	shut(s);
}

static void test_when(void **state)
{
	struct blk_stack *s = open_with("fault:op=read,after=2,every=3,count=2,error=EIO");
	static const int want[] = { 0, 0, 0, 0, -EIO, 0, 0, -EIO, 0, 0, 0, 0 };
	char data[512];

	for (unsigned i = 0; i < ARRAY_SIZE(want); i++)
		assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, 512), want[i]);
	shut(s);
}

static unsigned chance(unsigned seed, uint64_t *ret_pattern)
{
	struct blk_stack *s = open_with("fault");
	char data[512], args[64];
	unsigned hits = 0;

	snprintf(args, sizeof(args), "op=read,ppm=100000,seed=%u,error=EIO", seed);
	kit_command(s, "fault", "set", args);
	*ret_pattern = 0;
	for (unsigned i = 0; i < 2000; i++) {
		bool hit = kit_io(s, BLK_READ, 0, 0, data, 512) != 0;
		hits += hit;
		*ret_pattern = *ret_pattern * 31 + hit;
	}
	shut(s);
	return hits;
}

static void test_chance(void **state)
{
	uint64_t a, b, other;
	unsigned hits = chance(5, &a);

	assert_true(hits > 140 && hits < 260);
	assert_int_equal(chance(5, &b), hits);
	assert_true(a == b);
	chance(6, &other);
	assert_true(a != other);
}

static void test_delay(void **state)
{
	struct blk_stack *s = open_with("fault:op=read,delay=60");
	char data[512];
	struct buf out = BUF_INIT;

	assert_int_equal(kit_io(s, BLK_WRITE, 0, 0, data, 512), 0);
	blk_stack_stats_json(s, NULL, 0, &out);
	assert_non_null(strstr(out.data, "\"delayed\":0"));
	buf_done(&out);
	double start = kit_now();
	kit_run(s, 1); /* a request comes when its queue last looked at the clock */
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, data, 512), 0);
	assert_true(kit_now() - start > 0.05);
	/* Several, with different delays: the short ones are not held up by the long one. */
	struct iovec iov = { data, 512 };
	struct blk_req r[3];
	bool done[3] = { false };
	static const char *const rules[] = { "op=read,delay=2000", "op=read,delay=10", "op=read,delay=60,error=EIO" };
	for (unsigned i = 0; i < 3; i++) {
		kit_command(s, "fault", "set", rules[i]);
		r[i] = (struct blk_req){ .op = BLK_READ, .len_bytes = 512, .iov = &iov, .iov_count = 1, .queue = blk_stack_queue(s, 0),
					 .done = kit_done, .ctx = &done[i] };
		blk_stack_submit(s, &r[i]);
	}
	assert_int_equal(blk_queue_run_until(blk_stack_queue(s, 0), &done[2], 5000), 0);
	assert_true(done[1] && !done[0] && r[2].result == -EIO);
	assert_int_equal(blk_queue_run_until(blk_stack_queue(s, 0), &done[0], 5000), 0);
	shut(s);
}

static void test_torn(void **state)
{
	struct blk_stack *s = open_with("fault");
	char data[4096], found[4096];
	struct iovec iov[2] = { { data, 700 }, { data + 700, 4096 - 700 } };
	struct blk_req r = { .op = BLK_WRITE, .off_bytes = 4096, .len_bytes = 4096, .iov = iov, .iov_count = 2 };

	memset(data, 7, sizeof(data));
	kit_command(s, "fault", "set", "op=write,torn=1536,once=on");
	assert_int_equal(kit_request(s, &r), -EIO);
	assert_int_equal(kit_io(s, BLK_READ, 0, 4096, found, 4096), 0);
	assert_true(kit_all(found, 1536, 7) && kit_all(found + 1536, 4096 - 1536, 0));
	kit_command(s, "fault", "set", "op=write,torn=32M,error=ENOSPC,once=on"); /* all of it, and told to have failed */
	assert_int_equal(kit_request(s, &r), -ENOSPC);
	assert_int_equal(kit_io(s, BLK_READ, 0, 4096, found, 4096), 0);
	assert_true(kit_all(found, 4096, 7));
	kit_command(s, "fault", "set", "op=write,torn=0,once=on");
	memset(data, 8, sizeof(data));
	assert_int_equal(kit_request(s, &r), -EIO);
	assert_int_equal(kit_io(s, BLK_READ, 0, 4096, found, 4096), 0);
	assert_true(kit_all(found, 4096, 7));
	/* More at once than there are children. */
	struct blk_req many[40];
	bool done[40] = { false };
	kit_command(s, "fault", "set", "op=write,torn=512");
	for (unsigned i = 0; i < 40; i++) {
		many[i] = r;
		many[i].off_bytes = i * 4096;
		many[i].queue = blk_stack_queue(s, 0);
		many[i].done = kit_done;
		many[i].ctx = &done[i];
		many[i].completed = false;
		blk_stack_submit(s, &many[i]);
	}
	kit_run(s, 20);
	for (unsigned i = 0; i < 40; i++)
		assert_true(done[i] && many[i].result == -EIO);
	shut(s);
}

static void test_stall(void **state)
{
	struct blk_stack *s = open_with("fault:op=write,stall=on");
	char data[512] = "x", found[512];
	struct iovec iov = { data, 512 };
	bool done = false;
	struct blk_req r = { .op = BLK_WRITE, .len_bytes = 512, .iov = &iov, .iov_count = 1, .queue = blk_stack_queue(s, 0),
			     .done = kit_done, .ctx = &done };

	blk_stack_submit(s, &r);
	kit_run(s, 30);
	assert_false(done);
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, found, 512), 0);
	assert_int_equal(found[0], 0);
	kit_command(s, "fault", "release", NULL);
	kit_command(s, "fault", "release", NULL); /* twice is fine */
	assert_int_equal(blk_queue_run_until(r.queue, &done, 5000), 0);
	assert_int_equal(r.result, 0);
	assert_int_equal(kit_io(s, BLK_READ, 0, 0, found, 512), 0);
	assert_int_equal(found[0], 'x');
	shut(s);
}

static void test_crash(void **state)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		struct blk_stack *s = open_with("fault:op=write,torn=512,crash=on,after=1");
		char data[1024] = "";
		kit_io(s, BLK_WRITE, 0, 0, data, 1024);
		kit_io(s, BLK_WRITE, 0, 0, data, 1024);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Several queues, rules that come and go, and all of it ends. */

struct load {
	struct blk_stack *stack;
	struct blk_req r[8];
	struct iovec iov;
	char data[2048];
	uint64_t off_bytes; /* its own part: the disk in memory lets overlapping writes race */
	unsigned left, running;
	_Atomic bool ended;
};

static void again(struct blk_req *r)
{
	struct load *load = r->ctx;

	if (load->left) {
		load->left--;
		r->op = load->left % 5 ? BLK_WRITE : BLK_FLUSH;
		r->len_bytes = r->op == BLK_FLUSH ? 0 : 2048;
		r->off_bytes = r->op == BLK_FLUSH ? 0 : load->off_bytes + load->left % 128 * 2048;
		blk_stack_submit(load->stack, r);
	} else if (!--load->running) {
		atomic_store(&load->ended, true);
	}
}

static void load_start(void *ctx)
{
	struct load *load = ctx;

	load->running = 8;
	for (unsigned i = 0; i < 8; i++)
		again(&load->r[i]);
}

static void test_queues(void **state)
{
	static const char *const rules[] = { "op=write,torn=512,every=3", "delay=1,every=7", "op=write,stall=on,every=50",
					     "ppm=100000,error=EIO", "op=flush,delay=1,error=EIO" };
	static struct load load[3];
	struct blk_stack *s = kit_open(&blk_fault_ops, "fault", "mem:size=1M", 3);
	bool all = false;

	assert_int_equal(blk_stack_start(s, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		load[i] = (struct load){ .stack = s, .left = 20000, .off_bytes = i * (256u << 10) };
		load[i].iov = (struct iovec){ load[i].data, 2048 };
		for (unsigned k = 0; k < 8; k++)
			load[i].r[k] = (struct blk_req){ .queue = blk_stack_queue(s, i), .iov = &load[i].iov, .iov_count = 1, .done = again,
							 .ctx = &load[i] };
		blk_queue_call(blk_stack_queue(s, i), load_start, &load[i]);
	}
	for (unsigned n = 0; !all; n++) {
		char args[80];
		snprintf(args, sizeof(args), "id=%u,%s", n % 4, rules[n % ARRAY_SIZE(rules)]);
		if (n < 300)
			kit_command(s, "fault", "set", args);
		else
			kit_command(s, "fault", "clear", NULL);
		kit_command(s, "fault", "release", NULL);
		usleep(1000);
		all = load[0].ended && load[1].ended && load[2].ended;
	}
	shut(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refusals), cmocka_unit_test(test_which), cmocka_unit_test(test_when),
		cmocka_unit_test(test_chance),	 cmocka_unit_test(test_delay), cmocka_unit_test(test_torn),
		cmocka_unit_test(test_stall),	 cmocka_unit_test(test_crash), cmocka_unit_test(test_queues),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
