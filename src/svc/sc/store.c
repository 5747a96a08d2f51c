/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/text.h"
#include "svc/sc/sc_priv.h"
#include "wire/codec.h"

#define META_BUCKET "bucket"

/* The kinds of the state's objects, and what their documents are. */
static const struct {
	const char *spec, *record;
	const struct wire_shape *spec_shape, *record_shape;
} kinds[] = {
	[SC_VOLUME] = { "volume-spec", "volume", &storage_shape_volume_spec, &records_shape_storage_volume },
	[SC_SNAPSHOT] = { "snapshot-spec", "snapshot", &storage_shape_snapshot_spec, &records_shape_storage_snapshot },
};

static int put(struct sc *sc, const char *kind, const char *id, const struct wire_shape *shape, const void *value, struct error *e)
{
	_cleanup_(buf_done) struct buf doc = BUF_INIT;
	struct state_object o = { .kind = kind, .id = id, .account = "" };

	wire_json_encode(shape, value, &doc);
	o.doc = doc.data;
	return state_put(sc->state, &o, e);
}

static const char *text(const char *s)
{
	return *s ? s : NULL;
}

int sc_store_spec(struct sc *sc, enum sc_kind kind, const char *id, const void *spec, struct error *e)
{
	return put(sc, kinds[kind].spec, id, kinds[kind].spec_shape, spec, e);
}

int sc_store_volume(struct sc *sc, const char *id, const struct sc_volume_record *rec, struct error *e)
{
	const struct sc_holder *h = &rec->holder;
	struct records_storage_holder holder = {
		.instance_id = h->instance_id,
		.node_id = h->node_id,
		.node_url = h->node_url,
		.generation = WIRE_INT_OF(h->generation),
		.open_throttle = text(h->open_throttle),
		.throttle = text(h->throttle),
		.releasing = WIRE_BOOL_OF(h->releasing),
	};
	struct records_storage_volume r = {
		.volume_id = id,
		.state = sc_volume_state_name(rec->state),
		.reason = text(rec->reason),
		.size_bytes = WIRE_INT_OF(rec->size_bytes),
		.device = text(rec->device),
		.key_id = text(rec->key_id),
		.wrapped_key = text(rec->wrapped_key),
		.filled = WIRE_BOOL_OF(rec->filled),
		.last_attachment = WIRE_INT_OF(rec->last_attachment),
		.growing_bytes = WIRE_INT_OF(rec->growing_bytes),
		.refused_generation = WIRE_INT_OF(rec->refused_generation),
		.holder = h->instance_id[0] ? &holder : NULL,
	};

	return put(sc, kinds[SC_VOLUME].record, id, kinds[SC_VOLUME].record_shape, &r, e);
}

int sc_store_snapshot(struct sc *sc, const char *id, const struct sc_snapshot_record *rec, struct error *e)
{
	const struct sc_view *v = &rec->view;
	struct records_storage_view view = {
		.node_id = text(v->node_id),
		.node_url = text(v->node_url),
		.generation = WIRE_INT_OF(v->generation),
		.begun = WIRE_BOOL_OF(v->begun),
		.sequence = WIRE_INT_OF(v->sequence),
		.socket = text(v->socket),
		.export = text(v->export_name),
		.base = text(v->base),
		.size_bytes = WIRE_INT_OF(v->size_bytes),
	};
	struct records_storage_snapshot r = {
		.snapshot_id = id,
		.state = sc_snapshot_state_name(rec->state),
		.reason = text(rec->reason),
		.size_bytes = WIRE_INT_OF(rec->size_bytes),
		.data_bytes = WIRE_INT_OF(rec->data_bytes),
		.parent = rec->parent_chosen ? rec->parent : NULL,
		.stored = WIRE_BOOL_OF(rec->stored),
		.view = v->set ? &view : NULL,
	};

	if (rec->begin_time_ms)
		r.begin_time = WIRE_TIME_OF(rec->begin_time_ms);
	return put(sc, kinds[SC_SNAPSHOT].record, id, kinds[SC_SNAPSHOT].record_shape, &r, e);
}

int sc_store_forget(struct sc *sc, enum sc_kind kind, const char *id, struct error *e)
{
	int r = state_delete(sc->state, kinds[kind].spec, id, e);

	if (r < 0 && r != -ENOENT)
		return r;
	r = state_delete(sc->state, kinds[kind].record, id, e);
	return r == -ENOENT ? 0 : r;
}

int sc_store_bucket(struct sc *sc, char out[static 64], struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	unsigned char random[16];
	char hex[33];
	const char *name;
	int r = state_meta_get(sc->state, a, META_BUCKET, &name);

	if (r == 0) {
		snprintf(out, 64, "%s", name);
		return 0;
	}
	if (r != -ENOENT)
		return error_errno(e, r, "cannot read the name of the snapshots' bucket");
	/* Whoever guessed it could make it first. */
	random_bytes(random, sizeof(random));
	hex_encode(random, sizeof(random), hex);
	snprintf(out, 64, "mallee-ebs-%s", hex);
	return state_meta_set(sc->state, META_BUCKET, out, e);
}

/* ---- reading ---- */

#define COPY(to, from) snprintf(to, sizeof(to), "%s", (from) ? (from) : "")

