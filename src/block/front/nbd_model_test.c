/* SPDX-License-Identifier: Apache-2.0 */
/* NBD server and client (block/back) against each other, compared with plain memory. MALLEE_MODEL_OPS, MALLEE_MODEL_SEED. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "block/front/nbd_testkit.h"
#include "os/file.h"
#include "tls/tls.h"

struct model {
	struct blk_stack *stack;
	struct blk_queue *queue;
	char *bytes, *data;
	unsigned seed, left, inflight;
	_Atomic bool done;

	struct op {
		struct blk_req req;
		struct iovec iov[3];
		struct model *model;
		unsigned index;
	} ops[16];
};

#define REGION (DISK_BYTES / 32) /* an operation's own part of its queue's half */

static void model_next(struct op *o);

static void model_done(struct blk_req *r)
{
	struct op *o = r->ctx;
	struct model *m = o->model;

	assert_int_equal(r->result, 0);
	char *want = m->bytes + r->off_bytes;
	if (r->op == BLK_READ) {
		char *got = o->iov[0].iov_base;
		assert_memory_equal(got, want, r->len_bytes);
	} else if (r->op == BLK_WRITE) {
		memcpy(want, o->iov[0].iov_base, r->len_bytes);
	} else if (r->op == BLK_WRITE_ZEROES || r->op == BLK_DISCARD) {
		memset(want, 0, r->len_bytes);
	}
	m->inflight--;
	model_next(o);
}

static void model_next(struct op *o)
{
	struct model *m = o->model;
	uint64_t base = (blk_queue_index(m->queue) * 16 + o->index) * REGION;
	char *data = m->data + o->index * REGION;

	if (!m->left) {
		m->done = !m->inflight;
		return;
	}
	m->left--;
	m->inflight++;
	uint64_t at = (uint64_t)(rand_r(&m->seed) % (REGION / 512)) * 512;
	uint64_t most = REGION - at, len = 512 + (uint64_t)(rand_r(&m->seed) % (rand_r(&m->seed) % 4 ? 16 : REGION / 512)) * 512;
	len = MIN_OF(len, most);
	enum blk_op op = (enum blk_op[]){ BLK_READ, BLK_READ, BLK_WRITE, BLK_WRITE, BLK_WRITE_ZEROES, BLK_FLUSH, BLK_DISCARD }[rand_r(&m->seed) % 7];
	o->req = (struct blk_req){ .op = op, .queue = m->queue, .done = model_done, .ctx = o };
	if (op != BLK_FLUSH) {
		o->req.off_bytes = base + at;
		o->req.len_bytes = len;
	}
	o->req.flags = (op == BLK_WRITE || op == BLK_WRITE_ZEROES) && rand_r(&m->seed) % 2 ? BLK_FUA : 0;
	if (op == BLK_READ || op == BLK_WRITE) {
		uint64_t cut = len / 1024 * 512;
		o->iov[0] = (struct iovec){ data, cut };
		o->iov[1] = (struct iovec){ data + cut, len - cut };
		o->req.iov = cut ? o->iov : o->iov + 1;
		o->req.iov_count = cut ? 2 : 1;
		for (uint64_t i = 0; op == BLK_WRITE && i < len; i += 4)
			nbd_put32(data + i, (uint32_t)rand_r(&m->seed));
	}
	blk_stack_submit(m->stack, &o->req);
}

static void model_start(void *ctx)
{
	struct model *m = ctx;

	for (unsigned i = 0; i < ARRAY_SIZE(m->ops); i++) {
		m->ops[i].model = m;
		m->ops[i].index = i;
		model_next(&m->ops[i]);
	}
}

