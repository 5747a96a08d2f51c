/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FRONT_VHOST_CLIENT_H
#define MALLEE_BLOCK_FRONT_VHOST_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/virtio_blk.h>

#include "block/front/vhost_wire.h"
#include "block/virtio/vdriver.h"

/*
 * The other end of vhost-user-blk, as a VMM and its guest in one: for tests and the benchmark. Everything blocks, and the back
 * end is trusted. It survives its back end's death: vhost_client_connect() again, vhost_client_start() again.
 */
#define VHOST_CLIENT_QUEUES 16u
#define VHOST_CLIENT_BASE UINT64_C(0x40000000) /* where the memory begins to the guest */

struct vhost_client_settings {
	const char *socket;
	unsigned queues, num, table; /* of each queue: descriptors; of an indirect table, 0: none */
	bool event_idx;
	bool inflight;               /* use in-flight memory where the back end has it */
	uint64_t features_off;       /* not to be negotiated */
	uint64_t data_bytes;         /* of memory for buffers */
};

struct vhost_client {
	struct vhost_client_settings set;
	int fd, back_fd;             /* back_fd: our end of the back end's own requests */
	uint64_t features, protocol_features;
	int memory_fd;
	char *memory;
	uint64_t memory_bytes;
	char *data;                  /* data_bytes, page-aligned */
	uint64_t data_guest;
	int inflight_fd;
	struct vhost_inflight inflight;
	struct {
		int kick, call;
		struct vdriver driver;
		bool running;
	} queue[VHOST_CLIENT_QUEUES];
};

/* Makes the memory and the eventfds. Negative errno. */
int vhost_client_init(struct vhost_client *c, const struct vhost_client_settings *s);
void vhost_client_done(struct vhost_client *c);
/* Connects and negotiates. -ECONNREFUSED, -ENOENT …: nobody is there (yet). */
int vhost_client_connect(struct vhost_client *c);
void vhost_client_disconnect(struct vhost_client *c);
/* Hands over memory (that of the requests in flight first) and all queues. The first time queues begin at 0. */
int vhost_client_start(struct vhost_client *c);
int vhost_client_start_queue(struct vhost_client *c, unsigned index, uint16_t base);
/* GET_VRING_BASE. */
int vhost_client_stop_queue(struct vhost_client *c, unsigned index, uint16_t *ret_base);

/* One message, its acknowledgement or its answer (into *answer when it is not NULL). */
int vhost_client_tell(struct vhost_client *c, uint32_t request, const void *payload, uint32_t size, const int *fds, unsigned fd_count);
int vhost_client_ask(struct vhost_client *c, uint32_t request, const void *payload, uint32_t size, struct vhost_msg *answer);
int vhost_client_config(struct vhost_client *c, struct virtio_blk_config *ret);
int vhost_client_set_wce(struct vhost_client *c, bool on);

void vhost_client_kick(struct vhost_client *c, unsigned queue);
bool vhost_client_wait(struct vhost_client *c, unsigned queue, int timeout_ms); /* for a call; false: none came */

#endif
