/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/instances.h"
#include "svc/clc/volumes.h"

static struct ec2_attribute_value *text_value(struct arena *a, const char *value)
{
	struct ec2_attribute_value *v = arena_new_struct(a, struct ec2_attribute_value);

	v->value = value;
	return v;
}

static struct ec2_attribute_boolean_value *bool_value(struct arena *a, bool value)
{
	struct ec2_attribute_boolean_value *v =
	    arena_new_struct(a, struct ec2_attribute_boolean_value);

	v->value = WIRE_BOOL_OF(value);
	return v;
}

/* One function an attribute: each puts its element into the reply. Attributes that an instance does
 * not have (kernel, RAM disk, user data that was not given) are an element without a value, as EC2
 * answers. */
typedef void (*attribute_fn)(struct arena *a, const struct records_instance *i,
			     struct ec2_instance_attribute *out);

static void get_type(struct arena *a, const struct records_instance *i,
		     struct ec2_instance_attribute *out)
{
	out->instance_type = text_value(a, i->instance_type);
}

static void get_kernel(struct arena *a, const struct records_instance *i,
		       struct ec2_instance_attribute *out)
{
	out->kernel_id = text_value(a, NULL);
}

static void get_ramdisk(struct arena *a, const struct records_instance *i,
			struct ec2_instance_attribute *out)
{
	out->ramdisk_id = text_value(a, NULL);
}

static void get_user_data(struct arena *a, const struct records_instance *i,
			  struct ec2_instance_attribute *out)
{
	out->user_data = text_value(
	    a, i->user_data.data ? base64_encode(a, i->user_data.data, i->user_data.len) : NULL);
}

static void get_termination(struct arena *a, const struct records_instance *i,
			    struct ec2_instance_attribute *out)
{
	out->disable_api_termination =
	    bool_value(a, i->disable_api_termination.set && i->disable_api_termination.value);
}

static void get_stop(struct arena *a, const struct records_instance *i,
		     struct ec2_instance_attribute *out)
{
	out->disable_api_stop = bool_value(a, false);
}

static void get_shutdown(struct arena *a, const struct records_instance *i,
			 struct ec2_instance_attribute *out)
{
	out->instance_initiated_shutdown_behavior =
	    text_value(a, i->instance_initiated_shutdown_behavior);
}

static void get_root_device(struct arena *a, const struct records_instance *i,
			    struct ec2_instance_attribute *out)
{
	out->root_device_name = text_value(a, i->root_device_name);
}

static void get_mappings(struct arena *a, const struct records_instance *i,
			 struct ec2_instance_attribute *out)
{
	out->block_device_mappings = instance_devices_to_reply(a, i);
}

static void get_codes(struct arena *a, const struct records_instance *i,
		      struct ec2_instance_attribute *out)
{
	out->product_codes.set = true;
}

static void get_groups(struct arena *a, const struct records_instance *i,
		       struct ec2_instance_attribute *out)
{
	out->groups.set = true;
}

static void get_source_dest(struct arena *a, const struct records_instance *i,
			    struct ec2_instance_attribute *out)
{
	out->source_dest_check = bool_value(a, true);
}

static void get_ebs(struct arena *a, const struct records_instance *i,
		    struct ec2_instance_attribute *out)
{
	out->ebs_optimized = bool_value(a, false);
}

static void get_ena(struct arena *a, const struct records_instance *i,
		    struct ec2_instance_attribute *out)
{
	out->ena_support = bool_value(a, false);
}

static void get_sriov(struct arena *a, const struct records_instance *i,
		      struct ec2_instance_attribute *out)
{
	out->sriov_net_support = text_value(a, i->sriov_net_support);
}

static void get_enclave(struct arena *a, const struct records_instance *i,
			struct ec2_instance_attribute *out)
{
	out->enclave_options = arena_new_struct(a, struct ec2_enclave_options);
	out->enclave_options->enabled = WIRE_BOOL_OF(false);
}

