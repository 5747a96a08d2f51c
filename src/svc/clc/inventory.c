/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/arena.h"
#include "model/ipv4.h"
#include "svc/clc/clc_priv.h"
#include "svc/clc/inventory.h"
#include "svc/clc/strmap.h"

struct tally {
	size_t live;
};

struct inventory {
	pthread_mutex_t lock;	 /* innermost: nothing else is called under it */
	struct ipv4_pool *pool;	 /* NULL: no subnet is set */
	struct strmap *accounts; /* account id -> struct tally */
	/* Whoever has committed a change tells it here afterwards, so a later change may be told
	 * first: a count can be below zero for a moment. */
	int64_t states[INSTANCE_STATE_COUNT];
};

static struct tally *tally_of(struct inventory *inv, const char *account)
{
	struct tally *t = strmap_get(inv->accounts, account);

	if (!t) {
		t = calloc(1, sizeof(*t));
		if (!t)
			abort();
		strmap_put(inv->accounts, account, t);
	}
	return t;
}

static void add_record(struct inventory *inv, const struct records_instance *i)
{
	enum instance_state s = instance_state_parse(i->state);
	uint32_t ip;

	if (s == INSTANCE_STATE_COUNT)
		return;
	inv->states[s]++;
	if (!instance_state_live(s))
		return;
	tally_of(inv, i->account_id)->live++;
	/* One outside the subnet keeps its address: the setting was changed under it. */
	if (inv->pool && ipv4_parse(i->private_ip, &ip) == 0)
		(void)ipv4_pool_take_this(inv->pool, ip);
}

int inventory_load(struct clc *c, struct inventory **ret, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct inventory *inv = calloc(1, sizeof(*inv));
	struct record_list l;
	int r;

	if (!inv)
		abort();
	pthread_mutex_init(&inv->lock, NULL);
	inv->accounts = strmap_new();
	if (c->network.set)
		inv->pool = ipv4_pool_new(&(struct ipv4_subnet){.network = c->network.network,
								.prefix = c->network.prefix});
	r = record_list(c, a, KIND_INSTANCE, NULL, 0, &l, e);
	if (r < 0) {
		inventory_free(inv);
		return r;
	}
	for (size_t i = 0; i < l.count; i++)
		add_record(inv, l.items[i].value);
	*ret = inv;
	return 0;
}

void inventory_free(struct inventory *inv)
{
	size_t pos = 0;

	if (!inv)
		return;
	for (struct tally *t; (t = strmap_next(inv->accounts, &pos, NULL));)
		free(t);
	strmap_free(inv->accounts);
	ipv4_pool_free(inv->pool);
	pthread_mutex_destroy(&inv->lock);
	free(inv);
}

static int take_wanted(struct inventory *inv, uint32_t ip, struct error *e)
{
	char text[IPV4_LEN];

	ipv4_format(ip, text);
	switch (ipv4_pool_take_this(inv->pool, ip)) {
	case 0:
		return 0;
	case -EBUSY:
		return error_set(e, "InvalidIPAddress.InUse", "Address %s is in use.", text);
	case -EADDRNOTAVAIL:
		return error_set(e, "InvalidParameterValue",
				 "Address %s is in subnet's reserved address range", text);
	default:
		return error_set(e, "InvalidParameterValue",
				 "Address %s does not fall within the subnet's address range",
				 text);
	}
}

/* How many may be taken: max, or fewer where a limit leaves fewer but still min. */
static int allowed(struct inventory *inv, const struct tally *t, size_t min, size_t max,
		   size_t *ret, struct error *e)
{
	size_t room =
	    t->live < LIMIT_INSTANCES_PER_ACCOUNT ? LIMIT_INSTANCES_PER_ACCOUNT - t->live : 0;
	size_t addresses = ipv4_pool_free_count(inv->pool);

	if (min > room)
		return error_set(e, "InstanceLimitExceeded",
				 "You have requested more instances (%zu) than your current "
				 "instance limit of %d allows.",
				 t->live + min, LIMIT_INSTANCES_PER_ACCOUNT);
	if (min > addresses)
		return error_set(e, "InsufficientFreeAddressesInSubnet",
				 "There are %zu free addresses left in the subnet; %zu are "
				 "needed.",
				 addresses, min);
	*ret = MIN_OF(max, MIN_OF(room, addresses));
	return 0;
}

int inventory_take(struct inventory *inv, const char *account, size_t min, size_t max,
		   uint32_t wanted_ip, uint32_t *ret_ips, size_t *ret_count, struct error *e)
{
	size_t count = 0;
	int r;

	if (!inv->pool)
		return error_set(e, "InsufficientFreeAddressesInSubnet",
				 "This cloud has no subnet for its guests yet (MALLEE_SUBNET)");
	assert(!wanted_ip || max == 1);
	pthread_mutex_lock(&inv->lock);
	struct tally *t = tally_of(inv, account);
	r = allowed(inv, t, min, max, &count, e);
	if (r >= 0 && wanted_ip) {
		r = take_wanted(inv, wanted_ip, e);
		ret_ips[0] = wanted_ip;
	} else if (r >= 0) {
		for (size_t i = 0; i < count; i++)
			r = ipv4_pool_take(inv->pool, &ret_ips[i]);
		assert(r >= 0); /* they were counted */
	}
	if (r >= 0) {
		t->live += count;
		*ret_count = count;
	}
	pthread_mutex_unlock(&inv->lock);
	return r;
}

void inventory_give(struct inventory *inv, const char *account, uint32_t ip)
{
	pthread_mutex_lock(&inv->lock);
	struct tally *t = tally_of(inv, account);
	if (t->live)
		t->live--;
	if (inv->pool)
		ipv4_pool_give(inv->pool, ip);
	pthread_mutex_unlock(&inv->lock);
}

void inventory_moved(struct inventory *inv, enum instance_state from, enum instance_state to)
{
	pthread_mutex_lock(&inv->lock);
	if (from != INSTANCE_STATE_COUNT)
		inv->states[from]--;
	if (to != INSTANCE_STATE_COUNT)
		inv->states[to]++;
	pthread_mutex_unlock(&inv->lock);
}

size_t inventory_count(struct inventory *inv, enum instance_state s)
{
	pthread_mutex_lock(&inv->lock);
	int64_t n = inv->states[s];
	pthread_mutex_unlock(&inv->lock);
	return n > 0 ? (size_t)n : 0;
}

size_t inventory_free_addresses(struct inventory *inv)
{
	pthread_mutex_lock(&inv->lock);
	size_t n = inv->pool ? ipv4_pool_free_count(inv->pool) : 0;
	pthread_mutex_unlock(&inv->lock);
	return n;
}
