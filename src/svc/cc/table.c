/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "svc/cc/cc_priv.h"

/* --- lists --- */

static void list_append(struct instance_list *l, struct instance *i)
{
	struct instance_link *k = &i->link[l->kind];

	assert(!k->list);
	k->list = l;
	k->prev = l->tail;
	k->next = NULL;
	if (l->tail)
		l->tail->link[l->kind].next = i;
	else
		l->head = i;
	l->tail = i;
	l->count++;
}

static void list_remove(struct instance *i, enum list_kind kind)
{
	struct instance_link *k = &i->link[kind];
	struct instance_list *l = k->list;

	if (!l)
		return;
	if (k->prev)
		k->prev->link[kind].next = k->next;
	else
		l->head = k->next;
	if (k->next)
		k->next->link[kind].prev = k->prev;
	else
		l->tail = k->prev;
	l->count--;
	*k = (struct instance_link){0};
}

/* --- by id --- */

static uint32_t hash_text(const char *s)
{
	uint32_t h = 2166136261u;

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 16777619u;
	return h;
}

struct instance *instance_find(struct cc *c, const char *id)
{
	uint32_t h = hash_text(id);

	if (!c->bucket_count)
		return NULL;
	for (struct instance *i = c->buckets[h & (c->bucket_count - 1)]; i; i = i->hash_next) {
		if (i->hash == h && str_eq(i->id, id))
			return i;
	}
	return NULL;
}

static void grow(struct cc *c)
{
	size_t count = c->bucket_count ? 2 * c->bucket_count : 256;
	struct instance **buckets = calloc(count, sizeof(*buckets));

	if (!buckets)
		abort();
	for (size_t b = 0; b < c->bucket_count; b++) {
		for (struct instance *i = c->buckets[b], *next; i; i = next) {
			next = i->hash_next;
			i->hash_next = buckets[i->hash & (count - 1)];
			buckets[i->hash & (count - 1)] = i;
		}
	}
	free(c->buckets);
	c->buckets = buckets;
	c->bucket_count = count;
}

struct instance *instance_get(struct cc *c, const char *id, struct error *e)
{
	struct instance *i = instance_find(c, id);

	if (i)
		return i;
	if (!*id || strlen(id) >= CC_ID_LEN) {
		error_set(e, "InvalidParameterValue", "\"%.80s\" is not the id of an instance", id);
		return NULL;
	}
	if (c->instance_count >= CC_MAX_INSTANCES) {
		error_set(e, "LimitExceeded", "this cluster controller keeps %d instances at most",
			  CC_MAX_INSTANCES);
		return NULL;
	}
	if (c->instance_count >= c->bucket_count)
		grow(c);
	i = calloc(1, sizeof(*i));
	if (!i)
		abort();
	strcpy(i->id, id);
	i->hash = hash_text(id);
	i->hash_next = c->buckets[i->hash & (c->bucket_count - 1)];
	c->buckets[i->hash & (c->bucket_count - 1)] = i;
	c->instance_count++;
	return i;
}

static void instance_free(struct instance *i)
{
	free(i->spec);
	free(i->observed);
	free(i);
}

/* --- room --- */

static void uncount(struct instance *i)
{
	if (!i->counted)
		return;
	for (int r = 0; r < RESOURCE_COUNT; r++)
		i->node->used.of[r] -= i->taken.of[r];
	i->node->instance_count--;
	i->counted = false;
}

bool instance_idle(const struct instance *i)
{
	/* One whose guest switched itself off is stopped under a specification that wants it to run. */
	return i->spec && i->seen.stopped && (i->wants_off || i->seen.generation >= i->generation);
}

/* What is wanted counts until its node says that it has ended; what is reserved counts too. Of a stopped one its disk. */
static void count(struct instance *i)
{
	if (i->counted || !i->node || !((i->spec && !i->seen.ended) || i->reserved))
		return;
	i->taken = i->size;
	if (instance_idle(i) && !i->reserved)
		i->taken.of[RESOURCE_VCPUS] = i->taken.of[RESOURCE_MEMORY_MIB] = 0;
	for (int r = 0; r < RESOURCE_COUNT; r++)
		i->node->used.of[r] += i->taken.of[r];
	i->node->instance_count++;
	i->counted = true;
}

static void unreserve(struct instance *i)
{
	i->reserved = false;
	list_remove(i, LIST_RESERVED);
}

/* --- what is known --- */

