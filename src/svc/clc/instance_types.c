/* SPDX-License-Identifier: Apache-2.0 */
#include "model/instance_type.h"

#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/clc_priv.h"
#include "svc/clc/filters.h"

static const struct filter_field type_fields[] = {
    {.name = "auto-recovery-supported", .path = "AutoRecoverySupported"},
    {.name = "bare-metal", .path = "BareMetal"},
    {.name = "burstable-performance-supported", .path = "BurstablePerformanceSupported"},
    {.name = "current-generation", .path = "CurrentGeneration"},
    {.name = "dedicated-hosts-supported", .path = "DedicatedHostsSupported"},
    {.name = "ebs-info.ebs-optimized-info.baseline-bandwidth-in-mbps",
     .path = "EbsInfo.EbsOptimizedInfo.BaselineBandwidthInMbps"},
    {.name = "ebs-info.ebs-optimized-info.baseline-iops",
     .path = "EbsInfo.EbsOptimizedInfo.BaselineIops"},
    {.name = "ebs-info.ebs-optimized-info.baseline-throughput-in-mbps",
     .path = "EbsInfo.EbsOptimizedInfo.BaselineThroughputInMBps"},
    {.name = "ebs-info.ebs-optimized-info.maximum-bandwidth-in-mbps",
     .path = "EbsInfo.EbsOptimizedInfo.MaximumBandwidthInMbps"},
    {.name = "ebs-info.ebs-optimized-info.maximum-iops",
     .path = "EbsInfo.EbsOptimizedInfo.MaximumIops"},
    {.name = "ebs-info.ebs-optimized-info.maximum-throughput-in-mbps",
     .path = "EbsInfo.EbsOptimizedInfo.MaximumThroughputInMBps"},
    {.name = "ebs-info.ebs-optimized-support", .path = "EbsInfo.EbsOptimizedSupport"},
    {.name = "ebs-info.encryption-support", .path = "EbsInfo.EncryptionSupport"},
    {.name = "ebs-info.nvme-support", .path = "EbsInfo.NvmeSupport"},
    {.name = "free-tier-eligible", .path = "FreeTierEligible"},
    {.name = "hibernation-supported", .path = "HibernationSupported"},
    {.name = "hypervisor", .path = "Hypervisor"},
    {.name = "instance-storage-info.disk.count", .path = "InstanceStorageInfo.Disks.Count"},
    {.name = "instance-storage-info.disk.size-in-gb", .path = "InstanceStorageInfo.Disks.SizeInGB"},
    {.name = "instance-storage-info.disk.type", .path = "InstanceStorageInfo.Disks.Type"},
    {.name = "instance-storage-info.encryption-support",
     .path = "InstanceStorageInfo.EncryptionSupport"},
    {.name = "instance-storage-info.nvme-support", .path = "InstanceStorageInfo.NvmeSupport"},
    {.name = "instance-storage-info.total-size-in-gb", .path = "InstanceStorageInfo.TotalSizeInGB"},
    {.name = "instance-storage-supported", .path = "InstanceStorageSupported"},
    {.name = "instance-type", .path = "InstanceType"},
    {.name = "memory-info.size-in-mib", .path = "MemoryInfo.SizeInMiB"},
    {.name = "network-info.efa-info.maximum-efa-interfaces",
     .path = "NetworkInfo.EfaInfo.MaximumEfaInterfaces"},
    {.name = "network-info.efa-supported", .path = "NetworkInfo.EfaSupported"},
    {.name = "network-info.ena-support", .path = "NetworkInfo.EnaSupport"},
    {.name = "network-info.encryption-in-transit-supported",
     .path = "NetworkInfo.EncryptionInTransitSupported"},
    {.name = "network-info.ipv4-addresses-per-interface",
     .path = "NetworkInfo.Ipv4AddressesPerInterface"},
    {.name = "network-info.ipv6-addresses-per-interface",
     .path = "NetworkInfo.Ipv6AddressesPerInterface"},
    {.name = "network-info.ipv6-supported", .path = "NetworkInfo.Ipv6Supported"},
    {.name = "network-info.maximum-network-cards", .path = "NetworkInfo.MaximumNetworkCards"},
    {.name = "network-info.maximum-network-interfaces",
     .path = "NetworkInfo.MaximumNetworkInterfaces"},
    {.name = "network-info.network-performance", .path = "NetworkInfo.NetworkPerformance"},
    {.name = "processor-info.supported-architecture",
     .path = "ProcessorInfo.SupportedArchitectures"},
    {.name = "processor-info.sustained-clock-speed-in-ghz",
     .path = "ProcessorInfo.SustainedClockSpeedInGhz"},
    {.name = "supported-boot-mode", .path = "SupportedBootModes"},
    {.name = "supported-root-device-type", .path = "SupportedRootDeviceTypes"},
    {.name = "supported-usage-class", .path = "SupportedUsageClasses"},
    {.name = "supported-virtualization-type", .path = "SupportedVirtualizationTypes"},
    {.name = "vcpu-info.default-cores", .path = "VCpuInfo.DefaultCores"},
    {.name = "vcpu-info.default-threads-per-core", .path = "VCpuInfo.DefaultThreadsPerCore"},
    {.name = "vcpu-info.default-vcpus", .path = "VCpuInfo.DefaultVCpus"},
    {.name = "vcpu-info.valid-cores", .path = "VCpuInfo.ValidCores"},
    {.name = "vcpu-info.valid-threads-per-core", .path = "VCpuInfo.ValidThreadsPerCore"},
};
static const struct filter_table type_filters = {
    .item = &ec2_shape_instance_type_info,
    .fields = type_fields,
    .count = ARRAY_SIZE(type_fields),
};

