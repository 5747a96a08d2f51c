/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/text.h"
#include "svc/clc/accounts.h"

/* RFC 4648's base32 letters, which Amazon's access key ids are made of. */
static const char key_letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
enum { KEY_LETTERS = 16, SECRET_LETTERS = 40, ACCOUNT_DIGITS = 12, NAME_MAX_LEN = 63 };

static const char *new_account_id(struct arena *a)
{
	unsigned char raw[ACCOUNT_DIGITS];
	char *id = arena_alloc(a, ACCOUNT_DIGITS + 1);

	random_bytes(raw, sizeof(raw));
	for (int i = 0; i < ACCOUNT_DIGITS; i++)
		id[i] = (char)('0' + raw[i] % (i ? 10 : 9) + (i ? 0 : 1)); /* no leading zero */
	return id;
}

static const char *new_access_key_id(struct arena *a)
{
	unsigned char raw[KEY_LETTERS];
	char letters[KEY_LETTERS + 1] = "";

	random_bytes(raw, sizeof(raw));
	for (int i = 0; i < KEY_LETTERS; i++)
		letters[i] = key_letters[raw[i] % (sizeof(key_letters) - 1)];
	return arena_printf(a, "AKIA%s", letters);
}

static const char *new_hex(struct arena *a, size_t bytes)
{
	unsigned char raw[64];
	char *hex = arena_alloc(a, 2 * bytes + 1);

	random_bytes(raw, bytes);
	hex_encode(raw, bytes, hex);
	return hex;
}

static const char *new_id(struct arena *a, const char *prefix)
{
	char id[ID_LEN];

	id_new(prefix, id);
	return arena_strdup(a, id);
}

static int check_name(const char *name, struct error *e)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");

	if (name[0] >= 'a' && name[0] <= 'z' && !name[n] && n <= NAME_MAX_LEN)
		return 0;
	return error_set(
	    e, "InvalidParameterValue",
	    "'%.80s' is no account name: a lower-case letter, then up to 62 lower-case "
	    "letters, digits and hyphens",
	    name);
}

static struct account fresh(struct arena *a, const char *name)
{
	struct account acc = {.record = arena_new_struct(a, struct records_account),
			      .key = arena_new_struct(a, struct records_access_key)};
	char *secret = arena_alloc(a, SECRET_LETTERS + 1);
	int64_t now = clock_unix_ms();

	random_token(secret, SECRET_LETTERS);
	acc.record->account_id = new_account_id(a);
	acc.record->name = arena_strdup(a, name);
	acc.record->canonical_id = new_hex(a, 32);
	acc.record->create_time = WIRE_TIME_OF(now);
	acc.key->access_key_id = new_access_key_id(a);
	acc.key->secret_access_key = secret;
	acc.key->account_id = acc.record->account_id;
	acc.key->status = "Active";
	acc.key->create_time = WIRE_TIME_OF(now);
	acc.arn = arena_printf(a, "arn:aws:iam::%s:root", acc.record->account_id);
	return acc;
}

/* The cloud's one subnet, shown to each account as a default VPC of its own. */
static int put_network(struct clc *c, struct arena *a, const char *account_id, struct error *e)
{
	const struct records_vpc vpc = {
	    .vpc_id = new_id(a, "vpc"),
	    .account_id = account_id,
	    .cidr_block = c->network.cidr,
	    .is_default = WIRE_BOOL_OF(true),
	    .dhcp_options_id = new_id(a, "dopt"),
	};
	const struct records_subnet subnet = {
	    .subnet_id = new_id(a, "subnet"),
	    .account_id = account_id,
	    .vpc_id = vpc.vpc_id,
	    .cidr_block = c->network.cidr,
	    .availability_zone = c->zone,
	    .default_for_az = WIRE_BOOL_OF(true),
	};
	int r = record_put(c, KIND_VPC, account_id, vpc.vpc_id, NULL, &vpc, e);

	if (r < 0)
		return r;
	return record_put(c, KIND_SUBNET, account_id, subnet.subnet_id, NULL, &subnet, e);
}

static int put_account(struct clc *c, struct arena *a, const struct account *acc, struct error *e)
{
	const struct records_account *rec = acc->record;
	struct record taken;
	int64_t count;
	int r = state_count(c->state, clc_kinds[KIND_ACCOUNT].kind, NULL, &count, e);

	if (r < 0)
		return r;
	if (count >= LIMIT_ACCOUNTS)
		return error_set(e, "LimitExceeded",
				 "This cloud has %d accounts, the most it takes", LIMIT_ACCOUNTS);
	r = record_get(c, a, KIND_ACCOUNT, rec->account_id, &taken, e);
	if (r != -ENOENT)
		return r < 0 ? r
			     : error_set(e, "InternalError",
					 "the account id that was drawn is taken; try again");
	r = record_put(c, KIND_ACCOUNT, "", rec->account_id, rec->name, rec, e);
	if (r == -EEXIST)
		return error_set(e, "AccountExists", "An account named '%s' exists already",
				 rec->name);
	if (r < 0)
		return r;
	r = record_put(c, KIND_ACCESS_KEY, rec->account_id, acc->key->access_key_id, NULL, acc->key,
		       e);
	if (r < 0)
		return r;
	return put_network(c, a, rec->account_id, e);
}

