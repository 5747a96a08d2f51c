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
/* Whether what is asked for (or not) is to be encrypted. Within a transaction, or not. */
int encryption_wanted(struct ec2_call *call, bool asked, bool source_encrypted, bool *ret);

#endif
