/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <time.h>

#include "base/text.h"
#include "svc/clc/instances.h"

enum instance_state instance_state_of(const struct records_instance *i)
{
	enum instance_state s = instance_state_parse(i->state);

	return s == INSTANCE_STATE_COUNT ? INSTANCE_TERMINATED : s;
}

bool instance_is_ebs(const struct records_instance *i)
{
	return str_eq(i->root_device_type, "ebs");
}

void instance_enter(struct records_instance *i, enum instance_state s, int64_t now_ms)
{
	i->previous_state = i->state;
	i->state = instance_state_name(s);
	i->state_time = WIRE_TIME_OF(now_ms);
	if (s == INSTANCE_RUNNING) {
		i->running_since = WIRE_TIME_OF(now_ms);
		i->state_reason_code = i->state_reason_message = NULL;
		i->state_transition_reason = NULL;
	}
	if (s != INSTANCE_RUNNING) {
		i->reachability = NULL;
		i->reachability_since = (struct wire_time){0};
	}
	if (s == INSTANCE_TERMINATED)
		i->wanted = instance_state_name(INSTANCE_TERMINATED);
}

void instance_blame_user(struct arena *a, struct records_instance *i, int64_t now_ms)
{
	time_t now = (time_t)(now_ms / 1000);
	struct tm tm;
	char text[64];

	gmtime_r(&now, &tm);
	strftime(text, sizeof(text), "User initiated (%Y-%m-%d %H:%M:%S GMT)", &tm);
	i->state_transition_reason = arena_strdup(a, text);
	i->state_reason_code = "Client.UserInitiatedShutdown";
	i->state_reason_message = "Client.UserInitiatedShutdown: User initiated shutdown";
}

int instance_put(struct ec2_call *call, struct records_instance *i, bool spec_changed)
{
	if (spec_changed) {
		i->generation = WIRE_INT_OF(i->generation.value + 1);
		call->wake_reconciler = true;
	}
	return record_put(call->clc, KIND_INSTANCE, i->account_id, i->instance_id, NULL, i,
			  &call->error);
}

int instance_touch_tags(struct ec2_call *call, const char *instance_id)
{
	struct shared_tag_list tags;
	struct record r;
	int n = record_get(call->clc, call->arena, KIND_INSTANCE, instance_id, &r, &call->error);

	if (n == -ENOENT)
		return 0;
	if (n < 0)
		return n;
	struct records_instance *i = r.value;
	if (!metadata_shows_tags(i->metadata_options) || !instance_state_live(instance_state_of(i)))
		return 0;
	n = tags_get(call->clc, call->arena, instance_id, &tags, &call->error);
	if (n >= 0)
		n = metadata_tags_check(call, &tags);
	return n < 0 ? n : instance_put(call, i, true);
}
