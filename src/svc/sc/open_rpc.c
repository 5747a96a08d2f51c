/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has a volume open. A holder is recorded before it is answered, and goes when it says that nobody serves the volume there any
 * more: until then no other is let in, whatever the cloud controller wants by then.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "os/locked.h"
#include "svc/sc/sc_priv.h"

#define TAKE_MS 3000
#define OPENING_MS 30000 /* for so long nothing of our own is begun on a volume that somebody wants to open */

static int stale(const struct storage_open_volume_request *in, const char *why, struct error *e)
{
	return error_set(e, "StaleAttachment", "Volume %s is not to be opened by %s for attachment %" PRId64 ": %s", in->volume_id,
			 in->instance_id, in->generation.value, why);
}

/* Whether this is the attachment that is wanted. */
static int check_attachment(const struct sc_volume *v, const struct storage_open_volume_request *in, struct error *e)
{
	const struct storage_volume_attachment *at = sc_volume_spec(v)->attachment;
	int64_t last = MAX_OF(v->rec.last_attachment, at ? at->generation.value : 0);

	if (in->generation.value > last) /* the node heard of it before we did */
		return error_set(e, "VolumeNotReady", "Volume %s: its attachment %" PRId64 " is not known here yet", in->volume_id,
				 in->generation.value);
	if (!at || at->generation.value != in->generation.value)
		return stale(in, "it has ended", e);
	if (!str_eq(at->instance_id, in->instance_id) || !str_eq(at->node_id, in->node_id))
		return stale(in, "it is another instance's, or another node's", e);
	return 0;
}

static bool same_holder(const struct sc_holder *h, const char *node_id, int64_t generation)
{
	return h->instance_id[0] && h->generation == generation && str_eq(h->node_id, node_id);
}

static int check_ready(const struct sc *sc, const struct sc_volume *v, const struct storage_open_volume_request *in, struct error *e)
{
	const struct sc_volume_record *rec = &v->rec;
	const struct sc_holder *h = &rec->holder;

	if (v->item.deleted || rec->state == SC_V_DELETING || rec->state == SC_V_DELETED)
		return error_set(e, "VolumeNotFound", "Volume %s is deleted", in->volume_id);
	if (h->instance_id[0] && !(same_holder(h, in->node_id, in->generation.value) && str_eq(h->instance_id, in->instance_id)))
		return error_set(e, "VolumeInUse", "Volume %s is still open on node %s, for attachment %" PRId64, in->volume_id, h->node_id,
				 h->generation);
	if (rec->state != SC_V_AVAILABLE)
		return error_set(e, "VolumeNotReady", "Volume %s is %s%s%.200s", in->volume_id, sc_volume_state_name(rec->state),
				 rec->reason[0] ? ": " : "", rec->reason);
	if (!h->instance_id[0] && v->served && !sc->fake)
		return error_set(e, "VolumeNotReady", "Volume %s is in use by the storage controller, which is letting go of it", in->volume_id);
	return 0;
}

static int set_holder(struct sc *sc, struct sc_volume *v, const struct sc_holder *h, struct error *e)
{
	struct sc_volume_record rec = v->rec;

	rec.holder = *h;
	int r = sc_store_volume(sc, v->item.id, &rec, e);
	if (r < 0)
		return r;
	pthread_mutex_lock(&sc->lock);
	v->rec = rec;
	v->looked_mono_ms = 0;
	sc_show(sc, &v->item);
	sc_kick_snapshots(sc, v->item.id);
	pthread_mutex_unlock(&sc->lock);
	return 0;
}

static void cancel_upload(struct sc *sc, struct sc_item *item, void *volume_id)
{
	const struct sc_snapshot *s = sc_snapshot_of(item);

	if (item->kind == SC_SNAPSHOT && s->writer && s->rec.view.set && !s->rec.view.node_id[0] && str_eq(sc_snapshot_spec(s)->volume_id, volume_id))
		snap_writer_cancel(s->writer);
}

/* Lock. Snapshots that were frozen in a process of ours, which has ended: they are frozen anew where the volume is open. */
static void move_snapshots(struct sc *sc, struct sc_volume *v)
{
	if (!sc->fake)
		sc_each(sc, cancel_upload, v->item.id);
	sc_kick_snapshots(sc, v->item.id);
}

