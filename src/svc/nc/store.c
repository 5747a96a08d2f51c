/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/text.h"
#include "svc/nc/nc_priv.h"
#include "wire/codec.h"

#define KIND_SPEC "instance"
#define KIND_RECORD "record"
#define KIND_VOLUME "volume"
#define META_HELD "held"

int nc_store_put(struct nc *nc, const char *kind, const char *id, const struct wire_shape *shape,
		 const void *value, struct error *e)
{
	struct buf doc = BUF_INIT;
	struct state_object o = {.kind = kind, .id = id, .account = ""};
	int r;

	wire_json_encode(shape, value, &doc);
	o.doc = doc.data;
	r = state_put(nc->state, &o, e);
	buf_done(&doc);
	return r;
}

int nc_store_spec(struct nc *nc, const struct shared_instance_spec *spec, struct error *e)
{
	return nc_store_put(nc, KIND_SPEC, spec->instance_id, &shared_shape_instance_spec, spec, e);
}

int nc_store_record(struct nc *nc, const char *id, const struct nc_record *rec, struct error *e)
{
	struct records_node_instance r = {
	    .instance_id = id,
	    .slot = WIRE_INT_OF(rec->slot),
	    .state = nc_state_name(rec->state),
	    .end_reason_code = rec->end_code[0] ? rec->end_code : NULL,
	    .end_reason_message = rec->end_message[0] ? rec->end_message : NULL,
	    .reboot_generation = WIRE_INT_OF(rec->reboot_done),
	    .boot_id = rec->boot_id[0] ? rec->boot_id : NULL,
	};

	if (rec->guest_off)
		r.guest_off_generation = WIRE_INT_OF(rec->guest_off);
	if (rec->asked_off_ms)
		r.asked_off_time = WIRE_TIME_OF(rec->asked_off_ms);
	return nc_store_put(nc, KIND_RECORD, id, &records_shape_node_instance, &r, e);
}

int nc_store_forget(struct nc *nc, const char *id, struct error *e)
{
	int r = state_delete(nc->state, KIND_SPEC, id, e);

	if (r < 0 && r != -ENOENT)
		return r;
	r = state_delete(nc->state, KIND_RECORD, id, e);
	return r == -ENOENT ? 0 : r;
}

int nc_store_volume(struct nc *nc, const struct records_node_volume *v, struct error *e)
{
	return nc_store_put(nc, KIND_VOLUME, v->volume_id, &records_shape_node_volume, v, e);
}

int nc_read_volume(struct nc *nc, const char *id, struct arena *a, struct records_node_volume **ret, struct error *e)
{
	struct state_object o;
	int r = state_get(nc->state, a, KIND_VOLUME, id, &o, e);

	return r < 0 ? r : wire_json_decode(a, &records_shape_node_volume, o.doc, strlen(o.doc), false, (void **)ret, e);
}

int nc_store_forget_volume(struct nc *nc, const char *id, struct error *e)
{
	int r = state_delete(nc->state, KIND_VOLUME, id, e);

	return r == -ENOENT ? 0 : r;
}

int nc_store_hold(struct nc *nc, bool held, int64_t deadline_ms, struct error *e)
{
	char text[32] = "";

	if (held)
		snprintf(text, sizeof(text), "%" PRId64, deadline_ms);
	return state_meta_set(nc->state, META_HELD, text, e);
}

enum nc_wanted nc_parse_wanted(const struct shared_instance_spec *spec)
{
	if (str_eq(spec->wanted, "running"))
		return NC_WANT_RUNNING;
	return str_eq(spec->wanted, "stopped") ? NC_WANT_STOPPED : NC_WANT_TERMINATED;
}

bool nc_is_ebs(const struct shared_instance_spec *spec)
{
	return str_eq(spec->root_device_type, "ebs");
}

static int parse_state(const char *name, enum nc_state *ret)
{
	for (int s = NC_PENDING; s <= NC_TERMINATED; s++)
		if (str_eq(name, nc_state_name((enum nc_state)s))) {
			*ret = (enum nc_state)s;
			return 0;
		}
	return -EINVAL;
}

static void copy_text(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from ? from : "");
}

static int decode_record(struct arena *a, const char *doc, struct nc_record *ret, struct error *e)
{
	struct records_node_instance *r;
	int err = wire_json_decode(a, &records_shape_node_instance, doc, strlen(doc), false,
				   (void **)&r, e);

	if (err < 0)
		return err;
	*ret = (struct nc_record){
	    .slot = r->slot.value >= 0 && r->slot.value < NC_SLOTS ? (int)r->slot.value : -1,
	    .reboot_done = r->reboot_generation.value,
	    .asked_off_ms = r->asked_off_time.set ? r->asked_off_time.value : 0,
	    .guest_off = r->guest_off_generation.set ? r->guest_off_generation.value : 0,
	};
	copy_text(ret->end_code, sizeof(ret->end_code), r->end_reason_code);
	copy_text(ret->end_message, sizeof(ret->end_message), r->end_reason_message);
	copy_text(ret->boot_id, sizeof(ret->boot_id), r->boot_id);
	if (parse_state(r->state, &ret->state) < 0)
		return error_set(e, "InternalError", "the record says state \"%s\"", r->state);
	return 0;
}

/* Records without a specification are of an instance that was being forgotten. */
static int load_one(struct nc *nc, struct arena *a, const struct state_object *o, struct error *e)
{
	struct shared_instance_spec *spec;
	struct state_object rec_object;
	struct nc_record rec;
	struct nc_instance *inst;
	int r = wire_json_decode(a, &shared_shape_instance_spec, o->doc, strlen(o->doc), false,
				 (void **)&spec, e);

	if (r == 0)
		r = state_get(nc->state, a, KIND_RECORD, o->id, &rec_object, e);
	if (r == 0)
		r = decode_record(a, rec_object.doc, &rec, e);
	if (r < 0)
		return r;
	pthread_mutex_lock(&nc->lock);
	inst = nc_add(nc, o->id, &rec);
	nc_set_spec(inst, spec);
	if (rec.state == NC_RUNNING)
		nc_set_reach(nc, inst,
			     nc->ops && nc->ops->fakes_network ? NC_REACH_OK
							       : NC_REACH_INITIALIZING);
	nc_show(nc, inst);
	pthread_mutex_unlock(&nc->lock);
	return 0;
}

static int load_hold(struct nc *nc, struct arena *a, struct error *e)
{
	const char *text;
	int r = state_meta_get(nc->state, a, META_HELD, &text);

	if (r == -ENOENT || (r == 0 && !*text))
		return 0;
	if (r == 0)
		r = parse_i64(text, 0, INT64_MAX, &nc->held_deadline_ms);
	if (r < 0)
		return error_errno(e, r, "cannot read whether the node is drained");
	nc->held = true;
	return 0;
}

int nc_load(struct nc *nc, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct state_object *list;
	size_t count;
	int r = load_hold(nc, a, e);

	if (r == 0)
		r = state_list(nc->state, a, KIND_SPEC, NULL, 0, &list, &count, e);
	for (size_t i = 0; r == 0 && i < count; i++) {
		struct error why = {0};

		/* One damaged record must not keep the others' guests from being looked after. */
		if (load_one(nc, a, &list[i], &why) < 0)
			log_error("an instance's record cannot be read: it is left alone",
				  "id=%s err=%s", list[i].id, log_quote(why.message));
	}
	return r;
}
