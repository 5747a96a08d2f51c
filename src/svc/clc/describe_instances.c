/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>

#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/filters.h"
#include "svc/clc/instances.h"
#include "svc/clc/strmap.h"

enum {
	PAGE_MIN = 5,
	PAGE_MAX = 1000,
	/* Up to so many named instances their tags are read one by one, else all of the account's
	   at once. */
	FEW = 20,
};

#define NIC "NetworkInterfaces."

/* What no instance has here: an elastic address, one of IPv6, an outpost, an interface that a
 * service made. */
static void no_value(struct arena *a, const void *item, const void *parent,
		     struct filter_values *out)
{
}

static void is_false(struct arena *a, const void *item, const void *parent,
		     struct filter_values *out)
{
	filter_values_add(out, "false");
}

/* EC2's documented filters, by where the reply shows what they ask for. */
static const struct filter_field fields[] = {
    {"affinity", "Placement.Affinity"},
    {"architecture", "Architecture"},
    {"availability-zone", "Placement.AvailabilityZone"},
    {"block-device-mapping.attach-time", "BlockDeviceMappings.Ebs.AttachTime"},
    {"block-device-mapping.delete-on-termination", "BlockDeviceMappings.Ebs.DeleteOnTermination"},
    {"block-device-mapping.device-name", "BlockDeviceMappings.DeviceName"},
    {"block-device-mapping.status", "BlockDeviceMappings.Ebs.Status"},
    {"block-device-mapping.volume-id", "BlockDeviceMappings.Ebs.VolumeId"},
    {"boot-mode", "BootMode"},
    {"current-instance-boot-mode", "BootMode"},
    {"capacity-reservation-id", "CapacityReservationId"},
    {"client-token", "ClientToken"},
    {"dns-name", "PublicDnsName"},
    {"ebs-optimized", "EbsOptimized"},
    {"ena-support", "EnaSupport"},
    {"enclave-options.enabled", "EnclaveOptions.Enabled"},
    {"group-id", "Groups.GroupId", .of_parent = true},
    {"group-name", "Groups.GroupName", .of_parent = true},
    {"hibernation-options.configured", "HibernationOptions.Configured"},
    {"host-id", "Placement.HostId"},
    {"hypervisor", "Hypervisor"},
    {"iam-instance-profile.arn", "IamInstanceProfile.Arn"},
    {"iam-instance-profile.id", "IamInstanceProfile.Id"},
    {"image-id", "ImageId"},
    {"instance-id", "InstanceId"},
    {"instance-lifecycle", "InstanceLifecycle"},
    {"instance-state-code", "State.Code"},
    {"instance-state-name", "State.Name"},
    {"instance-type", "InstanceType"},
    {"instance.group-id", "SecurityGroups.GroupId"},
    {"instance.group-name", "SecurityGroups.GroupName"},
    {"ip-address", "PublicIpAddress"},
    {"ipv6-address", .get = no_value},
    {"kernel-id", "KernelId"},
    {"key-name", "KeyName"},
    {"launch-index", "AmiLaunchIndex"},
    {"launch-time", "LaunchTime"},
    {"maintenance-options.auto-recovery", "MaintenanceOptions.AutoRecovery"},
    {"metadata-options.http-endpoint", "MetadataOptions.HttpEndpoint"},
    {"metadata-options.http-protocol-ipv6", "MetadataOptions.HttpProtocolIpv6"},
    {"metadata-options.http-put-response-hop-limit", "MetadataOptions.HttpPutResponseHopLimit"},
    {"metadata-options.http-tokens", "MetadataOptions.HttpTokens"},
    {"metadata-options.instance-metadata-tags", "MetadataOptions.InstanceMetadataTags"},
    {"metadata-options.state", "MetadataOptions.State"},
    {"monitoring-state", "Monitoring.State"},
    {"network-interface.addresses.association.allocation-id", .get = no_value},
    {"network-interface.addresses.association.association-id", .get = no_value},
    {"network-interface.addresses.association.carrier-ip",
     NIC "PrivateIpAddresses.Association.CarrierIp"},
    {"network-interface.addresses.association.customer-owned-ip",
     NIC "PrivateIpAddresses.Association.CustomerOwnedIp"},
    {"network-interface.addresses.association.ip-owner-id",
     NIC "PrivateIpAddresses.Association.IpOwnerId"},
    {"network-interface.addresses.association.public-dns-name",
     NIC "PrivateIpAddresses.Association.PublicDnsName"},
    {"network-interface.addresses.association.public-ip",
     NIC "PrivateIpAddresses.Association.PublicIp"},
    {"network-interface.addresses.primary", NIC "PrivateIpAddresses.Primary"},
    {"network-interface.addresses.private-dns-name", NIC "PrivateIpAddresses.PrivateDnsName"},
    {"network-interface.addresses.private-ip-address", NIC "PrivateIpAddresses.PrivateIpAddress"},
    {"network-interface.association.allocation-id", .get = no_value},
    {"network-interface.association.association-id", .get = no_value},
    {"network-interface.association.carrier-ip", NIC "Association.CarrierIp"},
    {"network-interface.association.customer-owned-ip", NIC "Association.CustomerOwnedIp"},
    {"network-interface.association.ip-owner-id", NIC "Association.IpOwnerId"},
    {"network-interface.association.public-dns-name", NIC "Association.PublicDnsName"},
    {"network-interface.association.public-ip", NIC "Association.PublicIp"},
    {"network-interface.attachment.attach-time", NIC "Attachment.AttachTime"},
    {"network-interface.attachment.attachment-id", NIC "Attachment.AttachmentId"},
    {"network-interface.attachment.delete-on-termination", NIC "Attachment.DeleteOnTermination"},
    {"network-interface.attachment.device-index", NIC "Attachment.DeviceIndex"},
    /* An interface is attached to the instance that shows it, whose owner owns it. */
    {"network-interface.attachment.instance-id", "InstanceId"},
    {"network-interface.attachment.instance-owner-id", NIC "OwnerId"},
    {"network-interface.attachment.network-card-index", NIC "Attachment.NetworkCardIndex"},
    {"network-interface.attachment.status", NIC "Attachment.Status"},
    {"network-interface.availability-zone", "Placement.AvailabilityZone"},
    {"network-interface.description", NIC "Description"},
    {"network-interface.group-id", NIC "Groups.GroupId"},
    {"network-interface.group-name", NIC "Groups.GroupName"},
    {"network-interface.ipv4-prefixes.ipv4-prefix", NIC "Ipv4Prefixes.Ipv4Prefix"},
    {"network-interface.ipv6-address", NIC "Ipv6Addresses.Ipv6Address"},
    {"network-interface.ipv6-addresses.ipv6-address", NIC "Ipv6Addresses.Ipv6Address"},
    {"network-interface.ipv6-prefixes.ipv6-prefix", NIC "Ipv6Prefixes.Ipv6Prefix"},
    {"network-interface.mac-address", NIC "MacAddress"},
    {"network-interface.network-interface-id", NIC "NetworkInterfaceId"},
    {"network-interface.outpost-arn", .get = no_value},
    {"network-interface.owner-id", NIC "OwnerId"},
    {"network-interface.private-dns-name", NIC "PrivateDnsName"},
    {"network-interface.private-ip-address", NIC "PrivateIpAddress"},
    {"network-interface.public-dns-name", NIC "Association.PublicDnsName"},
    {"network-interface.requester-id", .get = no_value},
    {"network-interface.requester-managed", .get = is_false},
    {"network-interface.source-dest-check", NIC "SourceDestCheck"},
    {"network-interface.status", NIC "Status"},
    {"network-interface.subnet-id", NIC "SubnetId"},
    {"network-interface.vpc-id", NIC "VpcId"},
    {"outpost-arn", "OutpostArn"},
    {"owner-id", "OwnerId", .of_parent = true},
    {"placement-group-name", "Placement.GroupName"},
    {"placement-partition-number", "Placement.PartitionNumber"},
    {"platform", "Platform"},
    {"platform-details", "PlatformDetails"},
    {"private-dns-name", "PrivateDnsName"},
    {"private-dns-name-options.enable-resource-name-dns-a-record",
     "PrivateDnsNameOptions.EnableResourceNameDnsARecord"},
    {"private-dns-name-options.enable-resource-name-dns-aaaa-record",
     "PrivateDnsNameOptions.EnableResourceNameDnsAAAARecord"},
    {"private-dns-name-options.hostname-type", "PrivateDnsNameOptions.HostnameType"},
    {"private-ip-address", "PrivateIpAddress"},
    {"product-code", "ProductCodes.ProductCodeId"},
    {"product-code.type", "ProductCodes.ProductCodeType"},
    {"ramdisk-id", "RamdiskId"},
    {"reason", "StateTransitionReason"},
    {"requester-id", "RequesterId", .of_parent = true},
    {"reservation-id", "ReservationId", .of_parent = true},
    {"root-device-name", "RootDeviceName"},
    {"root-device-type", "RootDeviceType"},
    {"source-dest-check", "SourceDestCheck"},
    {"spot-instance-request-id", "SpotInstanceRequestId"},
    {"state-reason-code", "StateReason.Code"},
    {"state-reason-message", "StateReason.Message"},
    {"subnet-id", "SubnetId"},
    {"tenancy", "Placement.Tenancy"},
    {"tpm-support", "TpmSupport"},
    {"usage-operation", "UsageOperation"},
    {"usage-operation-update-time", "UsageOperationUpdateTime"},
    {"virtualization-type", "VirtualizationType"},
    {"vpc-id", "VpcId"},
};

