/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_MODEL_IPV4_H
#define MALLEE_MODEL_IPV4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* IPv4 addresses as numbers in host byte order, and the pool of those that a subnet has to give. */
#define IPV4_LEN 16 /* "255.255.255.255" and NUL */

int ipv4_parse(const char *s, uint32_t *ret); /* dotted quad, no leading zeros; -EINVAL */
void ipv4_format(uint32_t ip, char out[static IPV4_LEN]);

struct ipv4_subnet {
	uint32_t network;
	int prefix; /* 8 to 29 */
};
/* "10.1.0.0/16"; host bits must be zero. -EINVAL. */
int ipv4_subnet_parse(const char *cidr, struct ipv4_subnet *ret);
uint32_t ipv4_subnet_gateway(const struct ipv4_subnet *s);   /* the first host */
uint32_t ipv4_subnet_broadcast(const struct ipv4_subnet *s); /* the last address */
bool ipv4_subnet_contains(const struct ipv4_subnet *s, uint32_t ip);

/* Addresses for guests: all but the network's, the gateway's and the broadcast address. Not
 * thread-safe. */
struct ipv4_pool;
struct ipv4_pool *ipv4_pool_new(const struct ipv4_subnet *s);
void ipv4_pool_free(struct ipv4_pool *p); /* NULL is fine */
/* One that is free, the one that was given back longest ago as far as can be (guests' neighbours
 * remember). -ENOSPC. */
int ipv4_pool_take(struct ipv4_pool *p, uint32_t *ret);
/* A certain one: -EBUSY when taken, -EADDRNOTAVAIL when it is the network's own, -ERANGE outside
 * the subnet. */
int ipv4_pool_take_this(struct ipv4_pool *p, uint32_t ip);
void ipv4_pool_give(struct ipv4_pool *p, uint32_t ip); /* of one that is not taken: nothing */
size_t ipv4_pool_free_count(const struct ipv4_pool *p);
size_t ipv4_subnet_usable(const struct ipv4_subnet *s); /* how many a pool starts with */

/* "02:xx:a:b:c:d": locally administered, unique in a cloud since the address is; `cloud` tells
 * clouds on one host apart. */
#define MAC_LEN 18
void mac_for_ipv4(const char *cloud, uint32_t ip, char out[static MAC_LEN]);

#endif
