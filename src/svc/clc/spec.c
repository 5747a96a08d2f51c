/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"
#include "svc/clc/instances.h"
#include "svc/clc/reconcile.h"

/* Long enough for a node that comes back after a night; short enough to be worth nothing later. */
enum { IMAGE_URL_VALID_S = 24 * 3600 };

/* While snapshots for an image are begun the guest is off, whatever its user wants. */
static const char *wanted_of(const struct records_instance *i)
{
	return i->held_off_for && str_eq(i->wanted, instance_state_name(INSTANCE_RUNNING))
		   ? instance_state_name(INSTANCE_STOPPED)
		   : i->wanted;
}

/* A launch without its image still has to reach the node, which then says why it failed. */
static int image_url(struct clc *c, struct arena *a, const struct records_instance *i,
		     struct shared_instance_spec *s, struct error *e)
{
	if (!str_eq(i->wanted, instance_state_name(INSTANCE_RUNNING)) || !i->image_location ||
	    instance_is_ebs(i))
		return 0;
	int r = identity_presign(c, a, i->image_account_id, i->image_location, IMAGE_URL_VALID_S,
				 &s->image_url, e);
	return r == -ENOENT ? 0 : r;
}

static struct shared_block_device_list devices(struct arena *a, const struct records_instance *i)
{
	const struct records_instance_block_device_list *l = &i->block_devices;
	struct shared_block_device_list out = {.set = l->count > 0, .count = l->count};

	out.items = arena_new_array(a, struct shared_block_device, l->count);
	for (size_t n = 0; n < l->count; n++)
		out.items[n] = (struct shared_block_device){
		    .volume_id = l->items[n].volume_id,
		    .device_name = l->items[n].device_name,
		    .slot = l->items[n].slot,
		    .boot = l->items[n].boot,
		    .generation = l->items[n].generation,
		    .wanted = l->items[n].wanted,
		};
	return out;
}

int instance_spec(struct clc *c, struct arena *a, const struct records_instance *i,
		  struct shared_instance_spec *ret, struct error *e)
{
	struct shared_instance_spec s = {
	    .instance_id = i->instance_id,
	    .generation = i->generation,
	    .wanted = wanted_of(i),
	    .force_off = i->force_off,
	    .reboot_generation = i->reboot_generation,
	    .node_id = i->node_id,
	    .account_id = i->account_id,
	    .reservation_id = i->reservation_id,
	    .region = c->region,
	    .availability_zone = i->availability_zone,
	    .image_id = i->image_id,
	    .image_sha256 = i->image_sha256,
	    .image_size_bytes = i->image_size_bytes,
	    .instance_type = i->instance_type,
	    .vcpus = i->vcpus,
	    .memory_mib = i->memory_mib,
	    .disk_bytes = i->disk_bytes,
	    .local_disks = i->local_disks,
	    .launch_time = i->launch_time,
	    .ami_launch_index = i->ami_launch_index,
	    .network_interface_id = i->network_interface_id,
	    .mac_address = i->mac_address,
	    .private_ip = i->private_ip,
	    .subnet_id = i->subnet_id,
	    .vpc_id = i->vpc_id,
	    .subnet_cidr = c->network.cidr,
	    .gateway_ip = c->network.gateway_ip,
	    .private_dns_name = i->private_dns_name,
	    .key_name = i->key_name,
	    .public_key = i->public_key,
	    .user_data = i->user_data,
	    .metadata_options = i->metadata_options,
	    .instance_initiated_shutdown_behavior = i->instance_initiated_shutdown_behavior,
	    .root_device_type = i->root_device_type,
	    .root_device_name = i->root_device_name,
	    .block_devices = devices(a, i),
	};
	int r = image_url(c, a, i, &s, e);

	if (r >= 0 && metadata_shows_tags(i->metadata_options))
		r = tags_get(c, a, i->instance_id, &s.tags, e);
	if (r < 0)
		return r;
	*ret = s;
	return 0;
}
