/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "model/ipv4.h"
#include "svc/clc/images.h"
#include "svc/clc/instances.h"

/* What RunInstances checks before it does anything: each function takes one group of the request's
 * parameters. */

static int plan_counts(struct ec2_call *call, const struct ec2_run_instances_request *in,
		       struct launch *l)
{
	int64_t min = in->min_count.value, max = in->max_count.value;

	if (!in->min_count.set || !in->max_count.set)
		return ec2_error(call, "MissingParameter",
				 "The request must contain the parameter %s",
				 in->min_count.set ? "MaxCount" : "MinCount");
	if (min < 1)
		return ec2_error(call, "InvalidParameterValue",
				 "Invalid value '%lld' for minCount. Must be positive.",
				 (long long)min);
	if (max < min)
		return ec2_error(call, "InvalidParameterValue",
				 "Invalid value '%lld' for maxCount. Must be no less than minCount "
				 "(%lld).",
				 (long long)max, (long long)min);
	if (max > LIMIT_INSTANCES_PER_REQUEST)
		return ec2_error(call, "InstanceLimitExceeded",
				 "You have requested %lld instances; one request may ask for %d at "
				 "most.",
				 (long long)max, LIMIT_INSTANCES_PER_REQUEST);
	l->min = (size_t)min;
	l->max = (size_t)max;
	return 0;
}

/* Rounded up to what a disk of the type must hold. */
static int plan_image(struct ec2_call *call, const struct ec2_run_instances_request *in,
		      struct launch *l)
{
	const char *type = in->instance_type ? in->instance_type : "m1.small";

	if (!in->image_id || !*in->image_id)
		return ec2_error(call, "MissingParameter",
				 "The request must contain the parameter ImageId");
	l->type = instance_type_find(type);
	if (!l->type)
		return ec2_error(call, "InvalidParameterValue",
				 "Invalid value '%.64s' for InstanceType.", type);
	int r = ec2_image_for_launch(call, in->image_id, &l->image);
	if (r < 0)
		return r;
	if (!image_is_ebs(l->image) && l->image->size_bytes.value > l->type->disk_gib << 30)
		return ec2_error(
		    call, "InvalidParameterCombination",
		    "The image %s has %lld bytes, which is more than the %lld GiB disk "
		    "of a %s: choose a larger type",
		    in->image_id, (long long)l->image->size_bytes.value,
		    (long long)l->type->disk_gib, l->type->name);
	return 0;
}

static int plan_user_data(struct ec2_call *call, const struct ec2_run_instances_request *in,
			  struct launch *l)
{
	void *data;
	size_t len;

	if (!in->user_data || !*in->user_data)
		return 0;
	if (base64_decode(call->arena, in->user_data, strlen(in->user_data), &data, &len) < 0)
		return ec2_error(call, "InvalidUserData.Malformed",
				 "Invalid BASE64 encoding of user data");
	if (len > LIMIT_USER_DATA_BYTES)
		return ec2_error(call, "InvalidParameterValue", "User data is limited to %d bytes",
				 LIMIT_USER_DATA_BYTES);
	l->user_data = (struct wire_blob){.data = data, .len = len};
	return 0;
}

/* What of an address was asked for, in either form of the request. */
struct network_wish {
	const char *subnet_id, *address;
};

static int plan_interface(struct ec2_call *call,
			  const struct ec2_instance_network_interface_specification *n,
			  struct network_wish *w, struct launch *l)
{
	if (!n->device_index.set || n->device_index.value != 0 ||
	    (n->network_card_index.set && n->network_card_index.value != 0))
		return ec2_error(
		    call, "InvalidParameterValue",
		    "Instances have one network interface here: its DeviceIndex must be "
		    "given as 0, and its network card is 0");
	if (n->associate_public_ip_address.set && n->associate_public_ip_address.value)
		return ec2_error(call, "UnsupportedOperation",
				 "There are no public addresses in this cloud yet: "
				 "AssociatePublicIpAddress cannot be true");
	if (n->delete_on_termination.set && !n->delete_on_termination.value)
		return ec2_error(call, "UnsupportedOperation",
				 "A network interface ends with its instance here: "
				 "DeleteOnTermination cannot be false");
	if (n->interface_type && !str_eq(n->interface_type, "interface"))
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.64s) for parameter interfaceType is invalid: it must be "
				 "interface",
				 n->interface_type);
	if (n->description && strlen(n->description) > 255)
		return ec2_error(call, "InvalidParameterValue",
				 "The description of a network interface is limited to 255 bytes");
	w->subnet_id = n->subnet_id;
	w->address = n->private_ip_address;
	l->interface_description = n->description;
	return 0;
}

