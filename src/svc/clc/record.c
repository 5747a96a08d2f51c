/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>

#include "base/buf.h"
#include "base/id.h"
#include "base/text.h"
#include "svc/clc/clc_priv.h"
#include "svc/clc/volumes.h"
#include "wire/codec.h"

const struct clc_kind_info clc_kinds[KIND_COUNT] = {
    [KIND_ACCOUNT] = {"account", &records_shape_account, NULL, NULL, NULL, "account", NULL},
    [KIND_ACCESS_KEY] = {"access-key", &records_shape_access_key, NULL, NULL, NULL, "access key",
			 NULL},
    [KIND_INSTANCE] = {"instance", &records_shape_instance, "i", "InvalidInstanceID.Malformed",
		       "InvalidInstanceID.NotFound", "instance ID", "instance"},
    [KIND_IMAGE] = {"image", &records_shape_image, "ami", "InvalidAMIID.Malformed",
		    "InvalidAMIID.NotFound", "image id", "image"},
    [KIND_KEY_PAIR] = {"key-pair", &records_shape_key_pair, "key", "InvalidParameterValue",
		       "InvalidKeyPair.NotFound", "key pair", "key-pair"},
    [KIND_TAGS] = {"tags", &records_shape_resource_tags, NULL, NULL, NULL, "tags", NULL},
    [KIND_CLIENT_TOKEN] = {"client-token", &records_shape_client_token, NULL, NULL, NULL,
			   "client token", NULL},
    [KIND_VPC] = {"vpc", &records_shape_vpc, "vpc", "InvalidVpcID.Malformed",
		  "InvalidVpcID.NotFound", "vpc ID", "vpc"},
    [KIND_SUBNET] = {"subnet", &records_shape_subnet, "subnet", "InvalidSubnetID.Malformed",
		     "InvalidSubnetID.NotFound", "subnet ID", "subnet"},
    [KIND_VOLUME] = {"volume", &records_shape_volume, "vol", "InvalidVolumeID.Malformed",
		     "InvalidVolume.NotFound", "volume", "volume"},
    [KIND_SNAPSHOT] = {"snapshot", &records_shape_snapshot, "snap", "InvalidSnapshotID.Malformed",
		       "InvalidSnapshot.NotFound", "snapshot", "snapshot"},
    [KIND_IMPORT_SNAPSHOT_TASK] = {"import-snapshot-task", &records_shape_import_snapshot_task,
				   "import-snap", "InvalidConversionTaskId.Malformed",
				   "InvalidConversionTaskId", "import task", "import-snapshot-task"},
};

int record_decode(struct arena *a, enum clc_kind k, struct record *r, struct error *e)
{
	struct error why = {0};

	if (r->value)
		return 0;
	if (wire_json_decode(a, clc_kinds[k].shape, r->doc, strlen(r->doc), false, &r->value,
			     &why) < 0)
		return error_set(e, "InternalError", "The record of %s %s cannot be read: %s",
				 clc_kinds[k].kind, r->id, why.message);
	r->doc = NULL;
	return 0;
}

static struct record undecoded(const struct state_object *o)
{
	return (struct record){.id = o->id,
			       .account = o->account,
			       .seq = o->created_seq,
			       .revision = o->revision,
			       .doc = o->doc};
}

static int decode(struct arena *a, enum clc_kind k, const struct state_object *o,
		  struct record *ret, struct error *e)
{
	struct record r = undecoded(o);
	int n = record_decode(a, k, &r, e);

	if (n >= 0)
		*ret = r;
	return n;
}

int record_get(struct clc *c, struct arena *a, enum clc_kind k, const char *id, struct record *ret,
	       struct error *e)
{
	struct state_object o;
	int n = state_get(c->state, a, clc_kinds[k].kind, id, &o, e);

	return n < 0 ? n : decode(a, k, &o, ret, e);
}

int record_get_by_name(struct clc *c, struct arena *a, enum clc_kind k, const char *account,
		       const char *name, struct record *ret, struct error *e)
{
	struct state_object o;
	int n = state_get_by_name(c->state, a, clc_kinds[k].kind, account, name, &o, e);

	return n < 0 ? n : decode(a, k, &o, ret, e);
}

static int list_undecoded(struct clc *c, struct arena *a, enum clc_kind k, const char *account,
			  int64_t since_revision, struct record_list *ret, struct error *e)
{
	struct state_object *objects;
	struct record_list l = {0};
	size_t count;
	int n = state_list(c->state, a, clc_kinds[k].kind, account, since_revision, &objects,
			   &count, e);

	if (n < 0)
		return n;
	l.items = arena_new_array(a, struct record, count);
	while (l.count < count) {
		l.items[l.count] = undecoded(&objects[l.count]);
		l.count++;
	}
	*ret = l;
	return 0;
}

int record_scan(struct clc *c, struct arena *a, enum clc_kind k, const char *account,
		struct record_list *ret, struct error *e)
{
	return list_undecoded(c, a, k, account, 0, ret, e);
}

