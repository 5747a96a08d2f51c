/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_SHARING_H
#define MALLEE_SVC_CLC_SHARING_H

#include "svc/clc/clc_priv.h"

/*
 * Who may use an image or a snapshot: its owner, all ("Group=all"), or accounts by id.
 *
 * Requests say what is to change in two forms: lists to add and to remove, and the older one, an
 * OperationType with UserIds and groups. Some clients send both, with the same accounts and groups.
 */

/* One of the two names. */
struct sharing_permission {
	const char *group, *user_id;
};

struct sharing_list {
	size_t count;
	struct sharing_permission *items;
};

struct sharing_request {
	const char *parameter;	   /* what the newer form is called, for errors */
	const char *bad_user_code; /* the error of an id that is none */
	bool one_way;		   /* a request adds or removes, not both */
	struct sharing_list add, remove;
	const char *operation_type; /* the older form; NULL: not said */
	const struct wire_string_list *user_ids, *groups;
};

/* Bring the request into the newer form alone, checked. MissingParameter,
 * InvalidParameterCombination, InvalidParameterValue, bad_user_code. */
int sharing_read(struct ec2_call *call, struct sharing_request *q);
/* Make the changes of a request that was read: additions first. */
void sharing_apply(struct arena *a, const struct sharing_request *q, struct wire_bool *public,
		   struct wire_string_list *users);

#endif
