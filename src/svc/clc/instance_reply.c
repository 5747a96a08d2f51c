/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "svc/clc/instances.h"
#include "svc/clc/volumes.h"

struct ec2_instance_state *instance_state_to_reply(struct arena *a, enum instance_state s)
{
	struct ec2_instance_state *out = arena_new_struct(a, struct ec2_instance_state);

	out->code = WIRE_INT_OF(instance_state_code(s));
	out->name = instance_state_name(s);
	return out;
}

struct ec2_instance_metadata_options_response *
metadata_options_to_reply(struct arena *a, const struct records_instance *i)
{
	struct ec2_instance_metadata_options_response *out =
	    arena_new_struct(a, struct ec2_instance_metadata_options_response);
	const struct shared_metadata_options *o =
	    i->metadata_options ? i->metadata_options : metadata_options_default(a);

	out->state = instance_state_of(i) == INSTANCE_PENDING ? "pending" : "applied";
	out->http_tokens = o->http_tokens;
	out->http_endpoint = o->http_endpoint;
	out->http_put_response_hop_limit = o->http_put_response_hop_limit;
	out->http_protocol_ipv6 = "disabled";
	out->instance_metadata_tags = o->instance_metadata_tags;
	return out;
}

static struct ec2_state_reason *reason_to_reply(struct arena *a, const struct records_instance *i)
{
	struct ec2_state_reason *out = arena_new_struct(a, struct ec2_state_reason);

	out->code = i->state_reason_code;
	out->message = i->state_reason_message;
	if (!out->code && instance_state_of(i) == INSTANCE_PENDING)
		out->code = out->message = "pending";
	return out->code ? out : NULL;
}

/* The primary interface, the only one. */
static struct ec2_instance_network_interface_list interfaces(struct ec2_call *call,
							     const struct records_instance *i)
{
	struct arena *a = call->arena;
	struct ec2_instance_network_interface *n =
	    arena_new_struct(a, struct ec2_instance_network_interface);
	struct ec2_instance_private_ip_address *ip =
	    arena_new_struct(a, struct ec2_instance_private_ip_address);
	struct ec2_instance_network_interface_attachment *at =
	    arena_new_struct(a, struct ec2_instance_network_interface_attachment);

	at->attachment_id = i->network_interface_attachment_id;
	at->attach_time = i->interface_attach_time.set ? i->interface_attach_time : i->launch_time;
	at->delete_on_termination = WIRE_BOOL_OF(true);
	at->device_index = WIRE_INT_OF(0);
	at->network_card_index = WIRE_INT_OF(0);
	at->status = instance_state_of(i) == INSTANCE_PENDING ? "attaching" : "attached";
	ip->primary = WIRE_BOOL_OF(true);
	ip->private_dns_name = i->private_dns_name;
	ip->private_ip_address = i->private_ip;
	*n = (struct ec2_instance_network_interface){
	    .attachment = at,
	    .description = i->network_interface_description ? i->network_interface_description : "",
	    .groups = {.set = true},
	    .ipv6_addresses = {.set = true},
	    .mac_address = i->mac_address,
	    .network_interface_id = i->network_interface_id,
	    .owner_id = i->account_id,
	    .private_dns_name = i->private_dns_name,
	    .private_ip_address = i->private_ip,
	    .private_ip_addresses = {.set = true, .count = 1, .items = ip},
	    .source_dest_check = WIRE_BOOL_OF(true),
	    .status = "in-use",
	    .subnet_id = i->subnet_id,
	    .vpc_id = i->vpc_id,
	    .interface_type = "interface",
	};
	return (struct ec2_instance_network_interface_list){.set = true, .count = 1, .items = n};
}

/* A terminated instance has lost its network, as EC2 shows it. */
static void fill_network(struct ec2_call *call, const struct records_instance *i,
			 struct ec2_instance *out)
{
	out->network_interfaces.set = true;
	out->security_groups.set = true;
	out->private_dns_name = "";
	out->public_dns_name = "";
	if (!instance_state_live(instance_state_of(i)))
		return;
	out->network_interfaces = interfaces(call, i);
	out->private_dns_name = i->private_dns_name;
	out->private_ip_address = i->private_ip;
	out->subnet_id = i->subnet_id;
	out->vpc_id = i->vpc_id;
	out->source_dest_check = WIRE_BOOL_OF(true);
}

