/* SPDX-License-Identifier: Apache-2.0 */
#include "gen/sts_handlers.h"
#include "svc/clc/dispatch.h"

int sts_get_caller_identity(struct sts_call *call, const struct sts_get_caller_identity_request *in,
			    struct sts_get_caller_identity_response *out)
{
	const struct ec2_call *who = &call->call;

	/* A root user's id is the account's. */
	out->user_id = who->account_id;
	out->account = who->account_id;
	out->arn = who->arn;
	return 0;
}
