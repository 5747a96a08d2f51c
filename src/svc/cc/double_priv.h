/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CC_DOUBLE_PRIV_H
#define MALLEE_SVC_CC_DOUBLE_PRIV_H

#include <pthread.h>

#include "gen/shared.h"
#include "wire/rpc.h"

/*
 * A node for tests, which speaks the real messages over real connections and does what it is told
 * at once: an instance wanted running is reported as running, one wanted stopped as stopped.
 * It can be made to misbehave.
 */
struct double_instance {
	char id[64], state[32];
	int64_t generation, revision;
};

struct node_double {
	char id[64], dir[128], url[64];
	struct tls_context *tls;
	struct rpc_server *server;
	uint16_t port;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stopping;
	char epoch[40];
	int64_t revision;
	struct double_instance *instances;
	size_t count, room;
	int64_t vcpus, memory_mib, disk_mib;

	/* What it was told, and how it is to misbehave. */
	_Atomic int fulls, last_apply_count;
	_Atomic int refuse_forgets;    /* so many times */
	const char *_Atomic refuse_id; /* every ApplyInstances that names it */
	bool obey; /* change states as told; else only remember the generation */
};

struct node_double *double_new(const char *certs, const char *id);
void double_start(struct node_double *d);
void double_stop(struct node_double *d);
void double_free(struct node_double *d);
/* State of an instance as the node has it, "" when it has none such; into out (32 bytes). */
void double_state(struct node_double *d, const char *id, char *out);
void double_set_state(struct node_double *d, const char *id, const char *state);

#endif
