/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_FILTERS_H
#define MALLEE_SVC_CLC_FILTERS_H

#include <stdbool.h>
#include <stddef.h>

#include "gen/ec2.h"
#include "svc/clc/clc_priv.h"

/*
 * EC2's filters as data: a Describe action builds each reply struct, and the engine looks into that
 * struct by the same shape tables that print it. So a filter can only ask for what the reply shows,
 * and both always agree.
 *
 * A path names members by the model's names, dotted: "State.Name",
 * "NetworkInterfaces.PrivateIpAddress". Lists on the way are walked: the filter matches when any
 * item's value does. A value is compared as EC2 prints it (true/false, decimals, ISO time). Within
 * one filter the values are alternatives; between filters all must match. Values may hold * and ?,
 * \ quotes.
 */
struct filter_values; /* collects candidate values */
void filter_values_add(struct filter_values *v,
		       const char *value); /* NULL is ignored; not copied */

struct filter_field {
	const char *name; /* "instance-state-name" */
	const char *path; /* in the item's shape; NULL when `get` is used */
	bool of_parent;	  /* the path starts in the parent (an instance's reservation) */
	/* For what no path can tell; allocates from a. NULL otherwise. */
	void (*get)(struct arena *a, const void *item, const void *parent,
		    struct filter_values *out);
};

struct filter_table {
	const struct wire_shape *item;	 /* shape of the items that are filtered */
	const struct wire_shape *parent; /* NULL: none */
	const char
	    *tags; /* path of the tag list for tag:KEY, tag-key and tag-value; NULL: not taggable */
	const struct filter_field *fields;
	size_t count;
};

/* A request's filters, checked once against a table. */
struct filter_set;

/* Unknown filter, no name, no or too many values: InvalidParameterValue (FilterLimitExceeded) in
 * call->error. */
int filter_set_new(struct ec2_call *call, const struct filter_table *t,
		   const struct ec2_filter_list *filters, struct filter_set **ret);
/* parent NULL where the table has none. Memory comes from the call's arena. */
bool filter_set_match(const struct filter_set *f, const void *item, const void *parent);

#endif
