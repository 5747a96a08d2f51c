/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's driver on the command line of a test: a line in, a request on the ring of a vhost-user-blk back end, a line out.
 *
 *     write OFF LEN BYTE     ok | ioerr | unsupp | lost (no answer within half a minute)
 *     read OFF LEN BYTE      ok BAD, the number of bytes that are not BYTE | as above
 *     zeroes OFF LEN, discard OFF LEN, flush
 *     about                  read_only=… write_back=… size_bytes=…
 *     again                  connect anew, as a VMM does when the back end was started again; ok | its error
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/front/vhost_client.h"

#define LEN_MAX (1u << 20)
#define DATA_AT 4096u
#define STATUS_AT 1024u
#define RANGE_AT 512u
#define TRIES 1000 /* of 10 ms */
#define ANSWER_MS 30000

static int connect_to(struct vhost_client *c)
{
	int err = -ETIMEDOUT;

	vhost_client_disconnect(c);
	for (unsigned i = 0; err && i < TRIES; i++) {
		err = vhost_client_connect(c);
		if (!err)
			err = vhost_client_start(c);
		if (err)
			usleep(10000);
	}
	return err;
}

static const char *await(struct vhost_client *c)
{
	static const char *const names[] = { "ok", "ioerr", "unsupp" };
	uint32_t len;

	for (unsigned waited_ms = 0; vdriver_get(&c->queue[0].driver, &len) < 0; waited_ms += 10) {
		if (waited_ms >= ANSWER_MS)
			return "lost";
		vhost_client_wait(c, 0, 10);
	}
	uint8_t status = (uint8_t)c->data[STATUS_AT];
	return status < ARRAY_SIZE(names) ? names[status] : "nonsense";
}

static const char *request(struct vhost_client *c, uint32_t type, uint64_t off, uint32_t len)
{
	struct virtio_blk_outhdr h = { type, 0, type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_OUT ? off / 512 : 0 };
	struct virtio_blk_discard_write_zeroes range = { off / 512, len / 512, 0 };
	bool has_data = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_OUT;
	struct vdriver_buf b[3] = { { c->data_guest, sizeof(h), false }, { c->data_guest + DATA_AT, len, type == VIRTIO_BLK_T_IN },
				    { c->data_guest + STATUS_AT, 1, true } };

	memcpy(c->data, &h, sizeof(h));
	memcpy(c->data + RANGE_AT, &range, sizeof(range));
	c->data[STATUS_AT] = 0x77;
	if (type == VIRTIO_BLK_T_FLUSH)
		b[1] = b[2];
	else if (!has_data)
		b[1] = (struct vdriver_buf){ c->data_guest + RANGE_AT, sizeof(range), false };
	if (vdriver_add(&c->queue[0].driver, b, type == VIRTIO_BLK_T_FLUSH ? 2 : 3) < 0)
		return "full";
	if (vdriver_show(&c->queue[0].driver))
		vhost_client_kick(c, 0);
	return await(c);
}

static void about(struct vhost_client *c)
{
	struct virtio_blk_config config;

	if (vhost_client_config(c, &config))
		puts("none");
	else
		printf("read_only=%d write_back=%d size_bytes=%" PRIu64 "\n", !!(c->features & 1u << VIRTIO_BLK_F_RO), config.wce,
		       (uint64_t)config.capacity * 512);
}

static void read_and_count(struct vhost_client *c, uint64_t off, uint32_t len, unsigned byte)
{
	const char *status = request(c, VIRTIO_BLK_T_IN, off, len);
	unsigned bad = 0;

	if (strcmp(status, "ok")) {
		puts(status);
		return;
	}
	for (uint32_t i = 0; i < len; i++)
		bad += (uint8_t)c->data[DATA_AT + i] != (uint8_t)byte;
	printf("ok %u\n", bad);
}

static void obey(struct vhost_client *c, const char *line)
{
	unsigned long long off = 0;
	unsigned len = 0, byte = 0;
	char verb[16] = "";

	if (sscanf(line, "%15s %llu %u %u", verb, &off, &len, &byte) < 1 || len > LEN_MAX) {
		puts("nonsense");
	} else if (!strcmp(verb, "write")) {
		memset(c->data + DATA_AT, (int)byte, len);
		puts(request(c, VIRTIO_BLK_T_OUT, off, len));
	} else if (!strcmp(verb, "read")) {
		read_and_count(c, off, len, byte);
	} else if (!strcmp(verb, "flush")) {
		puts(request(c, VIRTIO_BLK_T_FLUSH, 0, 0));
	} else if (!strcmp(verb, "zeroes")) {
		puts(request(c, VIRTIO_BLK_T_WRITE_ZEROES, off, len));
	} else if (!strcmp(verb, "discard")) {
		puts(request(c, VIRTIO_BLK_T_DISCARD, off, len));
	} else if (!strcmp(verb, "about")) {
		about(c);
	} else if (!strcmp(verb, "again")) {
		int err = connect_to(c);
		puts(err ? strerror(-err) : "ok");
	} else {
		puts("nonsense");
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct vhost_client c;
	struct vhost_client_settings s = { .socket = argc > 1 ? argv[1] : "", .queues = 1, .num = 64, .table = 4, .event_idx = true, .inflight = true,
					   .data_bytes = DATA_AT + LEN_MAX };
	char line[256];
	int err = argc == 2 ? vhost_client_init(&c, &s) : -EINVAL;

	if (!err)
		err = connect_to(&c);
	if (err) {
		fprintf(stderr, "vhost_io SOCKET: %s\n", strerror(-err));
		return 1;
	}
	while (fgets(line, sizeof(line), stdin))
		obey(&c, line);
	vhost_client_done(&c);
	return 0;
}
