/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_EBS_ENCRYPTION_H
#define MALLEE_SVC_CLC_EBS_ENCRYPTION_H

#include "svc/clc/clc_priv.h"

/*
 * Which volumes and snapshots are encrypted: those that ask for it, those of an account that wants it by default, and whatever is made
 * of something encrypted. There is one key to choose, EBS' own: the storage controller keeps it.
 */

/* KmsKeyId as requests give it: absent, or EBS' own key, and then with Encrypted. KMSKeyNotFound (as EC2: InvalidParameterValue),
 * InvalidParameterDependency. */
int encryption_check_key(struct ec2_call *call, const char *kms_key_id, const struct wire_bool *encrypted);
/* What a record keeps of a KmsKeyId that was taken: the ARN, so that it is shown as it was given (who compares, as Terraform does,
 * makes anew what has another); else NULL. Not given: what the source has, if there is one. */
const char *encryption_named_key(const char *kms_key_id, const char *source_key);
/* KmsKeyId as replies show it: the one that was named, or the account's own by its ARN; NULL when it is not encrypted. */
const char *encryption_key_shown(const struct ec2_call *call, const char *account_id, const struct wire_bool *encrypted,
				 const char *named);
/* Whether what is asked for (or not) is to be encrypted. Within a transaction, or not. */
int encryption_wanted(struct ec2_call *call, bool asked, bool source_encrypted, bool *ret);

#endif