static const struct filter_table table = {
    .item = &ec2_shape_instance,
    .parent = &ec2_shape_reservation,
    .tags = "Tags",
    .fields = fields,
    .count = ARRAY_SIZE(fields),
};

struct reader {
	struct ec2_call *call;
	struct tag_index *index; /* NULL: tags are read one by one */
};

static int read_tags(struct reader *rd, const char *id, struct ec2_tag_list *ret)
{
	struct shared_tag_list tags;

	if (rd->index) {
		*ret = tag_index_find(rd->index, id);
		return 0;
	}
	int r = tags_get(rd->call->clc, rd->call->arena, id, &tags, &rd->call->error);
	if (r >= 0)
		*ret = tags_to_reply(rd->call->arena, &tags);
	return r;
}

static int load(struct reader *rd, const struct wire_string_list *ids, struct record_list *ret)
{
	int r;

	if (ids->count)
		r = ec2_get_many(rd->call, KIND_INSTANCE, ids, ret);
	else
		r = record_scan(rd->call->clc, rd->call->arena, KIND_INSTANCE, rd->call->account_id,
				ret, &rd->call->error);
	if (r >= 0 && (!ids->count || ids->count > FEW))
		r = tag_index_load(rd->call, &rd->index);
	return r;
}

/* Instances that passed, in order, each with its reservation's id. */
struct found {
	size_t count;
	struct ec2_instance *items;
	const char **reservations;
};

