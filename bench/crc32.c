/* SPDX-License-Identifier: Apache-2.0 */
#include "crc32.h"

#include <string.h>

#define POLYNOMIAL 0xedb88320u

void crc32_init(struct crc32_tables *c)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
		c->t[0][i] = crc;
	}
	for (int step = 1; step < 8; step++) {
		for (uint32_t i = 0; i < 256; i++)
			c->t[step][i] = c->t[step - 1][i] >> 8 ^ c->t[0][c->t[step - 1][i] & 255];
	}
}

static uint32_t little32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t crc32_of(const struct crc32_tables *c, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t crc = ~0u;

	for (; len >= 8; len -= 8, p += 8) {
		uint32_t a = crc ^ little32(p), b = little32(p + 4);
		crc = c->t[7][a & 255] ^ c->t[6][a >> 8 & 255] ^ c->t[5][a >> 16 & 255] ^ c->t[4][a >> 24] ^
		      c->t[3][b & 255] ^ c->t[2][b >> 8 & 255] ^ c->t[1][b >> 16 & 255] ^ c->t[0][b >> 24];
	}
	for (; len; len--, p++)
		crc = crc >> 8 ^ c->t[0][(crc ^ *p) & 255];
	return ~crc;
}