static int parse_volume(const struct records_storage_volume *r, struct sc_volume_record *rec, struct error *e)
{
	int state = SC_V_CREATING;

	while (state <= SC_V_ERROR && !str_eq(r->state, sc_volume_state_name((enum sc_volume_state)state)))
		state++;
	if (state > SC_V_ERROR)
		return error_set(e, "InternalError", "the record says state \"%s\"", r->state);
	rec->state = (enum sc_volume_state)state;
	COPY(rec->reason, r->reason);
	rec->size_bytes = r->size_bytes.value;
	COPY(rec->device, r->device);
	COPY(rec->key_id, r->key_id);
	COPY(rec->wrapped_key, r->wrapped_key);
	rec->filled = r->filled.value;
	rec->last_attachment = r->last_attachment.value;
	rec->growing_bytes = r->growing_bytes.value;
	rec->refused_generation = r->refused_generation.value;
	if (!r->holder)
		return 0;
	COPY(rec->holder.instance_id, r->holder->instance_id);
	COPY(rec->holder.node_id, r->holder->node_id);
	COPY(rec->holder.node_url, r->holder->node_url);
	rec->holder.generation = r->holder->generation.value;
	COPY(rec->holder.open_throttle, r->holder->open_throttle);
	COPY(rec->holder.throttle, r->holder->throttle);
	rec->holder.releasing = r->holder->releasing.value;
	return 0;
}

static int parse_snapshot(const struct records_storage_snapshot *r, struct sc_snapshot_record *rec, struct error *e)
{
	const struct records_storage_view *v = r->view;
	int state = SC_S_PENDING;

	while (state <= SC_S_DELETED && !str_eq(r->state, sc_snapshot_state_name((enum sc_snapshot_state)state)))
		state++;
	if (state > SC_S_DELETED)
		return error_set(e, "InternalError", "the record says state \"%s\"", r->state);
	rec->state = (enum sc_snapshot_state)state;
	COPY(rec->reason, r->reason);
	rec->begin_time_ms = r->begin_time.set ? r->begin_time.value : 0;
	rec->size_bytes = r->size_bytes.value;
	rec->data_bytes = r->data_bytes.value;
	rec->parent_chosen = r->parent != NULL;
	COPY(rec->parent, r->parent);
	rec->stored = r->stored.value;
	if (!v)
		return 0;
	rec->view = (struct sc_view){ .set = true, .begun = v->begun.value, .generation = v->generation.value,
				      .sequence = v->sequence.value, .size_bytes = v->size_bytes.value };
	COPY(rec->view.node_id, v->node_id);
	COPY(rec->view.node_url, v->node_url);
	COPY(rec->view.socket, v->socket);
	COPY(rec->view.export_name, v->export);
	COPY(rec->view.base, v->base);
	return 0;
}

static void enter_volume(struct sc *sc, const char *id, const struct sc_volume_record *rec, const struct storage_volume_spec *spec)
{
	pthread_mutex_lock(&sc->lock);
	struct sc_volume *v = sc_volume_of(sc_add(sc, SC_VOLUME, id));
	v->rec = *rec;
	sc_set_spec(&v->item, spec);
	bool source = spec->snapshot_id && !rec->filled, has_files = rec->state == SC_V_AVAILABLE || rec->state == SC_V_DELETING;
	v->wants_export = source && (rec->state == SC_V_CREATING || (has_files && rec->size_bytes));
	if (rec->size_bytes && rec->state != SC_V_DELETED)
		v->reserved_bytes = MAX_OF(rec->size_bytes, rec->growing_bytes);
	v->served = true; /* perhaps: reconciling finds out */
	sc_show(sc, &v->item);
	pthread_mutex_unlock(&sc->lock);
}

static void enter_snapshot(struct sc *sc, const char *id, const struct sc_snapshot_record *rec, const struct storage_snapshot_spec *spec)
{
	pthread_mutex_lock(&sc->lock);
	struct sc_snapshot *s = sc_snapshot_of(sc_add(sc, SC_SNAPSHOT, id));
	s->rec = *rec;
	s->begin_told = rec->begin_time_ms != 0;
	sc_set_spec(&s->item, spec);
	s->cancel = false; /* nothing is moved yet */
	sc->sequence = MAX_OF(sc->sequence, rec->view.sequence);
	sc_show(sc, &s->item);
	pthread_mutex_unlock(&sc->lock);
}

static int load_one(struct sc *sc, struct arena *a, enum sc_kind kind, const struct state_object *o, struct error *e)
{
	struct state_object record;
	void *spec, *rec = NULL;
	int r = wire_json_decode(a, kinds[kind].spec_shape, o->doc, strlen(o->doc), false, &spec, e);

	if (r == 0)
		r = state_get(sc->state, a, kinds[kind].record, o->id, &record, e);
	if (r == 0)
		r = wire_json_decode(a, kinds[kind].record_shape, record.doc, strlen(record.doc), false, &rec, e);
	if (r < 0)
		return r;
	if (kind == SC_VOLUME) {
		struct sc_volume_record v = { 0 };
		r = parse_volume(rec, &v, e);
		if (r == 0)
			enter_volume(sc, o->id, &v, spec);
	} else {
		struct sc_snapshot_record s = { 0 };
		r = parse_snapshot(rec, &s, e);
		if (r == 0)
			enter_snapshot(sc, o->id, &s, spec);
	}
	return r;
}

int sc_load(struct sc *sc, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();

	for (int kind = SC_VOLUME; kind <= SC_SNAPSHOT; kind++) {
		struct state_object *list;
		size_t count;
		int r = state_list(sc->state, a, kinds[kind].spec, NULL, 0, &list, &count, e);

		if (r < 0)
			return r;
		for (size_t i = 0; i < count; i++) {
			struct error why = { 0 };
			/* One damaged record must not keep the others from being looked after. */
			if (load_one(sc, a, (enum sc_kind)kind, &list[i], &why) < 0)
				log_error("a record cannot be read: it is left alone", "kind=%s id=%s err=%s", kinds[kind].record,
					  list[i].id, log_quote(why.message));
		}
	}
	return 0;
}
