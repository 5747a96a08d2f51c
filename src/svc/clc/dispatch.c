/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>

#include "base/text.h"
#include "gen/ec2_dispatch.h"
#include "gen/iam.h"
#include "gen/sts_dispatch.h"
#include "svc/clc/dispatch.h"

struct entry {
	const char *action;
	int (*fn)(void *call, const void *in, void *out);
};

/* Each service's handlers, in the order of its action table (the generator makes both from one
 * list). */
static const struct served {
	const struct wire_service *service;
	const void *entries; /* the generated tables have a nameless type of this layout */
	size_t count;
} served[] = {
    {&ec2_service, ec2_dispatch, ARRAY_SIZE(ec2_dispatch)},
    {&sts_service, sts_dispatch, ARRAY_SIZE(sts_dispatch)},
    {&iam_service, NULL, 0}, /* known, so that its clients get its errors; no action yet */
};

const struct wire_service *api_service_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(served); i++)
		if (str_eq(served[i].service->name, name))
			return served[i].service;
	return NULL;
}

const struct wire_service *api_service_by_version(const char *version)
{
	for (size_t i = 0; version && i < ARRAY_SIZE(served); i++)
		if (str_eq(served[i].service->api_version, version))
			return served[i].service;
	return &ec2_service;
}

static bool wants_dry_run(const struct wire_action *act, const void *in)
{
	if (!(act->flags & WIRE_ACTION_DRY_RUN))
		return false;
	for (size_t i = 0; i < act->input->member_count; i++) {
		const struct wire_member *m = &act->input->members[i];

		if (str_eq(m->name, "DryRun") && !(m->flags & WIRE_NO_FIELD)) {
			const struct wire_bool *b = (const void *)((const char *)in + m->offset);
			return b->set && b->value;
		}
	}
	return false;
}

static int run_handler(struct ec2_call *call, const struct wire_service *s,
		       const struct wire_action *act, const void *in, void *out)
{
	size_t index = (size_t)(act - s->actions);

	for (size_t i = 0; i < ARRAY_SIZE(served); i++) {
		if (served[i].service != s)
			continue;
		const struct entry *entries = served[i].entries;
		assert(index < served[i].count && str_eq(entries[index].action, act->name));
		return entries[index].fn(call, in, out);
	}
	return -ENOSYS;
}

int api_dispatch(struct ec2_call *call, const struct wire_service *s,
		 const struct wire_params *params, const char **ret_action, struct buf *reply)
{
	const struct wire_action *act;
	void *in = NULL, *out = NULL;
	int r;

	act = wire_query_route(s, params, &call->error);
	if (!act)
		return -EREMOTEIO;
	*ret_action = act->name;
	r = wire_query_decode(call->arena, s, act, params, &in, &call->error);
	if (r < 0)
		return r;
	if (act->output)
		out = arena_alloc(call->arena, act->output->size);
	call->dry_run = wants_dry_run(act, in);
	r = run_handler(call, s, act, in, out);
	if (call->in_transaction) {
		/* A handler that succeeds has committed: otherwise its change would be lost
		 * unnoticed. */
		assert(r < 0);
		state_rollback(call->clc->state);
		call->in_transaction = false;
	}
	if (r >= 0)
		r = ec2_dry_run_point(call); /* actions that only read */
	if (r < 0) {
		if (!error_is_set(&call->error))
			error_errno(&call->error, r, "%s failed", act->name);
		return r;
	}
	wire_query_reply(s, act, out, call->request_id, reply);
	return 0;
}
