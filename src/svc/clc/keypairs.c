/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/id.h"
#include "base/text.h"
#include "gen/ec2_handlers.h"
#include "svc/clc/clc_priv.h"
#include "svc/clc/filters.h"
#include "svc/clc/sshkey.h"

static const char *const taggable[] = {"key-pair", NULL};

static int check_name(struct ec2_call *call, const char *name)
{
	const size_t len = strlen(name);

	if (len == 0 || len > 255)
		return ec2_error(
		    call, "InvalidParameterValue",
		    "Value for parameter KeyName is invalid: it must have 1 to 255 characters");
	for (size_t i = 0; i < len; i++)
		if (name[i] < 0x20 || name[i] > 0x7e)
			return ec2_error(
			    call, "InvalidParameterValue",
			    "Value for parameter KeyName is invalid: ASCII characters only");
	if (name[0] == ' ' || name[len - 1] == ' ')
		return ec2_error(
		    call, "InvalidParameterValue",
		    "Value for parameter KeyName is invalid: it must not start or end with a space");
	return 0;
}

static int check_room(struct ec2_call *call)
{
	int64_t count;
	int r = state_count(call->clc->state, clc_kinds[KIND_KEY_PAIR].kind, call->account_id,
			    &count, &call->error);

	if (r < 0)
		return r;
	if (count >= LIMIT_KEY_PAIRS_PER_ACCOUNT)
		return ec2_error(call, "KeyPairLimitExceeded",
				 "This account has its limit of %d key pairs",
				 LIMIT_KEY_PAIRS_PER_ACCOUNT);
	return 0;
}

/* Under a transaction, so that two requests for one name can't both find it free. */
static int store(struct ec2_call *call, const char *name, const struct sshkey *key,
		 const struct shared_tag_list *tags, const char **ret_id)
{
	char id[ID_LEN];
	const struct records_key_pair rec = {
	    .key_pair_id = id,
	    .key_name = name,
	    .key_type = key->type,
	    .key_fingerprint = key->fingerprint,
	    .public_key = key->public_key,
	    .create_time = WIRE_TIME_OF(call->now_ms),
	};
	int r;

	id_new("key", id);
	r = check_room(call);
	if (r < 0)
		return r;
	r = record_put(call->clc, KIND_KEY_PAIR, call->account_id, id, name, &rec, &call->error);
	if (r == -EEXIST)
		return ec2_error(call, "InvalidKeyPair.Duplicate",
				 "The keypair '%s' already exists.", name);
	if (r < 0)
		return r;
	*ret_id = arena_strdup(call->arena, id);
	return tags->count ? tags_put(call, "key-pair", id, tags) : 0;
}

static int check_free(struct ec2_call *call, const char *name)
{
	struct record rec;
	int r = record_get_by_name(call->clc, call->arena, KIND_KEY_PAIR, call->account_id, name,
				   &rec, &call->error);

	if (r == 0)
		return ec2_error(call, "InvalidKeyPair.Duplicate",
				 "The keypair '%s' already exists.", name);
	return r == -ENOENT ? 0 : r;
}

int ec2_create_key_pair(struct ec2_call *call, const struct ec2_create_key_pair_request *in,
			struct ec2_key_pair *out)
{
	const char *type = in->key_type ? in->key_type : "rsa";
	struct shared_tag_list tags;
	struct sshkey key;
	int r;

	if (!str_eq(type, "rsa") && !str_eq(type, "ed25519"))
		return ec2_error(call, "InvalidParameterValue",
				 "Value (%.60s) for parameter KeyType is invalid: rsa or ed25519",
				 type);
	if (in->key_format && !str_eq(in->key_format, "pem"))
		return ec2_error(
		    call, "InvalidParameterValue",
		    "Value (%.60s) for parameter KeyFormat is invalid: this cloud makes pem",
		    in->key_format);
	r = check_name(call, in->key_name);
	if (r == 0)
		r = ec2_tags_from_specs(call, &in->tag_specifications, taggable, "key-pair", &tags);
	if (r == 0)
		r = check_free(call, in->key_name);
	if (r == 0)
		r = ec2_dry_run_point(call);
	/* An RSA key takes a while: it is made before the transaction opens. */
	if (r == 0)
		r = sshkey_generate(call->arena, type, in->key_name, &key, &call->error);
	if (r == 0)
		r = ec2_begin(call);
	if (r == 0)
		r = store(call, in->key_name, &key, &tags, &out->key_pair_id);
	if (r < 0)
		return r;
	out->key_name = in->key_name;
	out->key_fingerprint = key.fingerprint;
	out->key_material = key.private_pem;
	out->tags = tags_to_reply(call->arena, &tags);
	return ec2_commit(call);
}

int ec2_import_key_pair(struct ec2_call *call, const struct ec2_import_key_pair_request *in,
			struct ec2_import_key_pair_result *out)
{
	struct shared_tag_list tags;
	struct sshkey key;
	int r = check_name(call, in->key_name);

