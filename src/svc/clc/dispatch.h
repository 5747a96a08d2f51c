/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_DISPATCH_H
#define MALLEE_SVC_CLC_DISPATCH_H

#include "base/buf.h"
#include "svc/clc/clc_priv.h"
#include "wire/codec.h"

/* STS's and IAM's handlers see the same call. */
struct sts_call {
	struct ec2_call call;
};

/* By the name in a signature's scope: ec2, sts, iam. NULL: none of ours. */
const struct wire_service *api_service_find(const char *name);
/* By the Version of a request whose signature told nothing; EC2 when that tells nothing either. */
const struct wire_service *api_service_by_version(const char *version);

/* Checks Version, finds the action, decodes, runs its handler, sees to DryRun and to transactions
 * left open, and prints the reply. Negative with call->error set: nothing was changed. *ret_action
 * is set as soon as it is known (a served action's name). */
int api_dispatch(struct ec2_call *call, const struct wire_service *s,
		 const struct wire_params *params, const char **ret_action, struct buf *reply);

#endif