static struct wire_string_list one_string(struct arena *a, const char *s)
{
	const char **items = arena_new_array(a, const char *, 1);

	items[0] = s;
	return (struct wire_string_list){.set = true, .count = 1, .items = items};
}

static struct wire_int_list one_int(struct arena *a, int64_t n)
{
	int64_t *items = arena_new_array(a, int64_t, 1);

	items[0] = n;
	return (struct wire_int_list){.set = true, .count = 1, .items = items};
}

/* A copy of a structure in the arena, for replies: `return IN_ARENA(a, struct x, { .y = 1 })`. */
#define IN_ARENA(a, T, ...) ((T *)arena_memdup((a), &(T)__VA_ARGS__, sizeof(T)))

static struct wire_string_list root_types(struct arena *a)
{
	const char **items = arena_new_array(a, const char *, 2);

	items[0] = "ebs";
	items[1] = "instance-store";
	return (struct wire_string_list){.set = true, .count = 2, .items = items};
}

static struct ec2_network_info *network_of_type(struct arena *a)
{
	struct ec2_network_card_info *card =
	    IN_ARENA(a, struct ec2_network_card_info,
		     {.network_card_index = WIRE_INT_OF(0),
		      .network_performance = "Not limited",
		      .maximum_network_interfaces = WIRE_INT_OF(1)});

	return IN_ARENA(a, struct ec2_network_info,
			{
			    .network_performance = card->network_performance,
			    .maximum_network_interfaces = WIRE_INT_OF(1),
			    .maximum_network_cards = WIRE_INT_OF(1),
			    .default_network_card_index = WIRE_INT_OF(0),
			    .network_cards = {.set = true, .count = 1, .items = card},
			    .ipv4_addresses_per_interface = WIRE_INT_OF(1),
			    .ipv6_addresses_per_interface = WIRE_INT_OF(0),
			    .ipv6_supported = WIRE_BOOL_OF(false),
			    .ena_support = "unsupported",
			    .efa_supported = WIRE_BOOL_OF(false),
			    .encryption_in_transit_supported = WIRE_BOOL_OF(false),
			    .ena_srd_supported = WIRE_BOOL_OF(false),
			});
}

/* Whole disks of a node: how large they are the nodes know. NULL: the type has none. */
static struct ec2_instance_storage_info *storage_of_type(struct arena *a,
							 const struct instance_type *t)
{
	if (!t->local_disks)
		return NULL;
	struct ec2_disk_info *disk = IN_ARENA(
	    a, struct ec2_disk_info, {.count = WIRE_INT_OF(t->local_disks), .type = "hdd"});

	return IN_ARENA(a, struct ec2_instance_storage_info,
			{
			    .disks = {.set = true, .count = 1, .items = disk},
			    .nvme_support = "unsupported",
			    .encryption_support = "unsupported",
			});
}

