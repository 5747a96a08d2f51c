/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes patterns, reads them back, and kills the back end at random meanwhile, as often as it is told to. Each block has a
 * version that its next write raises; a block has one request in flight at a time, so that what it must hold is known. What
 * was in flight at a kill is not given up: the in-flight memory makes the successor do it. An answer that comes twice, an error, a
 * block with other bytes than its last version's: any of them ends the run with 1.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "master.h"

#define HEADER_BYTES 64u
#define NO_BLOCK UINT64_MAX
#define ANSWER_MS 20000

enum kind { WRITE, READ, ZEROES, FLUSH };

struct slot {
	bool busy;
	enum kind kind;
	uint64_t block;
};

struct verify {
	const struct master_options *o;
	struct vhost_client c;
	pid_t server;
	uint64_t blocks, random;
	uint32_t *version;  /* what a block holds; 0: zeroes */
	bool *block_busy;
	struct slot *slot;
	int *slot_of_head;  /* -1: that head is not out */
	unsigned inside;
	uint64_t ops, killed;
	bool failed;
};

static void fail(struct verify *v, const char *what, uint64_t block)
{
	fprintf(stderr, "vhost-master: %s (block %" PRIu64 ", after %" PRIu64 " operations and %" PRIu64 " kills)\n", what, block, v->ops,
		v->killed);
	v->failed = true;
}

/* ---- the back end ---- */

static int spawn(struct verify *v)
{
	char command[4096];

	if (!v->o->spawn)
		return 0;
	/* exec: the process that is killed is the back end, not a shell before it */
	if (snprintf(command, sizeof(command), "exec %s", v->o->spawn) >= (int)sizeof(command))
		return -E2BIG;
	v->server = fork();
	if (!v->server) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	return v->server < 0 ? -errno : 0;
}

static int kill_and_go_on(struct verify *v)
{
	kill(v->server, SIGKILL);
	waitpid(v->server, NULL, 0);
	v->killed++;
	int err = spawn(v);
	return err ? err : master_connect(&v->c, v->o, ANSWER_MS);
}

/* ---- patterns ---- */

static char *data_of(struct verify *v, unsigned slot)
{
	return v->c.data + v->o->depth * 4096u + slot * v->o->block_bytes;
}

static uint64_t word_of(uint64_t block, uint32_t version, uint64_t i)
{
	return version ? (block * 0x9e3779b97f4a7c15u ^ (uint64_t)version << 32) + i : 0;
}

static void fill(struct verify *v, unsigned slot, uint64_t block, uint32_t version)
{
	uint64_t *p = (void *)data_of(v, slot);

	for (uint64_t i = 0; i < v->o->block_bytes / 8; i++)
		p[i] = word_of(block, version, i);
}

static void check(struct verify *v, unsigned slot, uint64_t block)
{
	const uint64_t *p = (const void *)data_of(v, slot);

	for (uint64_t i = 0; i < v->o->block_bytes / 8; i++) {
		if (p[i] != word_of(block, v->version[block], i)) {
			fprintf(stderr, "vhost-master: word %" PRIu64 " is %016" PRIx64 ", version %u has %016" PRIx64 "\n", i, p[i],
				v->version[block], word_of(block, v->version[block], i));
			fail(v, "a block does not hold what was written", block);
			return;
		}
	}
}

/* ---- requests ---- */

static void submit(struct verify *v, unsigned slot, enum kind kind, uint64_t block)
{
	static const uint32_t types[] = { VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_FLUSH };
	const uint32_t sectors = (uint32_t)(v->o->block_bytes / 512);
	struct virtio_blk_outhdr h = { types[kind], 0, kind == READ || kind == WRITE ? block * sectors : 0 };
	struct virtio_blk_discard_write_zeroes range = { block * sectors, sectors, block & 1 };
	uint64_t at = v->c.data_guest + slot * HEADER_BYTES;
	uint64_t data = v->c.data_guest + (uint64_t)(data_of(v, slot) - v->c.data);
	struct vdriver_buf b[3] = { { at, sizeof(h), false }, { data, (uint32_t)v->o->block_bytes, kind == READ }, { at + 32, 1, true } };

	if (kind == ZEROES) {
		memcpy(data_of(v, slot), &range, sizeof(range));
		b[1].len_bytes = sizeof(range);
	} else if (kind == WRITE) {
		fill(v, slot, block, ++v->version[block]);
	}
	if (kind == ZEROES)
		v->version[block] = 0;
	if (kind == FLUSH)
		b[1] = b[2];
	memcpy(v->c.data + slot * HEADER_BYTES, &h, sizeof(h));
	v->c.data[slot * HEADER_BYTES + 32] = 0x77;
	int head = vdriver_add(&v->c.queue[0].driver, b, kind == FLUSH ? 2 : 3);
	if (head < 0)
		abort();
	v->slot_of_head[head] = (int)slot;
	v->slot[slot] = (struct slot){ true, kind, kind == FLUSH ? NO_BLOCK : block };
	if (kind != FLUSH)
		v->block_busy[block] = true;
	v->inside++;
}

static void finish(struct verify *v, int head)
{
	int at = v->slot_of_head[head];

	if (at < 0) {
		fail(v, "an answer to a request that is not out", NO_BLOCK);
		return;
	}
	struct slot *s = &v->slot[at];
	if (v->c.data[(unsigned)at * HEADER_BYTES + 32] != VIRTIO_BLK_S_OK)
		fail(v, "a request failed", s->block);
	else if (s->kind == READ)
		check(v, (unsigned)at, s->block);
	if (s->kind != FLUSH)
		v->block_busy[s->block] = false;
	s->busy = false;
	v->slot_of_head[head] = -1;
	v->inside--;
	v->ops++;
}

