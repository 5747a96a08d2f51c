/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "svc/clc/instances.h"
#include "svc/clc/volumes.h"

/* What a node's report of an instance says of its volumes, by the table of model/volume_state. */

/* An attachment has ended: the volume is free for others, or goes with the instance. */
static int end_attachment(struct clc *c, struct arena *a, struct records_instance *i,
			  const char *volume_id, bool delete, struct error *e)
{
	struct record rec;
	int r = record_get(c, a, KIND_VOLUME, volume_id, &rec, e);

	device_remove(i, volume_id);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	struct records_volume *v = rec.value;
	if (!str_eq(v->instance_id, i->instance_id))
		return 0;
	volume_let_go(v, delete, clock_unix_ms());
	log_info("volume", "id=%s state=%s left=%s", v->volume_id, v->state, i->instance_id);
	return volume_store(c, v, true, e);
}

static int end_all_attachments(struct clc *c, struct arena *a, struct records_instance *i,
			       struct error *e)
{
	int r = 0;

	while (r >= 0 && i->block_devices.count) {
		const struct records_instance_block_device *d = &i->block_devices.items[0];

		r = end_attachment(c, a, i, d->volume_id, d->delete_on_termination.value, e);
	}
	return r;
}

static bool attachment_event_of(const char *state, enum attachment_event *ret)
{
	static const struct {
		const char *state;
		enum attachment_event event;
	} events[] = {
	    {"attached", ATTACHMENT_SEEN_PLUGGED},
	    {"busy", ATTACHMENT_SEEN_HELD},
	    {"detached", ATTACHMENT_SEEN_GONE},
	    {"failed", ATTACHMENT_SEEN_FAILED},
	};

	for (size_t n = 0; n < ARRAY_SIZE(events); n++) {
		if (!str_eq(events[n].state, state))
			continue;
		*ret = events[n].event;
		return true;
	}
	return false;
}

enum device_change { DEVICE_SAME, DEVICE_CHANGED, DEVICE_ENDED };

static enum device_change take_device(const struct shared_block_device_observed *seen,
				      const struct records_instance *i,
				      struct records_instance_block_device *d)
{
	enum attachment_event event;
	enum attachment_state next;

	if (!attachment_event_of(seen->state, &event))
		return DEVICE_SAME;
	/* Without its boot disk it is no instance: what becomes of it is the node's to say. */
	if (event == ATTACHMENT_SEEN_FAILED && d->boot.value)
		return DEVICE_SAME;
	if (attachment_next(attachment_state_of(d), event, &next) != EBS_MOVES)
		return DEVICE_SAME;
	if (event == ATTACHMENT_SEEN_FAILED)
		log_warn("a volume could not be attached", "id=%s instance=%s reason=%s",
			 d->volume_id, i->instance_id,
			 seen->reason ? log_quote(seen->reason) : "-");
	d->state = attachment_state_name(next);
	return next == ATTACHMENT_DETACHED ? DEVICE_ENDED : DEVICE_CHANGED;
}

int devices_observe(struct clc *c, struct arena *a,
			const struct shared_instance_observed *seen, struct records_instance *i,
			bool *ret_changed, bool *ret_ended, struct error *e)
{
	int r = 0;

	if (instance_state_of(i) == INSTANCE_TERMINATED) {
		bool any = i->block_devices.count > 0;

		*ret_changed |= any;
		*ret_ended |= any;
		return end_all_attachments(c, a, i, e);
	}
	for (size_t n = 0; r >= 0 && n < seen->block_devices.count; n++) {
		const struct shared_block_device_observed *x = &seen->block_devices.items[n];
		struct records_instance_block_device *d = device_of_volume(i, x->volume_id);
		enum device_change change =
		    d && d->generation.value == x->generation.value ? take_device(x, i, d)
								    : DEVICE_SAME;

		*ret_changed |= change != DEVICE_SAME;
		*ret_ended |= change == DEVICE_ENDED;
		if (change == DEVICE_ENDED)
			r = end_attachment(c, a, i, x->volume_id, false, e);
	}
	return r;
}
