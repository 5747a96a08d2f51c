/* SPDX-License-Identifier: Apache-2.0 */
#include "gen/admin_rpc.h"
#include "svc/clc/accounts.h"
#include "svc/clc/peer.h"
#include "svc/clc/inventory.h"

static struct admin_account to_message(const struct account *acc, bool with_secret)
{
	return (struct admin_account){
	    .account_id = acc->record->account_id,
	    .name = acc->record->name,
	    .arn = acc->arn,
	    .access_key_id = acc->key ? acc->key->access_key_id : NULL,
	    .secret_access_key = acc->key && with_secret ? acc->key->secret_access_key : NULL,
	    .create_time = acc->record->create_time,
	};
}

int admin_create_account(void *ctx, struct arena *a, const struct tls_identity *peer,
			 const struct admin_create_account_request *in, struct admin_account *out,
			 struct error *e)
{
	struct account acc;
	int r = account_create(ctx, a, in->name, &acc, e);

	if (r >= 0)
		*out = to_message(&acc, true);
	return r;
}

int admin_get_account(void *ctx, struct arena *a, const struct tls_identity *peer,
		      const struct admin_get_account_request *in, struct admin_account *out,
		      struct error *e)
{
	struct account acc;
	int r = account_by_name(ctx, a, in->name, &acc, e);

	if (r >= 0)
		*out = to_message(&acc, true);
	return r;
}

int admin_list_accounts(void *ctx, struct arena *a, const struct tls_identity *peer,
			struct admin_list_accounts_response *out, struct error *e)
{
	struct account *accounts;
	size_t count;
	int r = account_list(ctx, a, &accounts, &count, e);

	if (r < 0)
		return r;
	out->accounts.set = true;
	out->accounts.count = count;
	out->accounts.items = arena_new_array(a, struct admin_account, count);
	for (size_t i = 0; i < count; i++)
		out->accounts.items[i] = to_message(&accounts[i], false);
	return 0;
}

int admin_get_status(void *ctx, struct arena *a, const struct tls_identity *peer,
		     struct admin_get_status_response *out, struct error *e)
{
	struct clc *c = ctx;
	struct error why = {0};
	int64_t images, accounts;
	bool up = peer_reachable(c->cluster, &why);
	int r = state_count(c->state, clc_kinds[KIND_IMAGE].kind, NULL, &images, e);

	if (r >= 0)
		r = state_count(c->state, clc_kinds[KIND_ACCOUNT].kind, NULL, &accounts, e);
	if (r < 0)
		return r;
	struct admin_cluster_status *cluster = arena_new_struct(a, struct admin_cluster_status);
	cluster->availability_zone = c->zone;
	cluster->state = up ? "available" : "unavailable";
	cluster->reason = up ? NULL : arena_strdup(a, why.message);
	out->version = MALLEE_VERSION;
	out->start_time = WIRE_TIME_OF(c->start_time_ms);
	out->clusters.set = true;
	out->clusters.count = 1;
	out->clusters.items = cluster;
	out->instances_running =
	    WIRE_INT_OF((int64_t)inventory_count(c->inventory, INSTANCE_RUNNING));
	out->instances_pending =
	    WIRE_INT_OF((int64_t)inventory_count(c->inventory, INSTANCE_PENDING));
	out->images = WIRE_INT_OF(images);
	out->accounts = WIRE_INT_OF(accounts);
	return 0;
}

struct rpc_binding admin_binding(struct clc *c)
{
	return (struct rpc_binding){
	    .service = &admin_service, .handlers = admin_rpc_handlers, .ctx = c};
}
