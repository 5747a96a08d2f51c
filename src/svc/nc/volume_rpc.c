/* SPDX-License-Identifier: Apache-2.0 */
#include "gen/volume_rpc.h"
#include "svc/nc/nc_priv.h"

/* What the storage controller asks about volumes that are open on this node. */

static int not_open(const char *id, struct error *e)
{
	return error_set(e, "VolumeNotOpen", "Volume %.40s is not open on this node", id);
}

int volume_begin_view(void *ctx, struct arena *a, const struct tls_identity *peer, const struct volume_begin_view_request *in,
		    struct volume_begin_view_response *out, struct error *e)
{
	return not_open(in->volume_id, e);
}

int volume_end_view(void *ctx, struct arena *a, const struct tls_identity *peer, const struct volume_end_view_request *in,
		  struct error *e)
{
	return not_open(in->volume_id, e);
}

int volume_change_volume(void *ctx, struct arena *a, const struct tls_identity *peer, const struct volume_change_volume_request *in,
		       struct volume_describe_volume_response *out, struct error *e)
{
	return not_open(in->volume_id, e);
}

int volume_describe_volume(void *ctx, struct arena *a, const struct tls_identity *peer,
			 const struct volume_describe_volume_request *in, struct volume_describe_volume_response *out,
			 struct error *e)
{
	return not_open(in->volume_id, e);
}

struct rpc_binding volume_binding(struct nc *nc)
{
	return (struct rpc_binding){.service = &volume_service, .handlers = volume_rpc_handlers, .ctx = nc};
}