static void model_run(const char *options)
{
	const char *given = getenv("MALLEE_MODEL_OPS"), *seed = getenv("MALLEE_MODEL_SEED");
	unsigned start = seed ? (unsigned)atoi(seed) : (unsigned)getpid();
	struct model *models = calloc(2, sizeof(*models));
	struct blk_stack *stack;
	struct error e = { 0 };
	char back[256];

	print_message("seed %u\n", start);
	snprintf(back, sizeof(back), "nbd:socket=%s%s", server.path, options);
	struct blk_stack_settings settings = { drivers, back, NULL, 2, BLK_IO_THREADS };
	assert_int_equal(blk_stack_open(&settings, &stack, &e), 0);
	assert_int_equal(blk_stack_start(stack, &e), 0);
	assert_true(blk_stack_info(stack)->size_bytes == DISK_BYTES);
	char *bytes = malloc(DISK_BYTES);
	memcpy(bytes, disk.bytes, DISK_BYTES);
	for (unsigned i = 0; i < 2; i++) {
		models[i] = (struct model){ .stack = stack, .queue = blk_stack_queue(stack, i), .bytes = bytes, .data = malloc(DISK_BYTES / 2),
					    .seed = start + i, .left = given ? (unsigned)atoi(given) : 1500 };
		blk_queue_call(models[i].queue, model_start, &models[i]);
	}
	for (unsigned i = 0; i < 2; i++) {
		while (!models[i].done)
			usleep(1000);
		free(models[i].data);
	}
	assert_memory_equal(bytes, disk.bytes, DISK_BYTES);
	assert_int_equal(blk_stack_close(stack, &e), 0);
	free(bytes);
	free(models);
}

static void test_model(void **state)
{
	fill_disk();
	server_start(2, "");
	model_run("");
	model_run(",connections=3");
	server_stop();
}

/* Connections are broken again and again: every request is done all the same. */
static void *break_connections(void *arg)
{
	while (!*(_Atomic bool *)arg) {
		usleep(20000);
		close(enter(false)); /* exclusive: ends the one before */
	}
	return NULL;
}

static void test_model_with_losses(void **state)
{
	_Atomic bool stop = false;
	pthread_t thread;

	fill_disk();
	server_start(1, ",exclusive=on");
	assert_int_equal(pthread_create(&thread, NULL, break_connections, &stop), 0);
	model_run(",reconnect-ms=10");
	stop = true;
	pthread_join(thread, NULL);
	server_stop();
}

/* TLS between identities of one cloud; others stay outside. */
static void test_tls(void **state)
{
	char dir[] = "/tmp/mallee-nbd-tls-XXXXXX", other[] = "/tmp/mallee-nbd-tls-XXXXXX", options[256], back[256];
	static const enum tls_role roles[] = { TLS_ROLE_SC, TLS_ROLE_NC };
	struct blk_stack *stack;
	struct error e = { 0 };

	assert_true(mkdtemp(dir) && mkdtemp(other));
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(tls_ca_init(i ? other : dir, "ab12", &e), 0);
		for (unsigned k = 0; k < 2; k++)
			assert_int_equal(tls_issue(i ? other : dir, roles[k], "one", NULL, &e), 0);
	}
	fill_disk();
	snprintf(options, sizeof(options), ",tls=require,tls-dir=%s,tls-peer=nc", dir);
	server_start(2, options);
	snprintf(options, sizeof(options), ",connections=2,tls=on,tls-dir=%s,tls-peer=sc", dir);
	model_run(options);
	const struct {
		const char *dir, *more;
	} bad[] = { { other, "" }, { dir, ",tls-role=sc" }, { dir, ",tls-peer=nc" }, { dir, ",tls-peer-id=two" }, { NULL, "" } };
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		if (bad[i].dir)
			snprintf(back, sizeof(back), "nbd:socket=%s,tls=on,tls-dir=%s%s", server.path, bad[i].dir, bad[i].more);
		else
			snprintf(back, sizeof(back), "nbd:socket=%s", server.path);
		struct blk_stack_settings settings = { drivers, back, NULL, 1, BLK_IO_THREADS };
		assert_true(blk_stack_open(&settings, &stack, &e) < 0);
	}
	server_stop();
	dir_remove(dir);
	dir_remove(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_model_with_losses),
		cmocka_unit_test(test_tls),
	};

	return cmocka_run_group_tests(tests, make_disk, free_disk);
}
