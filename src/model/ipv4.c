/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "model/ipv4.h"

enum { PREFIX_MIN = 8, PREFIX_MAX = 29, BITS = 64 };

int ipv4_parse(const char *s, uint32_t *ret)
{
	uint32_t ip = 0;

	for (int i = 0; i < 4; i++) {
		unsigned octet = 0;
		int digits = 0;

		for (; *s >= '0' && *s <= '9' && digits < 3; s++, digits++) {
			if (digits == 1 && octet == 0)
				return -EINVAL; /* leading zero: octal to some readers */
			octet = octet * 10 + (unsigned)(*s - '0');
		}
		if (digits == 0 || octet > 255 || *s != (i < 3 ? '.' : '\0'))
			return -EINVAL;
		if (i < 3)
			s++;
		ip = ip << 8 | octet;
	}
	*ret = ip;
	return 0;
}

void ipv4_format(uint32_t ip, char out[static IPV4_LEN])
{
	snprintf(out, IPV4_LEN, "%u.%u.%u.%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
}

static uint32_t host_mask(const struct ipv4_subnet *s)
{
	return UINT32_MAX >> s->prefix;
}

int ipv4_subnet_parse(const char *cidr, struct ipv4_subnet *ret)
{
	const char *slash = strchr(cidr, '/');
	char ip[IPV4_LEN];
	struct ipv4_subnet s;
	int64_t prefix;

	if (!slash || (size_t)(slash - cidr) >= sizeof(ip))
		return -EINVAL;
	memcpy(ip, cidr, (size_t)(slash - cidr));
	ip[slash - cidr] = '\0';
	if (ipv4_parse(ip, &s.network) < 0 ||
	    parse_i64(slash + 1, PREFIX_MIN, PREFIX_MAX, &prefix) < 0)
		return -EINVAL;
	s.prefix = (int)prefix;
	if (s.network & host_mask(&s))
		return -EINVAL;
	*ret = s;
	return 0;
}

uint32_t ipv4_subnet_gateway(const struct ipv4_subnet *s)
{
	return s->network + 1;
}

uint32_t ipv4_subnet_broadcast(const struct ipv4_subnet *s)
{
	return s->network | host_mask(s);
}

bool ipv4_subnet_contains(const struct ipv4_subnet *s, uint32_t ip)
{
	return (ip & ~host_mask(s)) == s->network;
}

size_t ipv4_subnet_usable(const struct ipv4_subnet *s)
{
	return (size_t)host_mask(s) + 1 - 3;
}

struct ipv4_pool {
	struct ipv4_subnet subnet;
	size_t size; /* addresses in the subnet */
	size_t free_count;
	size_t next; /* where the search goes on: round and round, so that a fresh one is the least
			recent */
	uint64_t taken[];
};

static bool is_taken(const struct ipv4_pool *p, size_t i)
{
	return p->taken[i / BITS] >> (i % BITS) & 1;
}

static void mark(struct ipv4_pool *p, size_t i)
{
	p->taken[i / BITS] |= UINT64_C(1) << (i % BITS);
	p->free_count--;
}

struct ipv4_pool *ipv4_pool_new(const struct ipv4_subnet *s)
{
	size_t size = (size_t)host_mask(s) + 1;
	struct ipv4_pool *p = calloc(1, sizeof(*p) + (size + BITS - 1) / BITS * sizeof(uint64_t));

	if (!p)
		abort();
	p->subnet = *s;
	p->size = size;
	p->free_count = size;
	mark(p, 0);
	mark(p, ipv4_subnet_gateway(s) - s->network);
	mark(p, size - 1);
	p->next = 2;
	return p;
}

void ipv4_pool_free(struct ipv4_pool *p)
{
	free(p);
}

int ipv4_pool_take(struct ipv4_pool *p, uint32_t *ret)
{
	if (p->free_count == 0)
		return -ENOSPC;
	size_t i = p->next;
	while (is_taken(p, i))
		i = (i + 1) % p->size;
	mark(p, i);
	p->next = (i + 1) % p->size;
	*ret = p->subnet.network + (uint32_t)i;
	return 0;
}

int ipv4_pool_take_this(struct ipv4_pool *p, uint32_t ip)
{
	if (!ipv4_subnet_contains(&p->subnet, ip))
		return -ERANGE;
	size_t i = ip - p->subnet.network;
	if (i < 2 || i == p->size - 1)
		return -EADDRNOTAVAIL;
	if (is_taken(p, i))
		return -EBUSY;
	mark(p, i);
	return 0;
}

void ipv4_pool_give(struct ipv4_pool *p, uint32_t ip)
{
	size_t i = ip - p->subnet.network;

	if (!ipv4_subnet_contains(&p->subnet, ip) || i < 2 || i == p->size - 1 || !is_taken(p, i))
		return;
	p->taken[i / BITS] &= ~(UINT64_C(1) << (i % BITS));
	p->free_count++;
}

size_t ipv4_pool_free_count(const struct ipv4_pool *p)
{
	return p->free_count;
}

void mac_for_ipv4(const char *cloud, uint32_t ip, char out[static MAC_LEN])
{
	unsigned hash = 5381;

	for (const char *c = cloud; *c; c++)
		hash = hash * 33 + (unsigned char)*c;
	hash ^= hash >> 8 ^ hash >> 16;
	snprintf(out, MAC_LEN, "02:%02x:%02x:%02x:%02x:%02x", hash & 255, ip >> 24, ip >> 16 & 255,
		 ip >> 8 & 255, ip & 255);
}