static const struct {
	const char *name;
	attribute_fn get;
} attributes[] = {
    {"blockDeviceMapping", get_mappings},
    {"disableApiStop", get_stop},
    {"disableApiTermination", get_termination},
    {"ebsOptimized", get_ebs},
    {"enaSupport", get_ena},
    {"enclaveOptions", get_enclave},
    {"groupSet", get_groups},
    {"instanceInitiatedShutdownBehavior", get_shutdown},
    {"instanceType", get_type},
    {"kernel", get_kernel},
    {"productCodes", get_codes},
    {"ramdisk", get_ramdisk},
    {"rootDeviceName", get_root_device},
    {"sourceDestCheck", get_source_dest},
    {"sriovNetSupport", get_sriov},
    {"userData", get_user_data},
};

int ec2_describe_instance_attribute(struct ec2_call *call,
				    const struct ec2_describe_instance_attribute_request *in,
				    struct ec2_instance_attribute *out)
{
	struct records_instance *i;
	attribute_fn get = NULL;

	for (size_t n = 0; n < ARRAY_SIZE(attributes) && !get; n++)
		if (str_eq(attributes[n].name, in->attribute))
			get = attributes[n].get;
	if (!get)
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.64s) for parameter attribute is invalid. Unknown "
				 "attribute.",
				 in->attribute ? in->attribute : "");
	int r = ec2_get(call, KIND_INSTANCE, in->instance_id, &i);
	if (r < 0)
		return r;
	out->instance_id = i->instance_id;
	get(call->arena, i, out);
	return 0;
}

/* ---- ModifyInstanceAttribute ---- */

/* *ret_spec: the node has to hear of it. */
static int set_termination(struct ec2_call *call, struct records_instance *i, const char *value,
			   bool *ret_spec)
{
	bool on;

	if (!value || parse_bool(value, &on) < 0)
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.64s) for parameter disableApiTermination is invalid: it "
				 "must be true or false",
				 value ? value : "");
	i->disable_api_termination = WIRE_BOOL_OF(on);
	return 0;
}

static int set_shutdown(struct ec2_call *call, struct records_instance *i, const char *value,
			bool *ret_spec)
{
	bool stop = str_eq(value, "stop");

	if (str_eq(value, "terminate") || (stop && instance_is_ebs(i))) {
		*ret_spec = !str_eq(i->instance_initiated_shutdown_behavior, value);
		i->instance_initiated_shutdown_behavior = value;
		return 0;
	}
	if (stop)
		return ec2_error(call, "UnsupportedOperation",
				 "The instance '%s' does not have an 'ebs' root device type, so it "
				 "can only terminate when it shuts down",
				 i->instance_id);
	return ec2_error(call, "InvalidParameterValue",
			 "Value (%.64s) for parameter instanceInitiatedShutdownBehavior is "
			 "invalid: it must be stop or terminate",
			 value ? value : "");
}

static int check_stopped(struct ec2_call *call, const struct records_instance *i)
{
	if (instance_state_of(i) == INSTANCE_STOPPED)
		return 0;
	return ec2_error(call, "IncorrectInstanceState",
			 "The instance '%s' is not in the 'stopped' state.", i->instance_id);
}

static int set_type(struct ec2_call *call, struct records_instance *i, const char *value,
		    bool *ret_spec)
{
	const struct instance_type *t = instance_type_find(value ? value : "");
	int r = check_stopped(call, i);

	if (r < 0)
		return r;
	if (!t)
		return ec2_error(call, "InvalidInstanceAttributeValue",
				 "The instance type '%.64s' does not exist", value ? value : "");
	if (!instance_is_ebs(i))
		return ec2_error(call, "UnsupportedOperation",
				 "The instance '%s' does not have an 'ebs' root device type, so its "
				 "type cannot change",
				 i->instance_id);
	const struct records_instance_block_device *in_the_way = device_in_last_slots(i, t->local_disks);
	if (in_the_way)
		return ec2_error(call, "AttachmentLimitExceeded",
				 "The instance '%s' has too many volumes for the local disks of the type %s: "
				 "detach %s, and attach it again if there is room",
				 i->instance_id, t->name, in_the_way->volume_id);
	i->instance_type = t->name;
	i->vcpus = WIRE_INT_OF(t->vcpus);
	i->memory_mib = WIRE_INT_OF(t->memory_mib);
	i->local_disks = WIRE_INT_OF(t->local_disks);
	*ret_spec = true;
	return 0;
}