int account_create(struct clc *c, struct arena *a, const char *name, struct account *ret,
		   struct error *e)
{
	int r = check_name(name, e);

	if (r < 0)
		return r;
	struct account acc = fresh(a, name);
	r = state_begin(c->state, e);
	if (r < 0)
		return r;
	r = put_account(c, a, &acc, e);
	if (r >= 0)
		r = state_commit(c->state, e);
	if (r < 0) {
		state_rollback(c->state);
		return r;
	}
	*ret = acc;
	return 0;
}

static bool is_active(const struct records_access_key *k)
{
	return str_eq(k->status, "Active");
}

/* The rest of an account whose record is known: its first active key. */
static int complete(struct clc *c, struct arena *a, struct records_account *rec,
		    struct account *ret, struct error *e)
{
	struct account acc = {.record = rec};
	struct record_list keys;
	int r = record_list(c, a, KIND_ACCESS_KEY, rec->account_id, 0, &keys, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < keys.count && !acc.key; i++)
		if (is_active(keys.items[i].value))
			acc.key = keys.items[i].value;
	acc.arn = arena_printf(a, "arn:aws:iam::%s:root", rec->account_id);
	*ret = acc;
	return 0;
}

int account_by_name(struct clc *c, struct arena *a, const char *name, struct account *ret,
		    struct error *e)
{
	struct record rec;
	int r = record_get_by_name(c, a, KIND_ACCOUNT, "", name, &rec, e);

	if (r == -ENOENT)
		return error_set(e, "AccountNotFound", "There is no account named '%.80s'", name);
	return r < 0 ? r : complete(c, a, rec.value, ret, e);
}

int account_by_access_key(struct clc *c, struct arena *a, const char *access_key_id,
			  struct account *ret, struct error *e)
{
	struct record key, rec;
	struct account acc;
	int r = record_get(c, a, KIND_ACCESS_KEY, access_key_id, &key, e);

	if (r < 0)
		return r;
	acc.key = key.value;
	if (!is_active(acc.key))
		return -ENOENT;
	r = record_get(c, a, KIND_ACCOUNT, acc.key->account_id, &rec, e);
	if (r < 0)
		return r;
	acc.record = rec.value;
	acc.arn = arena_printf(a, "arn:aws:iam::%s:root", acc.record->account_id);
	*ret = acc;
	return 0;
}

int account_list(struct clc *c, struct arena *a, struct account **ret, size_t *ret_count,
		 struct error *e)
{
	struct record_list l;
	int r = record_list(c, a, KIND_ACCOUNT, NULL, 0, &l, e);

	if (r < 0)
		return r;
	struct account *accounts = arena_new_array(a, struct account, l.count);
	for (size_t i = 0; i < l.count; i++) {
		r = complete(c, a, l.items[i].value, &accounts[i], e);
		if (r < 0)
			return r;
	}
	*ret = accounts;
	*ret_count = l.count;
	return 0;
}

/* 1 when the record is no longer what the settings say; value then is. */
static int adjust_vpc(struct clc *c, struct records_vpc *v)
{
	if (str_eq(v->cidr_block, c->network.cidr))
		return 0;
	v->cidr_block = c->network.cidr;
	return 1;
}

static int adjust_subnet(struct clc *c, struct records_subnet *s)
{
	if (str_eq(s->cidr_block, c->network.cidr) && str_eq(s->availability_zone, c->zone))
		return 0;
	s->cidr_block = c->network.cidr;
	s->availability_zone = c->zone;
	return 1;
}

int account_follow_settings(struct clc *c, struct error *e)
{
	static const enum clc_kind kinds[] = {KIND_VPC, KIND_SUBNET};
	_cleanup_(arena_freep) struct arena *a = arena_new();
	int r = 0;

	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		struct record_list l;

		r = record_list(c, a, kinds[k], NULL, 0, &l, e);
		for (size_t i = 0; r >= 0 && i < l.count; i++) {
			const struct record *x = &l.items[i];
			int changed = kinds[k] == KIND_VPC ? adjust_vpc(c, x->value)
							   : adjust_subnet(c, x->value);

			if (changed)
				r = record_put(c, kinds[k], x->account, x->id, NULL, x->value, e);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

int account_ensure_default(struct clc *c, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct account acc;
	int64_t count;
	int r = state_count(c->state, clc_kinds[KIND_ACCOUNT].kind, NULL, &count, e);

	if (r < 0 || count > 0)
		return r;
	return account_create(c, a, DEFAULT_ACCOUNT, &acc, e);
}
