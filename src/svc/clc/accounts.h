/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_ACCOUNTS_H
#define MALLEE_SVC_CLC_ACCOUNTS_H

#include "svc/clc/clc_priv.h"
#include "wire/rpc.h"

#define DEFAULT_ACCOUNT "default"
#define STORAGE_ACCOUNT "mallee-storage" /* the storage controller's own: snapshots lie in its bucket */

/* An account with its root key. Strings live in the arena that the function was given. */
struct account {
	struct records_account *record;
	struct records_access_key *key;
	const char *arn;
};

/* Makes an account with root keys, a default VPC and its subnet, in one transaction. AccountExists,
 * InvalidParameterValue, LimitExceeded. */
int account_create(struct clc *c, struct arena *a, const char *name, struct account *ret,
		   struct error *e);
/* AccountNotFound. */
int account_by_name(struct clc *c, struct arena *a, const char *name, struct account *ret,
		    struct error *e);
/* Whose access key this is. -ENOENT (e untouched) for an unknown or inactive one. */
int account_by_access_key(struct clc *c, struct arena *a, const char *access_key_id,
			  struct account *ret, struct error *e);
int account_list(struct clc *c, struct arena *a, struct account **ret, size_t *ret_count,
		 struct error *e);
/* At the first start: the account named default. */
int account_ensure_default(struct clc *c, struct error *e);

/* At each start: the accounts' default VPCs and subnets are the cloud's one subnet and zone as they
 * are set now. */
int account_follow_settings(struct clc *c, struct error *e);

/* What other services and the operator may call; the handlers' context is the struct clc. */
struct rpc_binding identity_binding(struct clc *c);
struct rpc_binding admin_binding(struct clc *c);

#endif
