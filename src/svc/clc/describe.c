/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/clc_priv.h"
#include "svc/clc/peer.h"
#include "svc/clc/filters.h"
#include "svc/clc/inventory.h"

/* What there is in this cloud besides what users make: its region, its zone, its accounts' limits,
 * their default network. */

/* ---- regions ---- */

static const struct filter_field region_fields[] = {
    {.name = "endpoint", .path = "Endpoint"},
    {.name = "opt-in-status", .path = "OptInStatus"},
    {.name = "region-name", .path = "RegionName"},
};
static const struct filter_table region_filters = {
    .item = &ec2_shape_region,
    .fields = region_fields,
    .count = ARRAY_SIZE(region_fields),
};

int ec2_describe_regions(struct ec2_call *call, const struct ec2_describe_regions_request *in,
			 struct ec2_describe_regions_result *out)
{
	const struct clc *c = call->clc;
	struct ec2_region *item = arena_new_struct(call->arena, struct ec2_region);
	struct filter_set *filters;
	int r = filter_set_new(call, &region_filters, &in->filters, &filters);

	if (r < 0)
		return r;
	for (size_t i = 0; i < in->region_names.count; i++)
		if (!str_eq(in->region_names.items[i], c->region))
			return ec2_error(call, "InvalidParameterValue", "Invalid region: %.60s",
					 in->region_names.items[i]);
	*item = (struct ec2_region){
	    .region_name = c->region,
	    .endpoint =
		arena_printf(call->arena, "%s:%u", settings_get(c->settings, SETTING_LISTEN),
			     settings_port(c->settings, PORT_API)),
	    .opt_in_status = "opt-in-not-required",
	};
	out->regions.set = true;
	out->regions.items = item;
	out->regions.count = filter_set_match(filters, item, NULL) ? 1 : 0;
	return 0;
}

/* ---- availability zones ---- */

static const struct filter_field zone_fields[] = {
    {.name = "group-name", .path = "GroupName"},
    {.name = "message", .path = "Messages.Message"},
    {.name = "opt-in-status", .path = "OptInStatus"},
    {.name = "parent-zone-id", .path = "ParentZoneId"},
    {.name = "parent-zone-name", .path = "ParentZoneName"},
    /* as Amazon's text spells them */
    {.name = "parent-zoneID", .path = "ParentZoneId"},
    {.name = "parent-zoneName", .path = "ParentZoneName"},
    {.name = "region-name", .path = "RegionName"},
    {.name = "state", .path = "State"},
    {.name = "zone-id", .path = "ZoneId"},
    {.name = "zone-name", .path = "ZoneName"},
    {.name = "zone-type", .path = "ZoneType"},
};
static const struct filter_table zone_filters = {
    .item = &ec2_shape_availability_zone,
    .fields = zone_fields,
    .count = ARRAY_SIZE(zone_fields),
};

/* A zone is available while its cluster controller answers. */
static struct ec2_availability_zone zone_item(struct ec2_call *call)
{
	const struct clc *c = call->clc;
	struct ec2_availability_zone item = {
	    .state = "available",
	    .opt_in_status = "opt-in-not-required",
	    .region_name = c->region,
	    .zone_name = c->zone,
	    .zone_id = clc_zone_id(call->clc, call->arena),
	    .group_name = c->region,
	    .network_border_group = c->region,
	    .zone_type = "availability-zone",
	    .messages = {.set = true},
	};
	struct error why = {0};

	if (!peer_reachable(c->cluster, &why)) {
		item.state = "unavailable";
		item.messages.count = 1;
		item.messages.items =
		    arena_new_struct(call->arena, struct ec2_availability_zone_message);
		item.messages.items[0].message = arena_strdup(call->arena, why.message);
	}
	return item;
}

int ec2_describe_availability_zones(struct ec2_call *call,
				    const struct ec2_describe_availability_zones_request *in,
				    struct ec2_describe_availability_zones_result *out)
{
	struct ec2_availability_zone *item =
	    arena_new_struct(call->arena, struct ec2_availability_zone);
	struct filter_set *filters;
	int r = filter_set_new(call, &zone_filters, &in->filters, &filters);

