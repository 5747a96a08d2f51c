/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_NC_SC_DOUBLE_H
#define MALLEE_SVC_NC_SC_DOUBLE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "svc/nc/nc_fixture.h"

/* For tests: a storage controller that lets volumes be opened and closed, one holder each, and says no as it is told to. */
#define DOUBLE_VOLUMES 32
struct double_volume {
	char id[ID_LEN];
	char instance[ID_LEN]; /* "": nobody has it open */
	int64_t generation;
	int opens, releases, closes;
	const char *refuse; /* a code for OpenVolume; NULL: it may be opened */
	bool busy;	    /* for ReleaseVolume */
	bool held;	    /* what OpenVolume answers */
	const char *back, *cow, *throttle;
	const char *files[6]; /* NULL-terminated */
	char snap[256];
	int64_t size_bytes;
};

struct sc_double {
	struct fixture *fixture;
	struct tls_context *tls;
	struct rpc_server *rpc;
	pthread_mutex_t lock;
	struct double_volume volumes[DOUBLE_VOLUMES];
	size_t count;
	int calls;
};

struct sc_double *sc_double_new(struct fixture *f);
void sc_double_free(struct sc_double *d);
void sc_double_start(struct sc_double *d);
void sc_double_stop(struct sc_double *d);
/* A copy of what it knows of the volume. */
struct double_volume sc_double_see(struct sc_double *d, int number);
void sc_double_refuse(struct sc_double *d, int number, const char *code);
void sc_double_busy(struct sc_double *d, int number, bool busy);
void sc_double_hold(struct sc_double *d, int number, bool held);
/* Made when it is not there; not under the lock. */
struct double_volume *sc_double_volume(struct sc_double *d, int number);
const char *volume_id(struct fixture *f, int number);

#endif
