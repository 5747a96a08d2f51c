/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_SC_FIXTURE_H
#define MALLEE_SVC_SC_SC_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "block/core/stack.h"
#include "svc/sc/sc_priv.h"
#include "svc/sc/testkit_priv.h"

/*
 * For tests: a storage controller over a bucket in memory, and a node's double that serves volumes with real processes of
 * mallee-blockd. Snapshots are served by mallee-blockd out of files that they were copied to.
 */
struct sc_fixture {
	char dir[64];
	const char *blockd; /* the program */
	struct settings *settings;
	struct bucket bucket;
	struct sc *sc;
	struct arena *arena;
	int64_t generation; /* of specifications */
	/* the node's double */
	struct tls_context *node_tls;
	struct keeper *node;
	struct rpc_server *node_rpc;
	char node_url[64];
	_Atomic bool node_mute; /* its messages are not answered */
	_Atomic unsigned lose_ends; /* so many answers to EndView with Commit are lost */
	_Atomic unsigned begins, ends, changes;
};

#define MIB (1ull << 20)

/* hypervisor: "fake", or "tcg" for one whose volumes are accounted and filled. */
struct sc_fixture *sc_fixture_new(const char *blockd, const char *hypervisor);
void sc_fixture_free(struct sc_fixture *f);
void sc_fixture_start(struct sc_fixture *f);
void sc_fixture_restart(struct sc_fixture *f);

/* ---- wanted ---- */
struct fix_volume {
	const char *id, *snapshot, *instance; /* instance NULL: not attached */
	uint64_t size_bytes;
	int64_t attachment, iops;
	bool deleted;
};
void fix_volume(struct sc_fixture *f, const struct fix_volume *v);
struct fix_snapshot {
	const char *id, *volume, *copy_of, *url, *sha256;
	bool deleted;
};
void fix_snapshot(struct sc_fixture *f, const struct fix_snapshot *s);
void fix_forget(struct sc_fixture *f, const char *volume, const char *snapshot);

/* ---- what is ---- */
/* "" when it is not known. */
const char *fix_volume_state(struct sc_fixture *f, const char *id, struct storage_volume_observed *ret);
const char *fix_snapshot_state(struct sc_fixture *f, const char *id, struct storage_snapshot_observed *ret);
/* Fails the test when it does not come within 30 s. */
void fix_await_volume(struct sc_fixture *f, const char *id, const char *state);
void fix_await_snapshot(struct sc_fixture *f, const char *id, const char *state);
bool fix_until(bool (*fn)(struct sc_fixture *f, const void *arg), struct sc_fixture *f, const void *arg);

/* ---- the node ---- */
int fix_open(struct sc_fixture *f, const char *volume, const char *instance, int64_t generation, struct storage_open_volume_response *ret,
	     struct error *e);
/* Opened and served; "VolumeNotReady" is asked again for 30 s. */
void fix_attach(struct sc_fixture *f, const char *volume, const char *instance, int64_t generation);
void fix_detach(struct sc_fixture *f, const char *volume, int64_t generation);
void fix_kill(struct sc_fixture *f, const char *volume); /* its process; it comes again */
/* As a guest: through the process that serves it. */
void fix_write(struct sc_fixture *f, const char *volume, uint64_t off, const void *data, size_t len);
void fix_read(struct sc_fixture *f, const char *volume, uint64_t off, void *data, size_t len);
/* What is stored. */
void fix_read_snapshot(struct sc_fixture *f, const char *id, uint64_t size, void *data);

#endif