static int plan_address(struct ec2_call *call, const char *address, struct launch *l)
{
	if (!address || !*address)
		return 0;
	if (l->max > 1)
		return ec2_error(call, "InvalidParameterCombination",
				 "A private address can be asked for one instance, not for %zu",
				 l->max);
	if (ipv4_parse(address, &l->wanted_ip) < 0 || l->wanted_ip == 0)
		return ec2_error(
		    call, "InvalidParameterValue",
		    "Value (%.64s) for parameter privateIpAddress is invalid. It is no "
		    "IPv4 address.",
		    address);
	return 0;
}

static int default_subnet(struct ec2_call *call, struct records_subnet **ret)
{
	struct record_list subnets;
	int r = ec2_list(call, KIND_SUBNET, &subnets);

	if (r < 0)
		return r;
	for (size_t i = 0; i < subnets.count; i++) {
		struct records_subnet *s = subnets.items[i].value;

		if (s->default_for_az.set && s->default_for_az.value) {
			*ret = s;
			return 0;
		}
	}
	return ec2_error(call, "VPCIdNotSpecified", "No default VPC for this user: name a subnet");
}

static int plan_network(struct ec2_call *call, const struct ec2_run_instances_request *in,
			struct launch *l)
{
	struct network_wish w = {.subnet_id = in->subnet_id, .address = in->private_ip_address};
	int r;

	if (in->network_interfaces.count > 1)
		return ec2_error(call, "UnsupportedOperation",
				 "Instances have one network interface here, not %zu",
				 in->network_interfaces.count);
	if (in->network_interfaces.count == 1) {
		if (w.subnet_id || w.address)
			return ec2_error(call, "InvalidParameterCombination",
					 "Network interfaces and an instance-level %s may not be "
					 "specified on the same request",
					 w.subnet_id ? "subnet ID" : "private address");
		r = plan_interface(call, &in->network_interfaces.items[0], &w, l);
		if (r < 0)
			return r;
	}
	r = plan_address(call, w.address, l);
	if (r < 0)
		return r;
	if (w.subnet_id && *w.subnet_id)
		return ec2_get(call, KIND_SUBNET, w.subnet_id, &l->subnet);
	return default_subnet(call, &l->subnet);
}

static int plan_placement(struct ec2_call *call, const struct ec2_run_instances_request *in,
			  struct launch *l)
{
	const struct ec2_placement *p = in->placement;
	const char *behavior = in->instance_initiated_shutdown_behavior;

	/* An empty zone is none: Terraform sends it when it was given none. */
	if (p && p->availability_zone && *p->availability_zone &&
	    !str_eq(p->availability_zone, call->clc->zone))
		return ec2_error(call, "InvalidParameterValue",
				 "Invalid availability zone: [%.64s]", p->availability_zone);
	if (p && p->tenancy && !str_eq(p->tenancy, "default"))
		return ec2_error(call, "Unsupported", "Tenancy can only be default here, not %.64s",
				 p->tenancy);
	if (in->ebs_optimized.set && in->ebs_optimized.value)
		return ec2_error(
		    call, "Unsupported",
		    "The requested configuration is currently not supported: "
		    "volumes have no network of their own here, so EbsOptimized cannot be true");
	if (behavior && !str_eq(behavior, "stop") && !str_eq(behavior, "terminate"))
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.64s) for parameter instanceInitiatedShutdownBehavior is "
				 "invalid: it must be stop or terminate",
				 behavior);
	if (image_is_ebs(l->image)) {
		l->shutdown_behavior = behavior ? behavior : "stop";
		return 0;
	}
	if (behavior && str_eq(behavior, "stop"))
		return ec2_error(call, "InvalidParameterCombination",
				 "The attribute instanceInitiatedShutdownBehavior can only be stop "
				 "for EBS-backed images");
	l->shutdown_behavior = "terminate"; /* an instance-store disk does not survive a stop */
	return 0;
}