struct ec2_instance_block_device_mapping_list
instance_devices_to_reply(struct arena *a, const struct records_instance *i)
{
	struct ec2_instance_block_device_mapping_list out = {.set = true,
							     .count = i->block_devices.count};

	out.items = arena_new_array(a, struct ec2_instance_block_device_mapping, out.count);
	for (size_t n = 0; n < out.count; n++) {
		const struct records_instance_block_device *d = &i->block_devices.items[n];
		struct ec2_ebs_instance_block_device *e =
		    arena_new_struct(a, struct ec2_ebs_instance_block_device);

		/* "busy" is a volume's word: here it is still on its way. */
		e->status = attachment_state_of(d) == ATTACHMENT_BUSY
				? attachment_state_name(ATTACHMENT_DETACHING)
				: d->state;
		e->volume_id = d->volume_id;
		e->attach_time = d->attach_time;
		e->delete_on_termination = WIRE_BOOL_OF(d->delete_on_termination.value);
		out.items[n] = (struct ec2_instance_block_device_mapping){
		    .device_name = d->device_name, .ebs = e};
	}
	return out;
}

static void fill_constants(struct arena *a, const struct records_instance *i,
			   struct ec2_instance *out)
{
	out->product_codes.set = true;
	out->block_device_mappings = instance_devices_to_reply(a, i);
	out->hypervisor = "xen"; /* what EC2 says of every instance, whatever runs it */
	out->virtualization_type = "hvm";
	out->root_device_type = instance_is_ebs(i) ? "ebs" : "instance-store";
	out->ebs_optimized = WIRE_BOOL_OF(false);
	out->ena_support = WIRE_BOOL_OF(false);
	out->platform_details = "Linux/UNIX";
	out->usage_operation = "RunInstances";
	out->usage_operation_update_time =
	    i->interface_attach_time.set ? i->interface_attach_time : i->launch_time;
	out->boot_mode = "legacy-bios";
	out->sriov_net_support = i->sriov_net_support;
	out->hibernation_options = arena_new_struct(a, struct ec2_hibernation_options);
	out->hibernation_options->configured = WIRE_BOOL_OF(false);
	out->enclave_options = arena_new_struct(a, struct ec2_enclave_options);
	out->enclave_options->enabled = WIRE_BOOL_OF(false);
	out->maintenance_options = arena_new_struct(a, struct ec2_instance_maintenance_options);
	out->maintenance_options->auto_recovery = "disabled";
	out->private_dns_name_options =
	    arena_new_struct(a, struct ec2_private_dns_name_options_response);
	out->private_dns_name_options->hostname_type = "ip-name";
	out->private_dns_name_options->enable_resource_name_dns_a_record = WIRE_BOOL_OF(false);
	out->private_dns_name_options->enable_resource_name_dns_aaaa_record = WIRE_BOOL_OF(false);
}

void instance_to_reply(struct ec2_call *call, const struct records_instance *i,
		       struct ec2_tag_list tags, struct ec2_instance *out)
{
	struct arena *a = call->arena;

	*out = (struct ec2_instance){
	    .ami_launch_index = i->ami_launch_index,
	    .image_id = i->image_id,
	    .instance_id = i->instance_id,
	    .instance_type = i->instance_type,
	    .key_name = i->key_name,
	    .launch_time = i->launch_time,
	    .client_token = i->client_token ? i->client_token : "",
	    .architecture = i->architecture ? i->architecture : "x86_64",
	    .root_device_name = i->root_device_name,
	    .state = instance_state_to_reply(a, instance_state_of(i)),
	    .state_transition_reason = i->state_transition_reason ? i->state_transition_reason : "",
	    .state_reason = reason_to_reply(a, i),
	    .metadata_options = metadata_options_to_reply(a, i),
	    .tags = tags,
	    .monitoring = arena_new_struct(a, struct ec2_monitoring),
	    .placement = arena_new_struct(a, struct ec2_placement),
	    .cpu_options = arena_new_struct(a, struct ec2_cpu_options),
	};
	out->monitoring->state =
	    i->monitoring_enabled.set && i->monitoring_enabled.value ? "enabled" : "disabled";
	out->placement->availability_zone = i->availability_zone;
	out->placement->group_name = "";
	out->placement->tenancy = i->tenancy ? i->tenancy : "default";
	out->cpu_options->core_count = i->vcpus;
	out->cpu_options->threads_per_core = WIRE_INT_OF(1);
	fill_constants(a, i, out);
	fill_network(call, i, out);
}
