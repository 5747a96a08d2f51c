/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_TESTING_H
#define MALLEE_SVC_CLC_TESTING_H

#include <stddef.h>

#include "base/buf.h"
#include "base/id.h"
#include "gen/storage.h"
#include "svc/clc/accounts.h"
#include "svc/clc/clc_priv.h"

/* For the unit tests only: a controller without listeners and threads, on a state of its own, and a
 * cluster controller in the same process that does what a test tells it. */

enum { FAKE_MAX = 64 };

struct fake_cluster {
	const char *epoch;
	size_t capacity;  /* instances that it places at most */
	const char *place_on; /* the node; NULL: where it is already, or n1 */
	const char *fail; /* error code that every message gets; NULL: none */
	/* what it was told */
	size_t applied, full_applied, forgotten_count;
	size_t spec_count; /* of the last ApplyInstances, deep copies in arena */
	struct shared_instance_spec *specs;
	char forgotten[FAKE_MAX][ID_LEN];
	/* what it reports */
	struct shared_instance_observed observed[FAKE_MAX];
	size_t observed_count;
	int64_t revision;
	struct arena *arena;
};

/* The same of a storage controller. */
struct fake_storage {
	const char *epoch;
	const char *fail;  /* error code that every message gets; NULL: none */
	size_t stop_after; /* so many ApplyStorage: no more of them is taken; 0: all are */
	/* what it was told */
	size_t applied, full_applied, forgotten_count;
	size_t volume_count, snapshot_count; /* of the last ApplyStorage, deep copies in arena */
	struct storage_volume_spec *volumes;
	struct storage_snapshot_spec *snapshots;
	char forgotten[FAKE_MAX][ID_LEN];
	/* what it reports */
	struct storage_volume_observed seen_volumes[FAKE_MAX];
	struct storage_snapshot_observed seen_snapshots[FAKE_MAX];
	size_t seen_volume_count, seen_snapshot_count;
	int64_t revision;
	struct arena *arena;
};

struct fixture {
	char *folder;
	struct settings *settings;
	struct clc clc;
	struct fake_cluster cluster;
	struct fake_storage storage;
	struct arena *arena;
	struct account account; /* default */
};

struct fixture *fixture_new(void);
void fixture_free(struct fixture *f);

/* Run an API request given as a raw query string, without Version, as the account. The reply's XML
 * is in *reply. Returns the error's code, or "" (static until the next call). */
const char *fixture_call(struct fixture *f, const struct account *as, const char *query,
			 struct buf *reply);
/* An available image of the account, of so many bytes. */
const char *fixture_image(struct fixture *f, const struct account *owner, int64_t size_bytes);
/* A completed snapshot of the account, and an available image whose root, /dev/sda1, is made of one: of so many GiB. */
const char *fixture_snapshot(struct fixture *f, const struct account *owner, int64_t gib);
const char *fixture_ebs_image(struct fixture *f, const struct account *owner, int64_t gib);
/* A volume of the default account, available; and one that AttachVolume gave to an instance. */
const char *fixture_volume(struct fixture *f, int64_t gib);
const char *fixture_volume_of(struct fixture *f, const char *instance_id, const char *device);
/* RunInstances of one t2.nano of such an image, which then runs. */
const char *fixture_run_ebs(struct fixture *f, const char *extra);
/* RunInstances of count t2.nano; extra is more of the query string ("" for none). ids[] are in
 * f->arena. */
void fixture_run(struct fixture *f, size_t count, const char *extra, const char **ids);
struct records_image *fixture_get_image(struct fixture *f, const char *id);
struct records_snapshot *fixture_get_snapshot(struct fixture *f, const char *id);
struct records_volume *fixture_get_volume(struct fixture *f, const char *id);
/* The record of an instance, in f->arena; NULL when there is none. */
struct records_instance *fixture_instance(struct fixture *f, const char *id);
/* The cluster reports this state of an instance from now on. */
void fixture_report(struct fixture *f, const char *id, const char *state);
/* It also reports this state of one volume of it, or no volume any more (state NULL). */
void fixture_report_device(struct fixture *f, const char *id, const char *volume_id,
			   const char *state);
/* The storage reports this state of it from now on, as its record wants it to be; what it returns
 * may be changed. */
struct storage_volume_observed *fixture_report_volume(struct fixture *f, const char *id,
						      const char *state);
struct storage_snapshot_observed *fixture_report_snapshot(struct fixture *f, const char *id,
							  const char *state);
/* All the text between <name> and </name> of its n-th occurrence; NULL when there is none. */
const char *fixture_element(struct fixture *f, const char *xml, const char *name, size_t n);

#endif