static int record_holder(struct sc *sc, struct sc_volume *v, const struct storage_open_volume_request *in, struct error *e)
{
	struct sc_volume_record rec = v->rec;
	struct sc_holder *h = &rec.holder;

	if (h->instance_id[0] && !h->releasing)
		return 0;
	if (h->instance_id[0]) { /* stopped and started again while a snapshot was read: it is not closed after all */
		struct sc_holder again = *h;

		again.releasing = false;
		return set_holder(sc, v, &again, e);
	}
	if (strlen(in->node_url) >= sizeof(h->node_url) || !str_prefix(in->node_url, "https://"))
		return error_set(e, "InvalidParameterValue", "NodeUrl");
	*h = (struct sc_holder){ .generation = in->generation.value };
	snprintf(h->instance_id, sizeof(h->instance_id), "%s", in->instance_id);
	snprintf(h->node_id, sizeof(h->node_id), "%s", in->node_id);
	snprintf(h->node_url, sizeof(h->node_url), "%s", in->node_url);
	sc_print_throttle(sc_volume_spec(v)->limits, h->open_throttle);
	memcpy(h->throttle, h->open_throttle, sizeof(h->throttle));
	rec.last_attachment = MAX_OF(rec.last_attachment, h->generation);
	int r = sc_store_volume(sc, v->item.id, &rec, e);
	if (r < 0)
		return r;
	pthread_mutex_lock(&sc->lock);
	v->rec = rec;
	sc_show(sc, &v->item);
	pthread_mutex_unlock(&sc->lock);
	log_info("a volume was opened", "id=%s instance=%s node=%s generation=%" PRId64, v->item.id, in->instance_id, in->node_id,
		 in->generation.value);
	return 0;
}

static void answer(struct sc *sc, struct arena *a, const struct sc_volume *v, struct storage_open_volume_response *out)
{
	struct sc_stack s;
	size_t n = 0;

	sc_describe_stack(sc, a, v->item.id, v->rec.device, sc_volume_spec(v)->snapshot_id, &s);
	while (s.files[n])
		n++;
	*out = (struct storage_open_volume_response){
		.key = out->key,
		.size_bytes = WIRE_INT_OF(v->rec.size_bytes),
		.back = s.back,
		.throttle = arena_strdup(a, v->rec.holder.open_throttle),
		.snap = s.snap,
		.cow = s.cow,
		.files = { .set = true, .count = n, .items = (void *)s.files },
		.held = WIRE_BOOL_OF(sc_snapshots_to_freeze(sc, v)),
	};
}

/* What is to be encrypted is never told without its key. */
static int tell_key(struct sc *sc, struct arena *a, const struct sc_volume *v, struct storage_open_volume_response *out, struct error *e)
{
	_cleanup_(locked_freep) void *key = NULL;
	char *hex;

	if (!v->rec.key_id[0] && !sc_volume_spec(v)->encrypted.value)
		return 0;
	key = locked_new(KEY_VOLUME_BYTES);
	int r = key ? sc_key_reveal(sc, v->item.id, &v->rec, key, e) : error_errno(e, ENOMEM, "the key of %s", v->item.id);
	if (r)
		return error_is_set(e) ? -EREMOTEIO : r;
	hex = arena_alloc(a, 2 * KEY_VOLUME_BYTES + 1);
	hex_encode(key, KEY_VOLUME_BYTES, hex);
	out->key = hex;
	return 0;
}

static struct sc_volume *take_volume(struct sc *sc, const char *id, struct error *e)
{
	bool known;
	struct sc_item *item = sc_take(sc, id, TAKE_MS, &known);

	if (item && item->kind == SC_VOLUME)
		return sc_volume_of(item);
	if (item)
		sc_give_back(sc, item, false);
	if (!known || item)
		error_set(e, "VolumeNotFound", "There is no volume %.40s", id);
	else
		error_set(e, "VolumeNotReady", "Volume %s is being worked on", id);
	return NULL;
}