/* Options that clients send unasked, with the one value that is true of every instance here. */
static int plan_options(struct ec2_call *call, const struct ec2_run_instances_request *in,
			struct launch *l)
{
	const struct ec2_hibernation_options_request *h = in->hibernation_options;
	const struct ec2_credit_specification_request *c = in->credit_specification;

	if (h && h->configured.set && h->configured.value)
		return ec2_error(call, "UnsupportedHibernationConfiguration",
				 "Instances cannot hibernate here: HibernationOptions.Configured "
				 "can only be false");
	if (c && c->cpu_credits && !str_eq(c->cpu_credits, "unlimited"))
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.64s) for parameter CpuCredits is invalid: processors "
				 "are not rationed here, so it can only be unlimited",
				 c->cpu_credits);
	return 0;
}

static int plan_tags(struct ec2_call *call, const struct ec2_run_instances_request *in,
		     struct launch *l)
{
	static const char *const allowed[] = {"instance", "network-interface", "volume", NULL};
	const struct ec2_tag_specification_list *specs = &in->tag_specifications;
	int r = ec2_tags_from_specs(call, specs, allowed, "instance", &l->tags);

	if (r >= 0)
		r = ec2_tags_from_specs(call, specs, allowed, "network-interface",
					&l->interface_tags);
	if (r >= 0)
		r = ec2_tags_from_specs(call, specs, allowed, "volume", &l->volume_tags);
	if (r >= 0 && metadata_shows_tags(l->metadata))
		r = metadata_tags_check(call, &l->tags);
	return r;
}

static int plan_metadata(struct ec2_call *call, const struct ec2_run_instances_request *in,
			 struct launch *l)
{
	const struct ec2_instance_metadata_options_request *m = in->metadata_options;

	l->metadata = metadata_options_default(call->arena);
	if (!m)
		return 0;
	const struct metadata_options_change change = {
	    .http_tokens = m->http_tokens,
	    .http_endpoint = m->http_endpoint,
	    .http_protocol_ipv6 = m->http_protocol_ipv6,
	    .instance_metadata_tags = m->instance_metadata_tags,
	    .hop_limit = m->http_put_response_hop_limit,
	};
	return metadata_options_change(call, &change, l->metadata);
}

/* The same request again is one with the same hash: of its decoded form, without what may differ in
 * a retry. */
int launch_token(struct ec2_call *call, const struct ec2_run_instances_request *in,
		 struct launch *l)
{
	struct ec2_run_instances_request same = *in;
	const char *digest;

	if (!in->client_token || !*in->client_token)
		return 0;
	if (strlen(in->client_token) > LIMIT_CLIENT_TOKEN_CHARS)
		return ec2_error(call, "InvalidParameterValue",
				 "The client token has more than %d characters",
				 LIMIT_CLIENT_TOKEN_CHARS);
	for (const char *p = in->client_token; *p; p++)
		if (*p < 0x20 || *p > 0x7e)
			return ec2_error(call, "InvalidParameterValue",
					 "The client token has characters that are not ASCII");
	same.client_token = NULL;
	same.dry_run = (struct wire_bool){0};
	int r = ec2_request_digest(call, &ec2_shape_run_instances_request, &same, &digest);
	if (r < 0)
		return r;
	memcpy(l->request_sha256, digest, sizeof(l->request_sha256));
	l->token = in->client_token;
	return 0;
}

static int plan_key(struct ec2_call *call, const struct ec2_run_instances_request *in,
		    struct launch *l)
{
	if (!in->key_name || !*in->key_name)
		return 0;
	return ec2_key_pair_by_name(call, in->key_name, &l->key);
}

int launch_plan(struct ec2_call *call, const struct ec2_run_instances_request *in, struct launch *l)
{
	static int (*const steps[])(struct ec2_call *, const struct ec2_run_instances_request *,
				    struct launch *) = {
	    plan_counts,    plan_image,	   launch_plan_devices, plan_user_data, plan_network,
	    plan_placement, plan_options,  plan_metadata,  plan_tags,	plan_key,
	};

	l->disable_api_termination =
	    in->disable_api_termination.set && in->disable_api_termination.value;
	l->monitoring =
	    in->monitoring && in->monitoring->enabled.set && in->monitoring->enabled.value;
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		int r = steps[i](call, in, l);
		if (r < 0)
			return r;
	}
	return 0;
}
