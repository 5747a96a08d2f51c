/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_LIMITS_H
#define MALLEE_SVC_CLC_LIMITS_H

/* Whatever a user can create or send has a named limit; this is the table of the cloud
 * controller's. */
enum clc_limit {
	LIMIT_INSTANCES_PER_ACCOUNT = 10000,
	LIMIT_INSTANCES_PER_REQUEST = 1000, /* RunInstances' MaxCount */
	LIMIT_IMAGES_PER_ACCOUNT = 5000,
	LIMIT_KEY_PAIRS_PER_ACCOUNT = 5000,
	LIMIT_ACCOUNTS = 1000,
	LIMIT_TAGS_PER_RESOURCE = 50,
	LIMIT_TAG_KEY_CHARS = 127, /* EC2's, in characters, not bytes */
	LIMIT_TAG_VALUE_CHARS = 256,
	LIMIT_TAGGED_PER_REQUEST = 1000,
	LIMIT_USER_DATA_BYTES = 16384, /* decoded */
	LIMIT_CLIENT_TOKEN_CHARS = 64,
	LIMIT_FILTERS_PER_REQUEST = 50,
	LIMIT_VALUES_PER_FILTER = 200,
	LIMIT_BODY_BYTES = 1 << 20, /* of an API request */
	LIMIT_IDS_PER_REQUEST = 1000,
	LIMIT_VOLUMES_PER_ACCOUNT = 5000,
	LIMIT_SNAPSHOTS_PER_ACCOUNT = 10000,
	LIMIT_PENDING_SNAPSHOTS_PER_VOLUME = 5, /* EC2's; the data path has room for eight */
	LIMIT_PENDING_SNAPSHOTS_PER_HDD_VOLUME = 1,
	LIMIT_DEVICES_PER_INSTANCE = 16, /* slots; the first one is the boot disk's */
	LIMIT_LOCAL_MAPPINGS = 24, /* EC2's ephemeral0 … ephemeral23 */
	LIMIT_DEVICE_NAME_CHARS = 32,
	LIMIT_DESCRIPTION_CHARS = 255,
	LIMIT_KEY_ARN_CHARS = 2048, /* KmsKeyId */
	LIMIT_SHARED_USERS = 1000, /* accounts that one snapshot is shared with */
};

#endif