static struct ec2_reservation reservation_of(const struct records_instance *i)
{
	return (struct ec2_reservation){
	    .reservation_id = i->reservation_id,
	    .owner_id = i->account_id,
	    .requester_id = i->requester_id,
	    .groups = {.set = true},
	    .instances = {.set = true},
	};
}

static int select_items(struct reader *rd, struct record_list *l, const struct filter_set *f,
			struct page *page, struct found *ret)
{
	struct found out = {
	    .items = arena_new_array(rd->call->arena, struct ec2_instance, l->count),
	    .reservations = arena_new_array(rd->call->arena, const char *, l->count),
	};

	for (size_t i = 0; i < l->count && !page->more; i++) {
		struct ec2_instance *item = &out.items[out.count];
		struct ec2_tag_list tags = {0};

		/* Not worth reading when an earlier page had it. */
		if (l->items[i].seq <= page->after_seq)
			continue;
		int r =
		    record_decode(rd->call->arena, KIND_INSTANCE, &l->items[i], &rd->call->error);
		if (r >= 0)
			r = read_tags(rd, l->items[i].id, &tags);
		if (r < 0)
			return r;
		const struct records_instance *rec = l->items[i].value;
		struct ec2_reservation parent = reservation_of(rec);
		instance_to_reply(rd->call, rec, tags, item);
		if (!filter_set_match(f, item, &parent) || !page_take(page, l->items[i].seq))
			continue;
		out.reservations[out.count++] = rec->reservation_id;
	}
	*ret = out;
	return 0;
}

/* The instances of a reservation are shown together, reservations in the order of their first
 * instance. */
static struct ec2_reservation_list group(struct ec2_call *call, const struct found *f)
{
	_cleanup_(strmap_freep) struct strmap *by_id = strmap_new();
	struct ec2_reservation_list out = {.set = true};
	size_t *room = arena_new_array(call->arena, size_t, f->count);

	out.items = arena_new_array(call->arena, struct ec2_reservation, f->count);
	for (size_t i = 0; i < f->count; i++) {
		struct ec2_reservation *r = strmap_get(by_id, f->reservations[i]);

		if (!r) {
			r = &out.items[out.count++];
			r->reservation_id = f->reservations[i];
			r->owner_id = call->account_id;
			r->groups.set = r->instances.set = true;
			strmap_put(by_id, r->reservation_id, r);
		}
		room[r - out.items]++;
	}
	for (size_t i = 0; i < out.count; i++)
		out.items[i].instances.items =
		    arena_new_array(call->arena, struct ec2_instance, room[i]);
	for (size_t i = 0; i < f->count; i++) {
		struct ec2_reservation *r = strmap_get(by_id, f->reservations[i]);

		r->instances.items[r->instances.count++] = f->items[i];
	}
	return out;
}

int ec2_describe_instances(struct ec2_call *call, const struct ec2_describe_instances_request *in,
			   struct ec2_describe_instances_result *out)
{
	struct reader rd = {.call = call};
	struct filter_set *filters;
	struct record_list l;
	struct page page;
	struct found found;
	int r = filter_set_new(call, &table, &in->filters, &filters);

	if (r >= 0)
		r = ec2_page(call, &in->max_results, in->next_token, in->instance_ids.count > 0,
			     PAGE_MIN, PAGE_MAX, &page);
	if (r >= 0)
		r = load(&rd, &in->instance_ids, &l);
	if (r >= 0)
		r = select_items(&rd, &l, filters, &page, &found);
	if (r < 0)
		return r;
	out->reservations = group(call, &found);
	out->next_token = page_token(call->arena, &page);
	return 0;
}
