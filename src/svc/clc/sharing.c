/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/clc/sharing.h"

#include <string.h>

#include "base/text.h"

static int check_permission(struct ec2_call *call, const struct sharing_request *q,
			    const struct sharing_permission *p)
{
	if (!p->group == !p->user_id)
		return ec2_error(call, "InvalidParameterCombination",
				 "A permission names either a Group or a UserId");
	if (p->group && !str_eq(p->group, "all"))
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.60s) for parameter group is invalid: all", p->group);
	if (p->user_id && (strlen(p->user_id) != 12 || strspn(p->user_id, "0123456789") != 12))
		return ec2_error(call, q->bad_user_code,
				 "Invalid attribute item value \"%.60s\" for userId item type: an "
				 "account's id has 12 digits",
				 p->user_id);
	return 0;
}

static int check_list(struct ec2_call *call, const struct sharing_request *q,
		      const struct sharing_list *l)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < l->count; i++)
		r = check_permission(call, q, &l->items[i]);
	return r;
}

static struct sharing_list older_form(struct arena *a, const struct sharing_request *q)
{
	struct sharing_list l = {.items = arena_new_array(a, struct sharing_permission,
							  q->user_ids->count + q->groups->count)};

	for (size_t i = 0; i < q->user_ids->count; i++)
		l.items[l.count++].user_id = q->user_ids->items[i];
	for (size_t i = 0; i < q->groups->count; i++)
		l.items[l.count++].group = q->groups->items[i];
	return l;
}

static bool all_in(const struct sharing_list *some, const struct sharing_list *list)
{
	for (size_t i = 0; i < some->count; i++) {
		size_t n = 0;

		while (n < list->count && !(str_eq(list->items[n].group, some->items[i].group) &&
					    str_eq(list->items[n].user_id, some->items[i].user_id)))
			n++;
		if (n == list->count)
			return false;
	}
	return true;
}

/* What the older form says, if anything, is what the newer one says. */
static int check_agreement(struct ec2_call *call, const struct sharing_request *q,
			   const struct sharing_list *older)
{
	const struct sharing_list *newer = q->add.count ? &q->add : &q->remove;
	const char *operation = q->add.count ? "add" : "remove";
	const bool both = q->add.count && q->remove.count;

	if (both && (q->one_way || q->operation_type || older->count))
		return ec2_error(call, "InvalidParameterCombination",
				 "Permissions cannot be added and removed in this one request");
	if (q->operation_type && !str_eq(q->operation_type, operation))
		return ec2_error(call, "InvalidParameterCombination",
				 "OperationType is %.20s, and %s has permissions to %s",
				 q->operation_type, q->parameter, operation);
	if (older->count && !(all_in(older, newer) && all_in(newer, older)))
		return ec2_error(call, "InvalidParameterCombination",
				 "%s names other accounts or groups than the other parameters",
				 q->parameter);
	return 0;
}

int sharing_read(struct ec2_call *call, struct sharing_request *q)
{
	const struct sharing_list older = older_form(call->arena, q);
	int r = 0;

	if (q->add.count || q->remove.count)
		r = check_agreement(call, q, &older);
	else if (!older.count)
		r = ec2_error(call, "MissingParameter", "The request must contain the parameter %s",
			      q->parameter);
	else if (!q->operation_type)
		r = ec2_error(call, "MissingParameter",
			      "The request must contain the parameter operationType");
	else if (str_eq(q->operation_type, "add"))
		q->add = older;
	else
		q->remove = older;
	if (r == 0)
		r = check_list(call, q, &q->add);
	return r < 0 ? r : check_list(call, q, &q->remove);
}

static void add_user(struct arena *a, struct wire_string_list *users, const char *id)
{
	const char **items = arena_new_array(a, const char *, users->count + 1);

	if (list_has(users, id))
		return;
	if (users->count)
		memcpy(items, users->items, users->count * sizeof(items[0]));
	items[users->count] = id;
	*users = (struct wire_string_list){.set = true, .count = users->count + 1, .items = items};
}

static void remove_user(struct wire_string_list *users, const char *id)
{
	size_t kept = 0;

	for (size_t i = 0; i < users->count; i++)
		if (!str_eq(users->items[i], id))
			users->items[kept++] = users->items[i];
	users->count = kept;
}

void sharing_apply(struct arena *a, const struct sharing_request *q, struct wire_bool *public,
		   struct wire_string_list *users)
{
	for (size_t i = 0; i < q->add.count; i++) {
		if (q->add.items[i].group)
			*public = WIRE_BOOL_OF(true);
		else
			add_user(a, users, q->add.items[i].user_id);
	}
	for (size_t i = 0; i < q->remove.count; i++) {
		if (q->remove.items[i].group)
			*public = WIRE_BOOL_OF(false);
		else
			remove_user(users, q->remove.items[i].user_id);
	}
}
