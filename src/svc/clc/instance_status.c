/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "gen/cluster.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/peer.h"
#include "svc/clc/filters.h"
#include "svc/clc/instances.h"

enum { PAGE_MIN = 5, PAGE_MAX = 1000, CONSOLE_TIMEOUT_MS = 10000 };

static const struct filter_field fields[] = {
    {"availability-zone", "AvailabilityZone"},
    {"event.code", "Events.Code"},
    {"event.description", "Events.Description"},
    {"event.instance-event-id", "Events.InstanceEventId"},
    {"event.not-after", "Events.NotAfter"},
    {"event.not-before", "Events.NotBefore"},
    {"event.not-before-deadline", "Events.NotBeforeDeadline"},
    {"instance-state-code", "InstanceState.Code"},
    {"instance-state-name", "InstanceState.Name"},
    {"instance-status.reachability", "InstanceStatus.Details.Status"},
    {"instance-status.status", "InstanceStatus.Status"},
    {"system-status.reachability", "SystemStatus.Details.Status"},
    {"system-status.status", "SystemStatus.Status"},
};

static const struct filter_table table = {
    .item = &ec2_shape_instance_status, .fields = fields, .count = ARRAY_SIZE(fields)};

/* The status that its one check, reachability, gives. */
static struct ec2_instance_status_summary *summary(struct arena *a, const char *status,
						   struct wire_time impaired_since)
{
	static const struct {
		const char *status, *check;
	} checks[] = {{"ok", "passed"},
		      {"initializing", "initializing"},
		      {"impaired", "failed"},
		      {"insufficient-data", "insufficient-data"}};
	struct ec2_instance_status_summary *s =
	    arena_new_struct(a, struct ec2_instance_status_summary);

	s->status = status;
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		if (!str_eq(checks[i].status, status))
			continue;
		s->details.set = true;
		s->details.count = 1;
		s->details.items = arena_new_struct(a, struct ec2_instance_status_details);
		s->details.items->name = "reachability";
		s->details.items->status = checks[i].check;
		if (str_eq(status, "impaired"))
			s->details.items->impaired_since = impaired_since;
	}
	return s;
}

static void status_of(struct ec2_call *call, const struct records_instance *i, bool cluster_up,
		      struct ec2_instance_status *out)
{
	struct arena *a = call->arena;
	enum instance_state s = instance_state_of(i);
	const char *guest = "not-applicable", *host = "not-applicable";

	if (s == INSTANCE_RUNNING) {
		guest = i->reachability ? i->reachability : "initializing";
		/* That the host runs it is known as long as the host is heard of. */
		host = cluster_up ? "ok" : "insufficient-data";
	}
	*out = (struct ec2_instance_status){
	    .instance_id = i->instance_id,
	    .availability_zone = i->availability_zone,
	    .instance_state = instance_state_to_reply(a, s),
	    .instance_status = summary(a, guest, i->reachability_since),
	    .system_status = summary(a, host, (struct wire_time){0}),
	};
}

static int select_items(struct ec2_call *call, bool all, const struct filter_set *filters,
			struct record_list *l, struct page *page,
			struct ec2_instance_status_list *out)
{
	bool cluster_up = peer_reachable(call->clc->cluster, NULL);

	out->set = true;
	out->items = arena_new_array(call->arena, struct ec2_instance_status, l->count);
	for (size_t i = 0; i < l->count && !page->more; i++) {
		struct ec2_instance_status *item = &out->items[out->count];

		if (l->items[i].seq <= page->after_seq)
			continue;
		int r = record_decode(call->arena, KIND_INSTANCE, &l->items[i], &call->error);
		if (r < 0)
			return r;
		if (!all && instance_state_of(l->items[i].value) != INSTANCE_RUNNING)
			continue;
		status_of(call, l->items[i].value, cluster_up, item);
		if (filter_set_match(filters, item, NULL) && page_take(page, l->items[i].seq))
			out->count++;
	}
	return 0;
}

int ec2_describe_instance_status(struct ec2_call *call,
				 const struct ec2_describe_instance_status_request *in,
				 struct ec2_describe_instance_status_result *out)
{
	bool all = in->include_all_instances.set && in->include_all_instances.value;
	struct filter_set *filters;
	struct record_list l;
	struct page page;
	int r = filter_set_new(call, &table, &in->filters, &filters);

	if (r >= 0)
		r = ec2_page(call, &in->max_results, in->next_token, in->instance_ids.count > 0,
			     PAGE_MIN, PAGE_MAX, &page);
	if (r >= 0 && in->instance_ids.count)
		r = ec2_get_many(call, KIND_INSTANCE, &in->instance_ids, &l);
	else if (r >= 0)
		r = record_scan(call->clc, call->arena, KIND_INSTANCE, call->account_id, &l,
				&call->error);
	if (r >= 0)
		r = select_items(call, all, filters, &l, &page, &out->instance_statuses);
	if (r < 0)
		return r;
	out->next_token = page_token(call->arena, &page);
	return 0;
}

int ec2_get_console_output(struct ec2_call *call, const struct ec2_get_console_output_request *in,
			   struct ec2_get_console_output_result *out)
{
	struct shared_get_console_output_response *got = NULL;
	struct error e = {0};
	struct records_instance *i;
	int r = ec2_get(call, KIND_INSTANCE, in->instance_id, &i);

	if (r < 0)
		return r;
	const struct shared_get_console_output_request ask = {.instance_id = i->instance_id};
	r = peer_call(call->clc->cluster, "GetConsoleOutput", &ask, call->arena, &got,
			 CONSOLE_TIMEOUT_MS, &e);
	/* A node that has not begun with it, or has done with it, has no console of it. */
	if (r < 0 && !str_eq(e.code, "InstanceNotFound"))
		return ec2_error(call, "Unavailable",
				 "The console of %s cannot be read at the moment: %s",
				 i->instance_id, e.message);
	out->instance_id = i->instance_id;
	out->timestamp = got && got->timestamp.set ? got->timestamp : WIRE_TIME_OF(call->now_ms);
	out->output = got && got->output.data
			  ? base64_encode(call->arena, got->output.data, got->output.len)
			  : "";
	return 0;
}