int record_list(struct clc *c, struct arena *a, enum clc_kind k, const char *account,
		int64_t since_revision, struct record_list *ret, struct error *e)
{
	struct record_list l;
	int n = list_undecoded(c, a, k, account, since_revision, &l, e);

	for (size_t i = 0; n >= 0 && i < l.count; i++)
		n = record_decode(a, k, &l.items[i], e);
	if (n >= 0)
		*ret = l;
	return n;
}

int record_put(struct clc *c, enum clc_kind k, const char *account, const char *id,
	       const char *name, const void *value, struct error *e)
{
	_cleanup_(buf_done) struct buf doc = BUF_INIT;

	wire_json_encode(clc_kinds[k].shape, value, &doc);
	const struct state_object o = {
	    .kind = clc_kinds[k].kind, .id = id, .account = account, .name = name, .doc = doc.data};
	return state_put(c->state, &o, e);
}

int record_delete(struct clc *c, enum clc_kind k, const char *id, struct error *e)
{
	return state_delete(c->state, clc_kinds[k].kind, id, e);
}

enum clc_kind clc_kind_of_id(const char *id)
{
	for (int k = 0; k < KIND_COUNT; k++) {
		const char *p = clc_kinds[k].prefix;

		if (p && str_prefix(id, p) && id[strlen(p)] == '-')
			return (enum clc_kind)k;
	}
	return KIND_COUNT;
}

int ec2_check_id(struct ec2_call *call, enum clc_kind k, const char *id)
{
	const struct clc_kind_info *info = &clc_kinds[k];

	assert(info->prefix);
	if (id_valid(info->prefix, id))
		return 0;
	return ec2_error(call, info->malformed_code,
			 "Invalid id: \"%.100s\" (expecting \"%s-...\")", id, info->prefix);
}

/* Other accounts' resources are as good as absent, but for images that are shown to all; so is a
 * snapshot that was deleted and whose data is still on its way out. */
static bool visible(const struct ec2_call *call, enum clc_kind k, const struct record *r)
{
	if (k == KIND_SNAPSHOT && !snapshot_visible(r->value, call->account_id))
		return false;
	if (str_eq(r->account, call->account_id))
		return true;
	if (k != KIND_IMAGE)
		return false;
	const struct records_image *image = r->value;
	return image->public.set && image->public.value;
}

/* 0, -ENOENT without an error set, or another failure. */
static int look_up(struct ec2_call *call, enum clc_kind k, const char *id, struct record *ret)
{
	struct record r;
	int n = ec2_check_id(call, k, id);

	if (n < 0)
		return n;
	n = record_get(call->clc, call->arena, k, id, &r, &call->error);
	if (n < 0)
		return n;
	if (!visible(call, k, &r))
		return -ENOENT;
	*ret = r;
	return 0;
}

int ec2_get(struct ec2_call *call, enum clc_kind k, const char *id, void *ret_value)
{
	struct record r;
	int n = look_up(call, k, id, &r);

	if (n == -ENOENT)
		return ec2_error(call, clc_kinds[k].not_found_code, "The %s '%s' does not exist",
				 clc_kinds[k].noun, id);
	if (n < 0)
		return n;
	memcpy(ret_value, &r.value, sizeof(void *));
	return 0;
}

int ec2_list(struct ec2_call *call, enum clc_kind k, struct record_list *ret)
{
	return record_list(call->clc, call->arena, k, call->account_id, 0, ret, &call->error);
}

static bool named_before(const struct wire_string_list *ids, size_t i)
{
	for (size_t j = 0; j < i; j++)
		if (str_eq(ids->items[j], ids->items[i]))
			return true;
	return false;
}

int ec2_get_many(struct ec2_call *call, enum clc_kind k, const struct wire_string_list *ids,
		 struct record_list *ret)
{
	struct record_list l = {.items = arena_new_array(call->arena, struct record, ids->count)};
	_cleanup_(buf_done) struct buf missing = BUF_INIT;
	size_t missing_count = 0;

	if (ids->count > LIMIT_IDS_PER_REQUEST)
		return ec2_error(call, "InvalidParameterValue",
				 "%zu ids were given; at most %d are taken in one request",
				 ids->count, LIMIT_IDS_PER_REQUEST);
	for (size_t i = 0; i < ids->count; i++) {
		if (named_before(ids, i))
			continue;
		int n = look_up(call, k, ids->items[i], &l.items[l.count]);
		if (n == -ENOENT)
			buf_printf(&missing, "%s%s", missing_count++ ? ", " : "", ids->items[i]);
		else if (n < 0)
			return n;
		else
			l.count++;
	}
	if (missing_count)
		return ec2_error(call, clc_kinds[k].not_found_code, "The %s%s '%s' do%s not exist",
				 clc_kinds[k].noun, missing_count > 1 ? "s" : "", missing.data,
				 missing_count > 1 ? "" : "es");
	*ret = l;
	return 0;
}