	if (r < 0)
		return r;
	*item = zone_item(call);
	for (size_t i = 0; i < in->zone_names.count; i++)
		if (!str_eq(in->zone_names.items[i], item->zone_name))
			return ec2_error(call, "InvalidParameterValue",
					 "Invalid availability zone: [%.60s]",
					 in->zone_names.items[i]);
	for (size_t i = 0; i < in->zone_ids.count; i++)
		if (!str_eq(in->zone_ids.items[i], item->zone_id))
			return ec2_error(call, "InvalidParameterValue",
					 "Invalid availability zone-id: [%.60s]",
					 in->zone_ids.items[i]);
	out->availability_zones.set = true;
	out->availability_zones.items = item;
	out->availability_zones.count = filter_set_match(filters, item, NULL) ? 1 : 0;
	return 0;
}

/* ---- account attributes ---- */

struct attribute {
	const char *name, *value; /* value NULL: the id of the account's default VPC */
};

static const char *default_vpc(struct ec2_call *call)
{
	struct record_list vpcs;

	if (ec2_list(call, KIND_VPC, &vpcs) < 0)
		return "none";
	for (size_t i = 0; i < vpcs.count; i++) {
		const struct records_vpc *v = vpcs.items[i].value;

		if (v->is_default.value)
			return v->vpc_id;
	}
	return "none";
}

int ec2_describe_account_attributes(struct ec2_call *call,
				    const struct ec2_describe_account_attributes_request *in,
				    struct ec2_describe_account_attributes_result *out)
{
	/* There are no elastic addresses and no security groups yet: limits of zero say so
	 * truthfully. */
	const struct attribute all[] = {
	    {"supported-platforms", "VPC"},
	    {"default-vpc", NULL},
	    {"max-instances", arena_printf(call->arena, "%d", LIMIT_INSTANCES_PER_ACCOUNT)},
	    {"vpc-max-security-groups-per-interface", "0"},
	    {"max-elastic-ips", "0"},
	    {"vpc-max-elastic-ips", "0"},
	};
	struct ec2_account_attribute *items =
	    arena_new_array(call->arena, struct ec2_account_attribute, ARRAY_SIZE(all));

	for (size_t i = 0; i < in->attribute_names.count; i++) {
		bool known = false;

		for (size_t j = 0; j < ARRAY_SIZE(all); j++)
			known = known || str_eq(all[j].name, in->attribute_names.items[i]);
		if (!known)
			return ec2_error(call, "InvalidParameterValue",
					 "Value (%.60s) for parameter attributeName is invalid.",
					 in->attribute_names.items[i]);
	}
	out->account_attributes.set = true;
	out->account_attributes.items = items;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		struct ec2_account_attribute_value *value;

		if (!list_asks(&in->attribute_names, all[i].name))
			continue;
		value = arena_new_struct(call->arena, struct ec2_account_attribute_value);
		value->attribute_value = all[i].value ? all[i].value : default_vpc(call);
		items[out->account_attributes.count++] = (struct ec2_account_attribute){
		    .attribute_name = all[i].name,
		    .attribute_values = {.set = true, .count = 1, .items = value},
		};
	}
	return 0;
}

/* ---- VPCs ---- */

static const struct filter_field vpc_fields[] = {
    {.name = "cidr", .path = "CidrBlock"},
    {.name = "cidrBlock", .path = "CidrBlock"},
    {.name = "cidr-block-association.association-id",
     .path = "CidrBlockAssociationSet.AssociationId"},
    {.name = "cidr-block-association.cidr-block", .path = "CidrBlockAssociationSet.CidrBlock"},
    {.name = "cidr-block-association.state",
     .path = "CidrBlockAssociationSet.CidrBlockState.State"},
    {.name = "dhcp-options-id", .path = "DhcpOptionsId"},
    {.name = "dhcpOptionsId", .path = "DhcpOptionsId"},
    {.name = "ipv6-cidr-block-association.association-id",
     .path = "Ipv6CidrBlockAssociationSet.AssociationId"},
    {.name = "ipv6-cidr-block-association.ipv6-cidr-block",
     .path = "Ipv6CidrBlockAssociationSet.Ipv6CidrBlock"},
    {.name = "ipv6-cidr-block-association.ipv6-pool",
     .path = "Ipv6CidrBlockAssociationSet.Ipv6Pool"},
    {.name = "ipv6-cidr-block-association.state",
     .path = "Ipv6CidrBlockAssociationSet.Ipv6CidrBlockState.State"},
    {.name = "is-default", .path = "IsDefault"},
    {.name = "isDefault", .path = "IsDefault"},
    {.name = "owner-id", .path = "OwnerId"},
    {.name = "state", .path = "State"},
    {.name = "vpc-id", .path = "VpcId"},
};
static const struct filter_table vpc_filters = {
    .item = &ec2_shape_vpc,
    .tags = "Tags",
    .fields = vpc_fields,
    .count = ARRAY_SIZE(vpc_fields),
};