	if (r == 0)
		r = ec2_tags_from_specs(call, &in->tag_specifications, taggable, "key-pair", &tags);
	if (r == 0)
		r = sshkey_import(call->arena, in->public_key_material.data,
				  in->public_key_material.len, in->key_name, &key, &call->error);
	if (r == 0)
		r = ec2_begin(call);
	if (r == 0)
		r = store(call, in->key_name, &key, &tags, &out->key_pair_id);
	if (r < 0)
		return r;
	out->key_name = in->key_name;
	out->key_fingerprint = key.fingerprint;
	out->tags = tags_to_reply(call->arena, &tags);
	return ec2_commit(call);
}

int ec2_key_pair_by_name(struct ec2_call *call, const char *name, struct records_key_pair **ret)
{
	struct record rec;
	int r = record_get_by_name(call->clc, call->arena, KIND_KEY_PAIR, call->account_id, name,
				   &rec, &call->error);

	if (r == -ENOENT)
		return ec2_error(call, "InvalidKeyPair.NotFound",
				 "The key pair '%.255s' does not exist", name);
	if (r == 0)
		*ret = rec.value;
	return r;
}

/* Deleting what is not there is success, as it is at Amazon. */
int ec2_delete_key_pair(struct ec2_call *call, const struct ec2_delete_key_pair_request *in)
{
	struct record rec;
	int r;

	if (!in->key_name && !in->key_pair_id)
		return ec2_error(call, "MissingParameter",
				 "The request must contain the parameter KeyName or KeyPairId");
	if (in->key_pair_id) {
		r = ec2_check_id(call, KIND_KEY_PAIR, in->key_pair_id);
		if (r < 0)
			return r;
	}
	r = ec2_begin(call);
	if (r < 0)
		return r;
	if (in->key_pair_id)
		r = record_get(call->clc, call->arena, KIND_KEY_PAIR, in->key_pair_id, &rec,
			       &call->error);
	else
		r = record_get_by_name(call->clc, call->arena, KIND_KEY_PAIR, call->account_id,
				       in->key_name, &rec, &call->error);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && str_eq(rec.account, call->account_id)) {
		r = record_delete(call->clc, KIND_KEY_PAIR, rec.id, &call->error);
		if (r == 0)
			r = tags_drop(call->clc, rec.id, &call->error);
		if (r < 0)
			return r;
	}
	return ec2_commit(call);
}

static const struct filter_field key_pair_fields[] = {
    {.name = "key-pair-id", .path = "KeyPairId"},
    {.name = "fingerprint", .path = "KeyFingerprint"},
    {.name = "key-name", .path = "KeyName"},
};
static const struct filter_table key_pair_filters = {
    .item = &ec2_shape_key_pair_info,
    .tags = "Tags",
    .fields = key_pair_fields,
    .count = ARRAY_SIZE(key_pair_fields),
};

/* Every name and id that was asked for must be there. */
static int check_asked(struct ec2_call *call, const struct ec2_describe_key_pairs_request *in)
{
	struct records_key_pair *k;
	int r = 0;

	for (size_t i = 0; r == 0 && i < in->key_names.count; i++)
		r = ec2_key_pair_by_name(call, in->key_names.items[i], &k);
	for (size_t i = 0; r == 0 && i < in->key_pair_ids.count; i++)
		r = ec2_get(call, KIND_KEY_PAIR, in->key_pair_ids.items[i], &k);
	return r;
}

int ec2_describe_key_pairs(struct ec2_call *call, const struct ec2_describe_key_pairs_request *in,
			   struct ec2_describe_key_pairs_result *out)
{
	struct tag_index *tags;
	struct filter_set *filters;
	struct record_list all;
	int r = filter_set_new(call, &key_pair_filters, &in->filters, &filters);

	if (r == 0)
		r = check_asked(call, in);
	if (r == 0)
		r = ec2_list(call, KIND_KEY_PAIR, &all);
	if (r == 0)
		r = tag_index_load(call, &tags);
	if (r < 0)
		return r;
	out->key_pairs.set = true;
	out->key_pairs.items = arena_new_array(call->arena, struct ec2_key_pair_info, all.count);
	for (size_t i = 0; i < all.count; i++) {
		const struct records_key_pair *k = all.items[i].value;
		const struct ec2_key_pair_info item = {
		    .key_pair_id = k->key_pair_id,
		    .key_fingerprint = k->key_fingerprint,
		    .key_name = k->key_name,
		    .key_type = k->key_type,
		    .tags = tag_index_find(tags, k->key_pair_id),
		    .public_key = in->include_public_key.value ? k->public_key : NULL,
		    .create_time = k->create_time,
		};

		if ((in->key_names.count || in->key_pair_ids.count) &&
		    !list_has(&in->key_names, k->key_name) &&
		    !list_has(&in->key_pair_ids, k->key_pair_id))
			continue;
		if (filter_set_match(filters, &item, NULL))
			out->key_pairs.items[out->key_pairs.count++] = item;
	}
	return 0;
}