/* What a type is on this cloud: one interface; a root that is a volume, or a disk of the node's (the instance storage that it has,
 * of which an ebs root leaves nothing to be had). */
static struct ec2_instance_type_info type_item(struct arena *a, const struct instance_type *t)
{
	return (struct ec2_instance_type_info){
	    .instance_type = t->name,
	    .current_generation = WIRE_BOOL_OF(t->current_generation),
	    .free_tier_eligible = WIRE_BOOL_OF(t->free_tier),
	    .supported_usage_classes = one_string(a, "on-demand"),
	    .supported_root_device_types = root_types(a),
	    .supported_virtualization_types = one_string(a, "hvm"),
	    .bare_metal = WIRE_BOOL_OF(false),
	    .hypervisor = "nitro", /* EC2's word for KVM */
	    .processor_info = IN_ARENA(a, struct ec2_processor_info,
				       {.supported_architectures = one_string(a, "x86_64")}),
	    .v_cpu_info = IN_ARENA(a, struct ec2_v_cpu_info,
				   {
				       .default_v_cpus = WIRE_INT_OF(t->vcpus),
				       .default_cores = WIRE_INT_OF(t->vcpus),
				       .default_threads_per_core = WIRE_INT_OF(1),
				       .valid_cores = one_int(a, t->vcpus),
				       .valid_threads_per_core = one_int(a, 1),
				   }),
	    .memory_info =
		IN_ARENA(a, struct ec2_memory_info, {.size_in_mi_b = WIRE_INT_OF(t->memory_mib)}),
	    .instance_storage_supported = WIRE_BOOL_OF(t->local_disks > 0),
	    .instance_storage_info = storage_of_type(a, t),
	    .ebs_info = IN_ARENA(a, struct ec2_ebs_info,
				 {.ebs_optimized_support = "unsupported",
				  .encryption_support = "supported",
				  .nvme_support = "unsupported"}),
	    .network_info = network_of_type(a),
	    .placement_group_info = IN_ARENA(a, struct ec2_placement_group_info,
					     {.supported_strategies = {.set = true}}),
	    .hibernation_supported = WIRE_BOOL_OF(false),
	    .burstable_performance_supported =
		WIRE_BOOL_OF(false), /* processors are not rationed by credits */
	    .dedicated_hosts_supported = WIRE_BOOL_OF(false),
	    .auto_recovery_supported = WIRE_BOOL_OF(true),
	    .supported_boot_modes = one_string(a, "legacy-bios"),
	};
}

int ec2_describe_instance_types(struct ec2_call *call,
				const struct ec2_describe_instance_types_request *in,
				struct ec2_describe_instance_types_result *out)
{
	struct filter_set *filters;
	struct page page;
	int r = filter_set_new(call, &type_filters, &in->filters, &filters);

	if (r == 0)
		r = ec2_page(call, &in->max_results, in->next_token, in->instance_types.count > 0,
			     5, 100, &page);
	if (r < 0)
		return r;
	for (size_t i = 0; i < in->instance_types.count; i++)
		if (!instance_type_find(in->instance_types.items[i]))
			return ec2_error(
			    call, "InvalidInstanceType",
			    "The following supplied instance types do not exist: [%.60s]",
			    in->instance_types.items[i]);
	out->instance_types.set = true;
	out->instance_types.items =
	    arena_new_array(call->arena, struct ec2_instance_type_info, instance_type_count);
	for (size_t i = 0; i < instance_type_count; i++) {
		if (!list_asks(&in->instance_types, instance_types[i].name))
			continue;
		const struct ec2_instance_type_info item =
		    type_item(call->arena, &instance_types[i]);

		if (filter_set_match(filters, &item, NULL) && page_take(&page, (int64_t)i + 1))
			out->instance_types.items[out->instance_types.count++] = item;
	}
	out->next_token = page_token(call->arena, &page);
	return 0;
}