static unsigned reap(struct verify *v)
{
	unsigned n = 0;
	uint32_t len;
	int head;

	while ((head = vdriver_get(&v->c.queue[0].driver, &len)) >= 0) {
		finish(v, head);
		n++;
	}
	return n;
}

static void submit_random(struct verify *v)
{
	for (unsigned i = 0; i < v->o->depth; i++) {
		uint64_t r = master_random(&v->random), block = (r >> 16) % v->blocks;
		bool zeroes = v->c.features & 1u << VIRTIO_BLK_F_WRITE_ZEROES;
		enum kind kind = r % 100 < 2 ? FLUSH : r % 100 < 5 && zeroes ? ZEROES : r % 100 < 55 ? WRITE : READ;
		if (!v->slot[i].busy && (kind == FLUSH || !v->block_busy[block]))
			submit(v, i, kind, block);
	}
	if (vdriver_show(&v->c.queue[0].driver))
		vhost_client_kick(&v->c, 0);
}

static void wait_some(struct verify *v, int timeout_ms)
{
	vdriver_call_off(&v->c.queue[0].driver);
	if (reap(v) || vdriver_call_on(&v->c.queue[0].driver))
		return;
	vhost_client_wait(&v->c, 0, timeout_ms);
}

static void drain(struct verify *v)
{
	uint64_t last = master_now_ns();

	while (v->inside && !v->failed) {
		unsigned before = v->inside;
		wait_some(v, 100);
		if (v->inside != before)
			last = master_now_ns();
		else if (master_now_ns() - last > (uint64_t)ANSWER_MS * 1000000u)
			fail(v, "requests were never answered", NO_BLOCK);
	}
}

/* Everything that the disk must hold by now. */
static void read_all(struct verify *v)
{
	for (uint64_t block = 0; block < v->blocks && !v->failed; block++) {
		submit(v, 0, READ, block);
		if (vdriver_show(&v->c.queue[0].driver))
			vhost_client_kick(&v->c, 0);
		drain(v);
	}
}

/* ---- the run ---- */

/* Every block is written first, so that the disk may have held anything. */
static void write_everywhere(struct verify *v)
{
	for (uint64_t block = 0; block < v->blocks && !v->failed; block++) {
		submit(v, 0, WRITE, block);
		if (vdriver_show(&v->c.queue[0].driver))
			vhost_client_kick(&v->c, 0);
		drain(v);
	}
}

static int prepare(struct verify *v)
{
	const struct master_options *o = v->o;
	struct virtio_blk_config config;
	struct vhost_client_settings s = { .socket = o->socket, .queues = 1, .num = o->num, .table = o->no_indirect ? 0 : 4,
					   .event_idx = !o->no_event_idx, .inflight = !o->no_inflight,
					   .data_bytes = o->depth * (4096 + o->block_bytes) };
	int err = vhost_client_init(&v->c, &s);

	if (!err)
		err = spawn(v);
	if (!err)
		err = master_connect(&v->c, o, ANSWER_MS);
	if (!err)
		err = vhost_client_config(&v->c, &config);
	if (err)
		return err;
	v->blocks = config.capacity * 512 / o->block_bytes;
	if (o->span_bytes && o->span_bytes / o->block_bytes < v->blocks)
		v->blocks = o->span_bytes / o->block_bytes;
	v->random = o->seed * 0x9e3779b97f4a7c15u + 1;
	v->version = calloc(v->blocks + 1, sizeof(*v->version));
	v->block_busy = calloc(v->blocks + 1, sizeof(*v->block_busy));
	v->slot = calloc(o->depth, sizeof(*v->slot));
	v->slot_of_head = malloc(o->num * sizeof(*v->slot_of_head));
	if (!v->blocks || !v->version || !v->block_busy || !v->slot || !v->slot_of_head)
		return -ENOMEM;
	for (unsigned i = 0; i < o->num; i++)
		v->slot_of_head[i] = -1;
	return 0;
}

static int work(struct verify *v)
{
	uint64_t length = (uint64_t)(v->o->seconds * 1e9), begin = master_now_ns();
	uint64_t mean = v->o->kills ? length / v->o->kills : 0, next_kill = v->o->kills ? begin + mean / 2 : UINT64_MAX;

	while (!v->failed && (master_now_ns() - begin < length || v->killed < v->o->kills)) {
		submit_random(v);
		if (master_now_ns() >= next_kill && v->killed < v->o->kills) {
			int err = kill_and_go_on(v);
			if (err)
				return err;
			next_kill = master_now_ns() + master_random(&v->random) % (mean + 1);
		}
		wait_some(v, 5);
	}
	drain(v);
	if (!v->failed)
		read_all(v);
	return 0;
}

int master_verify(const struct master_options *o)
{
	struct verify v = { .o = o };

	if (o->kills && !o->spawn) {
		fprintf(stderr, "vhost-master: --kills needs --spawn: only what it started is killed\n");
		return 2;
	}
	printf("{\"seed\":%u", o->seed);
	int err = prepare(&v);
	if (!err) {
		write_everywhere(&v);
		err = v.failed ? -EIO : work(&v);
	}
	printf(",\"ops\":%" PRIu64 ",\"kills\":%" PRIu64 ",\"ok\":%s}\n", v.ops, v.killed, err || v.failed ? "false" : "true");
	if (err)
		fprintf(stderr, "vhost-master: %s\n", strerror(-err));
	vhost_client_done(&v.c);
	if (v.server > 0) {
		kill(v.server, SIGTERM);
		waitpid(v.server, NULL, 0);
	}
	free(v.version);
	free(v.block_busy);
	free(v.slot);
	free(v.slot_of_head);
	return err || v.failed;
}