/* The ids or all; ids and paging exclude each other. */
static int list_or_get(struct ec2_call *call, enum clc_kind kind,
		       const struct wire_string_list *ids, const struct wire_int *max_results,
		       const char *next_token, struct page *page, struct record_list *ret)
{
	int r = ec2_page(call, max_results, next_token, ids->count > 0, 5, 1000, page);

	if (r < 0)
		return r;
	return ids->count ? ec2_get_many(call, kind, ids, ret) : ec2_list(call, kind, ret);
}

static struct ec2_vpc vpc_item(struct ec2_call *call, const struct records_vpc *v,
			       const struct tag_index *tags)
{
	struct ec2_vpc_cidr_block_association *assoc =
	    arena_new_struct(call->arena, struct ec2_vpc_cidr_block_association);

	assoc->association_id =
	    arena_printf(call->arena, "vpc-cidr-assoc-%s", v->vpc_id + strlen("vpc-"));
	assoc->cidr_block = v->cidr_block;
	assoc->cidr_block_state = arena_new_struct(call->arena, struct ec2_vpc_cidr_block_state);
	assoc->cidr_block_state->state = "associated";
	return (struct ec2_vpc){
	    .vpc_id = v->vpc_id,
	    .owner_id = v->account_id,
	    .cidr_block = v->cidr_block,
	    .cidr_block_association_set = {.set = true, .count = 1, .items = assoc},
	    .dhcp_options_id = v->dhcp_options_id,
	    .instance_tenancy = "default",
	    .is_default = v->is_default,
	    .state = "available",
	    .tags = tag_index_find(tags, v->vpc_id),
	};
}

int ec2_describe_vpcs(struct ec2_call *call, const struct ec2_describe_vpcs_request *in,
		      struct ec2_describe_vpcs_result *out)
{
	struct filter_set *filters;
	struct tag_index *tags;
	struct record_list all;
	struct page page;
	int r = filter_set_new(call, &vpc_filters, &in->filters, &filters);

	if (r == 0)
		r = list_or_get(call, KIND_VPC, &in->vpc_ids, &in->max_results, in->next_token,
				&page, &all);
	if (r == 0)
		r = tag_index_load(call, &tags);
	if (r < 0)
		return r;
	out->vpcs.set = true;
	out->vpcs.items = arena_new_array(call->arena, struct ec2_vpc, all.count);
	for (size_t i = 0; i < all.count; i++) {
		const struct ec2_vpc item = vpc_item(call, all.items[i].value, tags);

		if (filter_set_match(filters, &item, NULL) && page_take(&page, all.items[i].seq))
			out->vpcs.items[out->vpcs.count++] = item;
	}
	out->next_token = page_token(call->arena, &page);
	return 0;
}

/* ---- subnets ---- */

