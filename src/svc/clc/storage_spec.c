/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "svc/clc/reconcile.h"
#include "svc/clc/volumes.h"

enum { IMPORT_URL_VALID_S = 24 * 3600 };

/* Only the one that holds it may open a volume: the instance, where it is, that attachment. */
static int attachment(struct clc *c, struct arena *a, const struct records_volume *v,
		      struct storage_volume_attachment **ret, struct error *e)
{
	struct record rec;

	*ret = NULL;
	if (!v->instance_id)
		return 0;
	int r = record_get(c, a, KIND_INSTANCE, v->instance_id, &rec, e);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	const struct records_instance *i = rec.value;
	const struct records_instance_block_device *d = device_of_volume(i, v->volume_id);
	if (!d || !i->node_id)
		return 0;
	*ret = arena_new_struct(a, struct storage_volume_attachment);
	**ret = (struct storage_volume_attachment){
	    .instance_id = i->instance_id,
	    .node_id = i->node_id,
	    .generation = d->generation,
	};
	return 0;
}

static struct wire_int unless_zero(uint64_t value)
{
	return (struct wire_int){.set = value != 0, .value = (int64_t)value};
}

/* A record whose type says nothing is one of a newer version, or damaged: no limits then. */
static struct storage_volume_limits *limits(struct arena *a, const struct volume_shape *shape)
{
	struct storage_volume_limits *out = arena_new_struct(a, struct storage_volume_limits);
	const struct volume_type *t = volume_type_find(shape->type);
	struct volume_limits l;
	struct error e = {0};

	if (!t ||
	    volume_type_limits(t, (uint64_t)shape->size_gib,
			       volume_type_takes_iops(t) ? (uint64_t)shape->iops : 0,
			       volume_type_takes_throughput(t) ? (uint64_t)shape->mib_per_s : 0, &l,
			       &e) < 0)
		return out;
	*out = (struct storage_volume_limits){
	    .iops = unless_zero(l.iops),
	    .burst_iops = unless_zero(l.burst_iops),
	    .bytes_per_second = unless_zero(l.bytes_per_s),
	    .burst_bytes_per_second = unless_zero(l.burst_bytes_per_s),
	    .burst_seconds = unless_zero(l.burst_s),
	    .io_bytes = unless_zero(l.io_bytes),
	};
	return out;
}

int volume_spec(struct clc *c, struct arena *a, const struct records_volume *v,
		struct storage_volume_spec *ret, struct error *e)
{
	const struct volume_shape shape = volume_wanted_shape(v);
	struct storage_volume_spec s = {
	    .volume_id = v->volume_id,
	    .generation = v->generation,
	    .wanted = v->wanted,
	    .account_id = v->account_id,
	    .size_bytes = WIRE_INT_OF(shape.size_gib << 30),
	    .snapshot_id = v->snapshot_id,
	    .volume_type = shape.type,
	    .encrypted = v->encrypted,
	    .limits = limits(a, &shape),
	};
	int r = attachment(c, a, v, &s.attachment, e);

	if (r >= 0)
		*ret = s;
	return r;
}

/* An import whose account has no key is told without a way to its object: the storage controller
 * then says why it failed. */
static int import(struct clc *c, struct arena *a, const struct records_snapshot *s,
		  struct storage_snapshot_import **ret, struct error *e)
{
	struct storage_snapshot_import *out = arena_new_struct(a, struct storage_snapshot_import);

	out->location = s->import_location;
	out->url = "";
	*ret = out;
	int r = identity_presign(c, a, s->account_id, s->import_location, IMPORT_URL_VALID_S,
				 &out->url, e);
	return r == -ENOENT ? 0 : r;
}

int snapshot_spec(struct clc *c, struct arena *a, const struct records_snapshot *s,
		  struct storage_snapshot_spec *ret, struct error *e)
{
	struct storage_snapshot_spec out = {
	    .snapshot_id = s->snapshot_id,
	    .generation = s->generation,
	    .wanted = s->wanted,
	    .account_id = s->account_id,
	    .copy_of = s->copy_of,
	    .encrypted = s->encrypted,
	};
	int r = 0;

	if (s->import_location)
		r = import(c, a, s, &out.import, e);
	else if (!s->copy_of)
		out.volume_id = s->volume_id;
	if (r >= 0)
		*ret = out;
	return r;
}