static int set_user_data(struct ec2_call *call, struct records_instance *i, const char *value,
			 bool *ret_spec)
{
	void *data = NULL;
	size_t len = 0;
	int r = check_stopped(call, i);

	if (r < 0)
		return r;
	if (value && base64_decode(call->arena, value, strlen(value), &data, &len) < 0)
		return ec2_error(call, "InvalidUserData.Malformed",
				 "Invalid BASE64 encoding of user data");
	if (len > LIMIT_USER_DATA_BYTES)
		return ec2_error(call, "InvalidParameterValue", "User data is limited to %d bytes",
				 LIMIT_USER_DATA_BYTES);
	i->user_data = (struct wire_blob){.data = len ? data : NULL, .len = len};
	*ret_spec = true;
	return 0;
}

typedef int (*set_fn)(struct ec2_call *call, struct records_instance *i, const char *value,
		      bool *ret_spec);

static const struct {
	const char *name;
	set_fn set;
} changeable[] = {
    {"disableApiTermination", set_termination},
    {"instanceInitiatedShutdownBehavior", set_shutdown},
    {"instanceType", set_type},
    {"userData", set_user_data},
};

/* Whether a volume ends with the instance; by device name, nothing else of it can be changed. */
static int set_mappings(struct ec2_call *call, struct records_instance *i,
			const struct ec2_instance_block_device_mapping_specification_list *l)
{
	for (size_t n = 0; n < l->count; n++) {
		const struct ec2_instance_block_device_mapping_specification *m = &l->items[n];
		struct records_instance_block_device *d =
		    m->device_name ? device_by_name(i, m->device_name) : NULL;

		if (m->no_device || m->virtual_name || !m->ebs ||
		    !m->ebs->delete_on_termination.set)
			return ec2_error(call, "InvalidParameterCombination",
					 "Of a block device only Ebs.DeleteOnTermination can be "
					 "changed");
		if (!d || (m->ebs->volume_id && !str_eq(m->ebs->volume_id, d->volume_id)))
			return ec2_error(call, "InvalidInstanceAttributeValue",
					 "No device is currently mapped at %.64s",
					 m->device_name ? m->device_name : "");
		d->delete_on_termination = m->ebs->delete_on_termination;
	}
	return 0;
}

/* One attribute a request, in the form Attribute and Value or as a member of its own. */
static int one_change(struct ec2_call *call, const struct ec2_modify_instance_attribute_request *in,
		      const char **ret_name, const char **ret_value)
{
	int given = ((in->attribute || in->value) && !in->block_device_mappings.count) +
		    (in->disable_api_termination != NULL) +
		    (in->instance_initiated_shutdown_behavior != NULL) +
		    (in->block_device_mappings.count > 0) + (in->instance_type != NULL) +
		    (in->user_data != NULL);

	if (given != 1)
		return ec2_error(call, "InvalidParameterCombination",
				 given ? "Fields for multiple attribute types were given: one "
					 "attribute can be changed in a request"
				       : "No attribute was given");
	if (in->disable_api_termination) {
		const struct wire_bool *b = &in->disable_api_termination->value;

		*ret_name = "disableApiTermination";
		*ret_value = !b->set ? NULL : b->value ? "true" : "false";
	} else if (in->instance_initiated_shutdown_behavior) {
		*ret_name = "instanceInitiatedShutdownBehavior";
		*ret_value = in->instance_initiated_shutdown_behavior->value;
	} else if (in->block_device_mappings.count) {
		*ret_name = "blockDeviceMapping";
	} else if (in->instance_type) {
		*ret_name = "instanceType";
		*ret_value = in->instance_type->value;
	} else if (in->user_data) {
		const struct wire_blob *b = &in->user_data->value;

		/* The Query protocol has decoded it once; the client may have encoded it before. */
		*ret_name = "userData";
		*ret_value = b->data ? base64_encode(call->arena, b->data, b->len) : NULL;
	} else {
		*ret_name = in->attribute ? in->attribute : "";
		*ret_value = in->value;
	}
	return 0;
}