static const struct filter_field subnet_fields[] = {
    {.name = "availability-zone", .path = "AvailabilityZone"},
    {.name = "availabilityZone", .path = "AvailabilityZone"},
    {.name = "availability-zone-id", .path = "AvailabilityZoneId"},
    {.name = "availabilityZoneId", .path = "AvailabilityZoneId"},
    {.name = "available-ip-address-count", .path = "AvailableIpAddressCount"},
    {.name = "cidr-block", .path = "CidrBlock"},
    {.name = "cidr", .path = "CidrBlock"},
    {.name = "cidrBlock", .path = "CidrBlock"},
    {.name = "customer-owned-ipv4-pool", .path = "CustomerOwnedIpv4Pool"},
    {.name = "default-for-az", .path = "DefaultForAz"},
    {.name = "defaultForAz", .path = "DefaultForAz"},
    {.name = "enable-dns64", .path = "EnableDns64"},
    {.name = "enable-lni-at-device-index", .path = "EnableLniAtDeviceIndex"},
    {.name = "ipv6-cidr-block-association.association-id",
     .path = "Ipv6CidrBlockAssociationSet.AssociationId"},
    {.name = "ipv6-cidr-block-association.ipv6-cidr-block",
     .path = "Ipv6CidrBlockAssociationSet.Ipv6CidrBlock"},
    {.name = "ipv6-cidr-block-association.state",
     .path = "Ipv6CidrBlockAssociationSet.Ipv6CidrBlockState.State"},
    {.name = "ipv6-native", .path = "Ipv6Native"},
    {.name = "map-customer-owned-ip-on-launch", .path = "MapCustomerOwnedIpOnLaunch"},
    {.name = "map-public-ip-on-launch", .path = "MapPublicIpOnLaunch"},
    {.name = "outpost-arn", .path = "OutpostArn"},
    {.name = "owner-id", .path = "OwnerId"},
    {.name = "private-dns-name-options-on-launch.hostname-type",
     .path = "PrivateDnsNameOptionsOnLaunch.HostnameType"},
    {.name = "private-dns-name-options-on-launch.enable-resource-name-dns-a-record",
     .path = "PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsARecord"},
    {.name = "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record",
     .path = "PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsAAAARecord"},
    {.name = "state", .path = "State"},
    {.name = "subnet-arn", .path = "SubnetArn"},
    {.name = "subnet-id", .path = "SubnetId"},
    {.name = "vpc-id", .path = "VpcId"},
};
static const struct filter_table subnet_filters = {
    .item = &ec2_shape_subnet,
    .tags = "Tags",
    .fields = subnet_fields,
    .count = ARRAY_SIZE(subnet_fields),
};

static struct ec2_subnet subnet_item(struct ec2_call *call, const struct records_subnet *s,
				     const struct tag_index *tags)
{
	struct ec2_private_dns_name_options_on_launch *dns =
	    arena_new_struct(call->arena, struct ec2_private_dns_name_options_on_launch);

	*dns = (struct ec2_private_dns_name_options_on_launch){
	    .hostname_type = "ip-name",
	    .enable_resource_name_dns_a_record = WIRE_BOOL_OF(false),
	    .enable_resource_name_dns_aaaa_record = WIRE_BOOL_OF(false),
	};
	return (struct ec2_subnet){
	    .subnet_id = s->subnet_id,
	    .subnet_arn = arena_printf(call->arena, "arn:aws:ec2:%s:%s:subnet/%s",
				       call->clc->region, s->account_id, s->subnet_id),
	    .vpc_id = s->vpc_id,
	    .owner_id = s->account_id,
	    .cidr_block = s->cidr_block,
	    .availability_zone = s->availability_zone,
	    .availability_zone_id = clc_zone_id(call->clc, call->arena),
	    .available_ip_address_count =
		WIRE_INT_OF((int64_t)inventory_free_addresses(call->clc->inventory)),
	    .default_for_az = s->default_for_az,
	    .map_public_ip_on_launch = WIRE_BOOL_OF(false),
	    .map_customer_owned_ip_on_launch = WIRE_BOOL_OF(false),
	    .assign_ipv6_address_on_creation = WIRE_BOOL_OF(false),
	    .ipv6_cidr_block_association_set = {.set = true},
	    .enable_dns64 = WIRE_BOOL_OF(false),
	    .ipv6_native = WIRE_BOOL_OF(false),
	    .private_dns_name_options_on_launch = dns,
	    .state = "available",
	    .tags = tag_index_find(tags, s->subnet_id),
	};
}

int ec2_describe_subnets(struct ec2_call *call, const struct ec2_describe_subnets_request *in,
			 struct ec2_describe_subnets_result *out)
{
	struct filter_set *filters;
	struct tag_index *tags;
	struct record_list all;
	struct page page;
	int r = filter_set_new(call, &subnet_filters, &in->filters, &filters);

	if (r == 0)
		r = list_or_get(call, KIND_SUBNET, &in->subnet_ids, &in->max_results,
				in->next_token, &page, &all);
	if (r == 0)
		r = tag_index_load(call, &tags);
	if (r < 0)
		return r;
	out->subnets.set = true;
	out->subnets.items = arena_new_array(call->arena, struct ec2_subnet, all.count);
	for (size_t i = 0; i < all.count; i++) {
		const struct ec2_subnet item = subnet_item(call, all.items[i].value, tags);

		if (filter_set_match(filters, &item, NULL) && page_take(&page, all.items[i].seq))
			out->subnets.items[out->subnets.count++] = item;
	}
	out->next_token = page_token(call->arena, &page);
	return 0;
}
