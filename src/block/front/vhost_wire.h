/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FRONT_VHOST_WIRE_H
#define MALLEE_BLOCK_FRONT_VHOST_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * vhost-user's messages (QEMU, docs/interop/vhost-user). Numbers are in the machine's order: it is a protocol of one machine.
 */
enum vhost_request {
	VHOST_GET_FEATURES = 1,
	VHOST_SET_FEATURES = 2,
	VHOST_SET_OWNER = 3,
	VHOST_RESET_OWNER = 4,
	VHOST_SET_MEM_TABLE = 5,
	VHOST_SET_VRING_NUM = 8,
	VHOST_SET_VRING_ADDR = 9,
	VHOST_SET_VRING_BASE = 10,
	VHOST_GET_VRING_BASE = 11,
	VHOST_SET_VRING_KICK = 12,
	VHOST_SET_VRING_CALL = 13,
	VHOST_SET_VRING_ERR = 14,
	VHOST_GET_PROTOCOL_FEATURES = 15,
	VHOST_SET_PROTOCOL_FEATURES = 16,
	VHOST_GET_QUEUE_NUM = 17,
	VHOST_SET_VRING_ENABLE = 18,
	VHOST_SET_BACKEND_REQ_FD = 21,
	VHOST_GET_CONFIG = 24,
	VHOST_SET_CONFIG = 25,
	VHOST_GET_INFLIGHT_FD = 31,
	VHOST_SET_INFLIGHT_FD = 32,
	VHOST_RESET_DEVICE = 34,
	VHOST_GET_MAX_MEM_SLOTS = 36,
	VHOST_ADD_MEM_REG = 37,
	VHOST_REM_MEM_REG = 38,
	VHOST_REQUESTS
};
enum { VHOST_BACKEND_CONFIG_CHANGE = 2 }; /* of ours to the peer */

enum vhost_protocol_feature {
	VHOST_PF_MQ = 0,
	VHOST_PF_REPLY_ACK = 3,
	VHOST_PF_BACKEND_REQ = 5,
	VHOST_PF_CONFIG = 9,
	VHOST_PF_INFLIGHT_SHMFD = 12,
	VHOST_PF_RESET_DEVICE = 13,
	VHOST_PF_CONFIGURE_MEM_SLOTS = 15,
};
#define VHOST_F_PROTOCOL_FEATURES 30

#define VHOST_VERSION 1u
#define VHOST_VERSION_MASK 3u
#define VHOST_FLAG_REPLY (1u << 2)
#define VHOST_FLAG_NEED_REPLY (1u << 3)
#define VHOST_NO_FD (1u << 8)       /* of SET_VRING_KICK, CALL, ERR */
#define VHOST_INDEX_MASK 0xffu
#define VHOST_FDS_MAX 8u
#define VHOST_CONFIG_MAX 256u
#define VHOST_CONFIG_MIGRATION 1u   /* flags of SET_CONFIG */

struct vhost_state {
	uint32_t index, num;
};
struct vhost_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
};
struct vhost_region {
	uint64_t guest, size, user, fd_off;
};
struct vhost_memory {
	uint32_t count, padding;
	struct vhost_region region[VHOST_FDS_MAX];
};
struct vhost_one_region {
	uint64_t padding;
	struct vhost_region region;
};
struct vhost_config {
	uint32_t off, size, flags;
	uint8_t data[VHOST_CONFIG_MAX];
};
struct vhost_inflight {
	uint64_t map_bytes, map_off;
	uint16_t queues, size;
	uint32_t padding; /* the compiler's, with peers that do not pack the struct: 20 or 24 bytes */
};
#define VHOST_INFLIGHT_BYTES 20u

struct vhost_header {
	uint32_t request, flags, size;
};
struct vhost_msg {
	struct vhost_header h;
	union {
		uint64_t u64;
		struct vhost_state state;
		struct vhost_addr addr;
		struct vhost_memory memory;
		struct vhost_one_region one;
		struct vhost_config config;
		struct vhost_inflight inflight;
		char bytes[512];
	} p;
	int fd[VHOST_FDS_MAX];
	unsigned fds;
};

void vhost_msg_close(struct vhost_msg *m); /* its descriptors */
int vhost_msg_take_fd(struct vhost_msg *m); /* the first; -1 */

/* One end of a connection, and the message that is coming in. */
struct vhost_channel {
	int fd;
	struct vhost_msg in;
	size_t got;
};

/* Reads on; never blocks unless the socket does. 1: c->in is whole; 0: not yet; -ECONNRESET: the peer has gone; -EBADMSG: no
 * message, or too many descriptors. After a whole message the next call begins anew: whoever takes it clears its fds. */
int vhost_receive(struct vhost_channel *c);
/* With up to one descriptor (-1: none). The peer is expected to read what it asked for: -EAGAIN when it does not. */
int vhost_send(int fd, uint32_t request, uint32_t flags, const void *payload, uint32_t size, const int *fds, unsigned fd_count);

#endif