static int find_changeable(struct ec2_call *call, const char *name, set_fn *ret)
{
	for (size_t n = 0; n < ARRAY_SIZE(changeable); n++) {
		if (!str_eq(changeable[n].name, name))
			continue;
		*ret = changeable[n].set;
		return 0;
	}
	for (size_t n = 0; n < ARRAY_SIZE(attributes); n++)
		if (str_eq(attributes[n].name, name))
			return ec2_error(call, "UnsupportedOperation",
					 "The attribute %s cannot be changed in this cloud", name);
	return ec2_error(call, "InvalidParameterValue",
			 "Value (%.64s) for parameter attribute is invalid. Unknown attribute.",
			 name);
}

int ec2_modify_instance_attribute(struct ec2_call *call,
				  const struct ec2_modify_instance_attribute_request *in)
{
	const char *name = NULL, *value = NULL;
	struct records_instance *i;
	set_fn set = NULL;
	bool mappings, spec = false;
	int r = one_change(call, in, &name, &value);

	mappings = r >= 0 && in->block_device_mappings.count > 0;
	if (r >= 0 && !mappings)
		r = find_changeable(call, name, &set);
	if (r >= 0)
		r = ec2_begin(call);
	if (r >= 0)
		r = ec2_get(call, KIND_INSTANCE, in->instance_id, &i);
	if (r >= 0 && instance_state_of(i) == INSTANCE_TERMINATED)
		r = ec2_error(call, "IncorrectInstanceState",
			      "The instance '%s' is terminated: its attributes can no longer be "
			      "changed",
			      i->instance_id);
	if (r >= 0)
		r = mappings ? set_mappings(call, i, &in->block_device_mappings)
			     : set(call, i, value, &spec);
	if (r >= 0)
		r = instance_put(call, i, spec);
	return r < 0 ? r : ec2_commit(call);
}

/* ---- ModifyInstanceMetadataOptions ---- */

static int change_options(struct ec2_call *call,
			  const struct ec2_modify_instance_metadata_options_request *in,
			  struct records_instance *i)
{
	const struct metadata_options_change change = {
	    .http_tokens = in->http_tokens,
	    .http_endpoint = in->http_endpoint,
	    .http_protocol_ipv6 = in->http_protocol_ipv6,
	    .instance_metadata_tags = in->instance_metadata_tags,
	    .hop_limit = in->http_put_response_hop_limit,
	};
	enum instance_state s = instance_state_of(i);
	struct shared_tag_list tags;
	int r;

	if (!in->http_tokens && !in->http_endpoint && !in->http_protocol_ipv6 &&
	    !in->instance_metadata_tags && !in->http_put_response_hop_limit.set)
		return ec2_error(call, "InvalidParameterCombination",
				 "At least one metadata option must be given");
	if (s == INSTANCE_SHUTTING_DOWN || s == INSTANCE_TERMINATED)
		return ec2_error(call, "IncorrectInstanceState",
				 "The instance '%s' is %s: its metadata options can no longer be "
				 "modified",
				 i->instance_id, instance_state_name(s));
	if (!i->metadata_options)
		i->metadata_options = metadata_options_default(call->arena);
	r = metadata_options_change(call, &change, i->metadata_options);
	if (r < 0 || !metadata_shows_tags(i->metadata_options))
		return r;
	r = tags_get(call->clc, call->arena, i->instance_id, &tags, &call->error);
	return r < 0 ? r : metadata_tags_check(call, &tags);
}

int ec2_modify_instance_metadata_options(
    struct ec2_call *call, const struct ec2_modify_instance_metadata_options_request *in,
    struct ec2_modify_instance_metadata_options_result *out)
{
	struct records_instance *i;
	int r = ec2_begin(call);

	if (r >= 0)
		r = ec2_get(call, KIND_INSTANCE, in->instance_id, &i);
	if (r >= 0)
		r = change_options(call, in, i);
	if (r >= 0)
		r = instance_put(call, i, true);
	if (r >= 0)
		r = ec2_commit(call);
	if (r < 0)
		return r;
	out->instance_id = i->instance_id;
	out->instance_metadata_options = metadata_options_to_reply(call->arena, i);
	out->instance_metadata_options->state = "pending"; /* the node has yet to hear of it */
	return 0;
}
