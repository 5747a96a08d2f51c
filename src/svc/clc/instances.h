/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_INSTANCES_H
#define MALLEE_SVC_CLC_INSTANCES_H

#include "model/instance_state.h"
#include "model/instance_type.h"
#include "svc/clc/clc_priv.h"

/* What the files about instances share. Records are those of records.json. */

enum { TERMINATED_VISIBLE_MS = 60 * 60 * 1000 };

/* The record's state; a name that is none of ours (a damaged record) counts as terminated. */
enum instance_state instance_state_of(const struct records_instance *i);
/* Enter a state now. Does not touch the specification. */
void instance_enter(struct records_instance *i, enum instance_state s, int64_t now_ms);
/* The user asked for this: StateReason and StateTransitionReason in EC2's words. Strings in a. */
void instance_blame_user(struct arena *a, struct records_instance *i, int64_t now_ms);
/* Write it. With spec_changed the generation grows and the reconciler is woken at commit. */
int instance_put(struct ec2_call *call, struct records_instance *i, bool spec_changed);

/* Its root is a volume. */
bool instance_is_ebs(const struct records_instance *i);

/* Capacity of nodes (placing.c), in `nodes` for the ids, NULL for those that have none: at least min of them have one.
 * InsufficientInstanceCapacity, Unavailable. What no specification follows on is dropped at the cluster controller by itself. */
struct placing {
	size_t min, count;
	const char **ids;
	const struct instance_type **types;
	const bool *ebs;    /* needs no disk of the node's */
	const char **on;    /* the nodes on which they are already; NULL: they are new */
	const char **nodes; /* answer */
};
int placing_ask(struct ec2_call *call, const struct placing *p);

/* As replies show it. tags may be unset. */
void instance_to_reply(struct ec2_call *call, const struct records_instance *i,
		       struct ec2_tag_list tags, struct ec2_instance *out);
struct ec2_instance_block_device_mapping_list
instance_devices_to_reply(struct arena *a, const struct records_instance *i);
struct ec2_instance_state *instance_state_to_reply(struct arena *a, enum instance_state s);
struct ec2_instance_metadata_options_response *
metadata_options_to_reply(struct arena *a, const struct records_instance *i);

/* MetadataOptions: the defaults, and one request's changes to *o, checked (InvalidParameterValue).
 * Any input may be NULL. */
struct shared_metadata_options *metadata_options_default(struct arena *a);
struct metadata_options_change {
	const char *http_tokens, *http_endpoint, *http_protocol_ipv6, *instance_metadata_tags;
	struct wire_int hop_limit;
};
int metadata_options_change(struct ec2_call *call, const struct metadata_options_change *in,
			    struct shared_metadata_options *o);
bool metadata_shows_tags(const struct shared_metadata_options *o); /* o may be NULL */
/* Tag keys become paths of the metadata service when it shows tags, which not every key can.
 * InvalidParameterValue. */
int metadata_tags_check(struct ec2_call *call, const struct shared_tag_list *tags);

/* All of one RunInstances request, looked up and checked, with nothing done yet. */
struct launch {
	size_t min, max;
	const struct instance_type *type;
	struct records_image *image;
	struct records_key_pair *key; /* NULL: none */
	struct records_subnet *subnet;
	struct wire_blob user_data;
	const char *token; /* NULL: none */
	char request_sha256[65];
	uint32_t wanted_ip; /* 0: any */
	const char *interface_description;
	const char *shutdown_behavior;
	struct shared_metadata_options *metadata;
	struct shared_tag_list tags, interface_tags, volume_tags;
	struct records_image_block_device_list devices; /* volumes of each instance */
	bool disable_api_termination, monitoring;
};
/* The request's token and hash into *l, before anything is looked up: a request that was served
 * once is answered again whatever has become of its image. l starts zeroed. */
int launch_token(struct ec2_call *call, const struct ec2_run_instances_request *in,
		 struct launch *l);
int launch_plan(struct ec2_call *call, const struct ec2_run_instances_request *in,
		struct launch *l);

/* The volumes of a launch (launch_devices.c): the image's and the request's, merged and checked, in l->devices. */
int launch_plan_devices(struct ec2_call *call, const struct ec2_run_instances_request *in,
			struct launch *l);
/* A volume for each, recorded and attached to the instance, which the caller stores. Within the launch's transaction. */
int launch_make_devices(struct ec2_call *call, const struct launch *l, struct records_instance *i);

#endif
