/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net_priv.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"

uint32_t cidr_mask(struct cidr c)
{
	return c.prefix ? UINT32_MAX << (32 - c.prefix) : 0;
}

int cidr_parse(const char *s, struct cidr *ret)
{
	char ip[IPV4_LEN];
	const char *slash;
	struct cidr c;
	uint64_t prefix;

	if (!s)
		return -EINVAL;
	slash = strchr(s, '/');
	if (!slash || (size_t)(slash - s) >= sizeof(ip))
		return -EINVAL;
	memcpy(ip, s, slash - s);
	ip[slash - s] = '\0';
	if (ipv4_parse(ip, &c.addr) < 0 || parse_u64(slash + 1, 0, 32, &prefix) < 0)
		return -EINVAL;
	c.prefix = prefix;
	if (c.addr & ~cidr_mask(c))
		return -EINVAL;
	*ret = c;
	return 0;
}

void cidr_format(struct cidr c, char out[static CIDR_TEXT])
{
	char ip[IPV4_LEN];

	ipv4_format(c.addr, ip);
	snprintf(out, CIDR_TEXT, "%s/%u", ip, c.prefix);
}

bool cidr_overlap(struct cidr a, struct cidr b)
{
	uint32_t mask = cidr_mask(a.prefix < b.prefix ? a : b);

	return (a.addr & mask) == (b.addr & mask);
}

bool cidr_has(struct cidr c, uint32_t ip)
{
	return (ip & cidr_mask(c)) == c.addr;
}

int mac_parse(const char *s, uint8_t ret[static 6])
{
	uint8_t mac[6];

	if (!s || strlen(s) != 17)
		return -EINVAL;
	for (int i = 0; i < 6; i++) {
		if (hex_decode(s + 3 * i, 2, &mac[i]) < 0 || (i < 5 && s[3 * i + 2] != ':'))
			return -EINVAL;
	}
	memcpy(ret, mac, sizeof(mac));
	return 0;
}

void mac_format(const uint8_t mac[static 6], char out[static MAC_TEXT])
{
	snprintf(out, MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
		 mac[4], mac[5]);
}