/* Puts the instance on the lists that it belongs on by what is known of it. */
static void enlist_forget(struct cc *c, struct instance *i)
{
	list_remove(i, LIST_FORGET);
	if (!i->forget)
		return;
	list_append(i->node ? &i->node->forget : &c->lone_forgets, i);
	if (i->node)
		pthread_cond_signal(&i->node->wake_send);
}

void instance_set_node(struct instance *i, struct node *n)
{
	if (i->node == n)
		return;
	uncount(i);
	list_remove(i, LIST_NODE);
	list_remove(i, LIST_SEND);
	i->node = n;
	list_append(&n->instances, i);
	if (i->forget)
		enlist_forget(n->cc, i);
	count(i);
}

void instance_set_spec(struct cc *c, struct instance *i, char *json, int64_t generation, bool wants_off,
		       const struct capacity *size)
{
	assert(i->node);
	uncount(i);
	if (i->spec && str_eq(i->spec, json)) {
		/* Told again: what is reserved for its start is for a specification that is on its way. */
		if (!instance_idle(i))
			unreserve(i);
		free(json);
		count(i);
		return;
	}
	unreserve(i);
	free(i->spec);
	i->spec = json;
	i->generation = generation;
	i->wants_off = wants_off;
	i->spec_serial = ++c->serial;
	i->size = *size;
	count(i);
	if (!i->link[LIST_SEND].list)
		list_append(&i->node->send, i);
	pthread_cond_signal(&i->node->wake_send);
}

void instance_drop_spec(struct cc *c, struct instance *i)
{
	uncount(i);
	list_remove(i, LIST_SEND);
	free(i->spec);
	i->spec = NULL;
	i->generation = 0;
	i->wants_off = false;
	count(i);
}

void instance_sent(struct instance *i)
{
	list_remove(i, LIST_SEND);
}

void instance_send_again(struct instance *i)
{
	if (!i->spec)
		return;
	list_remove(i, LIST_SEND);
	list_append(&i->node->send, i);
}

void instance_touch(struct cc *c, struct instance *i)
{
	if (!i->observed)
		return;
	i->revision = ++c->revision;
	list_remove(i, LIST_REVISION);
	list_append(&c->by_revision, i);
	pthread_cond_broadcast(&c->changed);
}

void instance_set_observed(struct cc *c, struct instance *i, char *json, const struct sighting *seen)
{
	if (i->observed && str_eq(i->observed, json)) {
		free(json);
		return;
	}
	uncount(i);
	free(i->observed);
	i->observed = json;
	i->seen = *seen;
	count(i);
	instance_touch(c, i);
}

void instance_drop_observed(struct cc *c, struct instance *i)
{
	uncount(i);
	list_remove(i, LIST_REVISION);
	free(i->observed);
	i->observed = NULL;
	i->seen = (struct sighting){0};
	count(i);
}

void instance_reserve(struct cc *c, struct instance *i, struct node *n, const struct capacity *size,
		      int64_t until_ms)
{
	instance_set_node(i, n);
	uncount(i);
	i->size = *size;
	i->reserved = true;
	i->reserved_until_ms = until_ms;
	list_remove(i, LIST_RESERVED);
	list_append(&c->reservations, i);
	count(i);
}

void instance_set_forget(struct cc *c, struct instance *i, int64_t lone_until_ms)
{
	i->forget = true;
	i->forget_until_ms = lone_until_ms;
	enlist_forget(c, i);
}

void instance_drop_forget(struct cc *c, struct instance *i)
{
	i->forget = false;
	enlist_forget(c, i);
}

void instance_tidy(struct cc *c, struct instance *i)
{
	struct instance **p;

	if (i->spec || i->observed || i->reserved || i->forget)
		return;
	uncount(i);
	for (int k = 0; k < LIST_KINDS; k++)
		list_remove(i, k);
	for (p = &c->buckets[i->hash & (c->bucket_count - 1)]; *p != i; p = &(*p)->hash_next)
		;
	*p = i->hash_next;
	c->instance_count--;
	instance_free(i);
}

void table_expire(struct cc *c, int64_t now_ms)
{
	struct instance *i;

	while ((i = c->reservations.head) && i->reserved_until_ms <= now_ms) {
		uncount(i);
		unreserve(i);
		count(i);
		instance_tidy(c, i);
	}
	while ((i = c->lone_forgets.head) && i->forget_until_ms <= now_ms) {
		instance_drop_forget(c, i);
		instance_tidy(c, i);
	}
}

void table_free(struct cc *c)
{
	for (size_t b = 0; b < c->bucket_count; b++) {
		for (struct instance *i = c->buckets[b], *next; i; i = next) {
			next = i->hash_next;
			instance_free(i);
		}
	}
	free(c->buckets);
}
