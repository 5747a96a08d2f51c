/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/clc/ebs_encryption.h"

#include <string.h>

#include "base/text.h"
#include "gen/ec2_handlers.h"

#define EBS_KEY "alias/aws/ebs"

static bool is_arn(const char *kms_key_id)
{
	return str_prefix(kms_key_id, "arn:") && strlen(kms_key_id) <= LIMIT_KEY_ARN_CHARS;
}

const char *encryption_named_key(const char *kms_key_id, const char *source_key)
{
	if (!kms_key_id)
		return source_key;
	return is_arn(kms_key_id) ? kms_key_id : NULL;
}

const char *encryption_key_shown(const struct ec2_call *call, const char *account_id, const struct wire_bool *encrypted,
				 const char *named)
{
	if (!encrypted->value)
		return NULL;
	return named ? named : arena_printf(call->arena, "arn:aws:kms:%s:%s:" EBS_KEY, call->clc->region, account_id);
}

int encryption_check_key(struct ec2_call *call, const char *kms_key_id, const struct wire_bool *encrypted)
{
	if (!kms_key_id)
		return 0;
	if (!encrypted->value)
		return ec2_error(call, "InvalidParameterDependency",
				 "The parameter KmsKeyId requires the parameter Encrypted to be set.");
	if (str_eq(kms_key_id, EBS_KEY) || (is_arn(kms_key_id) && str_suffix(kms_key_id, ":" EBS_KEY)))
		return 0;
	return ec2_error(call, "InvalidParameterValue",
			 "Value (%.100s) for parameter KmsKeyId is invalid: there is one key here, " EBS_KEY,
			 kms_key_id);
}

/* ---- by default ---- */

static int load(struct ec2_call *call, struct records_account **ret)
{
	struct record rec;
	int r = record_get(call->clc, call->arena, KIND_ACCOUNT, call->account_id, &rec, &call->error);

	if (r >= 0)
		*ret = rec.value;
	return r;
}

int encryption_wanted(struct ec2_call *call, bool asked, bool source_encrypted, bool *ret)
{
	struct records_account *account = NULL;

	*ret = asked || source_encrypted;
	if (*ret)
		return 0;
	int r = load(call, &account);
	if (r == -ENOENT) { /* nobody's default, then */
		error_clear(&call->error);
		return 0;
	}
	if (r >= 0)
		*ret = account->ebs_encryption_by_default.value;
	return r;
}

static int set(struct ec2_call *call, bool on, struct wire_bool *ret)
{
	struct records_account *account = NULL;
	int r = ec2_begin(call);

	if (r >= 0)
		r = load(call, &account);
	if (r < 0)
		return r;
	account->ebs_encryption_by_default = WIRE_BOOL_OF(on);
	r = record_put(call->clc, KIND_ACCOUNT, "", account->account_id, account->name, account, &call->error);
	if (r >= 0)
		r = ec2_commit(call);
	*ret = WIRE_BOOL_OF(on);
	return r;
}

int ec2_enable_ebs_encryption_by_default(struct ec2_call *call, const struct ec2_enable_ebs_encryption_by_default_request *in,
					 struct ec2_enable_ebs_encryption_by_default_result *out)
{
	return set(call, true, &out->ebs_encryption_by_default);
}

int ec2_disable_ebs_encryption_by_default(struct ec2_call *call, const struct ec2_disable_ebs_encryption_by_default_request *in,
					  struct ec2_disable_ebs_encryption_by_default_result *out)
{
	return set(call, false, &out->ebs_encryption_by_default);
}

int ec2_get_ebs_encryption_by_default(struct ec2_call *call, const struct ec2_get_ebs_encryption_by_default_request *in,
				      struct ec2_get_ebs_encryption_by_default_result *out)
{
	bool on = false;
	int r = encryption_wanted(call, false, false, &on);

	out->ebs_encryption_by_default = WIRE_BOOL_OF(on);
	return r;
}