int storage_open_volume(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_open_volume_request *in,
			struct storage_open_volume_response *out, struct error *e)
{
	struct sc *sc = ctx;
	struct sc_volume *v;
	int r;

	if (peer && !str_eq(peer->id, in->node_id))
		return stale(in, "the certificate is another node's", e);
	v = take_volume(sc, in->volume_id, e);
	if (!v && str_eq(e->code, "VolumeNotFound")) { /* the node heard of a launch's volume before we did */
		error_clear(e);
		return error_set(e, "VolumeNotReady", "Volume %.40s is not known here yet", in->volume_id);
	}
	if (!v)
		return -EREMOTEIO;
	pthread_mutex_lock(&sc->lock);
	r = check_attachment(v, in, e);
	if (r == 0) {
		v->opening_until_mono_ms = sc->fake ? 0 : clock_mono_ms() + OPENING_MS;
		r = check_ready(sc, v, in, e);
	}
	pthread_mutex_unlock(&sc->lock);
	if (r == 0)
		r = tell_key(sc, a, v, out, e);
	if (r == 0)
		r = record_holder(sc, v, in, e);
	if (r == 0) {
		pthread_mutex_lock(&sc->lock);
		v->opening_until_mono_ms = 0;
		answer(sc, a, v, out);
		move_snapshots(sc, v);
		pthread_mutex_unlock(&sc->lock);
	}
	sc_give_back(sc, &v->item, true); /* what stands in the way is to go; or there is somebody to be asked now */
	return r;
}

/* ---- closing ---- */

static int check_peer(const struct tls_identity *peer, const struct storage_volume_holder *in, struct error *e)
{
	if (!peer || str_eq(peer->id, in->node_id))
		return 0;
	return error_set(e, "StaleAttachment", "Volume %.40s: the certificate is another node's", in->volume_id);
}

struct views_there {
	const struct sc_volume *volume;
	bool any;
};

static void find_view(struct sc *sc, struct sc_item *item, void *ctx)
{
	struct views_there *x = ctx;
	const struct sc_snapshot *s = sc_snapshot_of(item);

	if (item->kind == SC_SNAPSHOT && s->rec.view.set && s->rec.view.node_id[0] && str_eq(sc_snapshot_spec(s)->volume_id, x->volume->item.id))
		x->any = true;
}

int storage_release_volume(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_volume_holder *in,
			   struct error *e)
{
	struct sc *sc = ctx;
	struct sc_volume *v;
	struct views_there there = { 0 };
	int r = check_peer(peer, in, e);

	if (r < 0)
		return r;
	v = take_volume(sc, in->volume_id, e);
	if (!v)
		return str_eq(e->code, "VolumeNotFound") ? error_clear(e), 0 : -EREMOTEIO;
	if (same_holder(&v->rec.holder, in->node_id, in->generation.value)) {
		struct sc_holder h = v->rec.holder;
		h.releasing = true;
		r = v->rec.holder.releasing ? 0 : set_holder(sc, v, &h, e);
		there.volume = v;
		pthread_mutex_lock(&sc->lock);
		if (r == 0)
			sc_each(sc, find_view, &there);
		pthread_mutex_unlock(&sc->lock);
		if (there.any)
			r = error_set(e, "VolumeBusy", "A snapshot is being read from volume %s", in->volume_id);
	}
	sc_give_back(sc, &v->item, false);
	return r;
}

int storage_close_volume(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_volume_holder *in,
			 struct error *e)
{
	static const struct sc_holder nobody;
	struct sc *sc = ctx;
	struct sc_volume *v;
	int r = check_peer(peer, in, e);

	if (r < 0)
		return r;
	v = take_volume(sc, in->volume_id, e);
	if (!v)
		return str_eq(e->code, "VolumeNotFound") ? error_clear(e), 0 : -EREMOTEIO;
	if (same_holder(&v->rec.holder, in->node_id, in->generation.value)) {
		r = set_holder(sc, v, &nobody, e);
		if (r == 0)
			log_info("a volume was closed", "id=%s node=%s generation=%" PRId64, v->item.id, in->node_id, in->generation.value);
	}
	sc_give_back(sc, &v->item, true);
	return r;
}
