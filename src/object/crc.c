/* SPDX-License-Identifier: Apache-2.0 */
#include "object/crc_priv.h"

#include <endian.h>
#include <string.h>

/*
 * Eight bytes a step through eight tables: table[k][b] is the CRC of byte b followed by k zero
 * bytes. In a reflected CRC the lowest bit of the register meets the next byte, so a 32-bit
 * register simply uses the low half of the 64-bit word.
 */
struct crc {
	const struct crc_params *params;
	uint64_t value; /* not inverted yet */
	uint64_t table[8][256];
};

static uint64_t all_ones(const struct crc_params *p)
{
	return p->width == 64 ? UINT64_MAX : (UINT64_C(1) << p->width) - 1;
}

struct crc *crc_new(const struct crc_params *p)
{
	struct crc *c = malloc(sizeof(*c));

	if (!c)
		abort();
	c->params = p;
	c->value = all_ones(p);
	for (unsigned b = 0; b < 256; b++) {
		uint64_t v = b;

		for (int bit = 0; bit < 8; bit++)
			v = v & 1 ? v >> 1 ^ p->poly : v >> 1;
		c->table[0][b] = v;
	}
	for (int k = 1; k < 8; k++)
		for (unsigned b = 0; b < 256; b++) {
			uint64_t v = c->table[k - 1][b];

			c->table[k][b] = v >> 8 ^ c->table[0][v & 0xff];
		}
	return c;
}

void crc_free(struct crc *c)
{
	free(c);
}

static uint64_t load_le64(const unsigned char *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

void crc_update(struct crc *c, const void *data, size_t len)
{
	const unsigned char *p = data;
	uint64_t v = c->value;

	for (; len >= 8; p += 8, len -= 8) {
		uint64_t w = v ^ load_le64(p);

		v = c->table[7][w & 0xff] ^ c->table[6][w >> 8 & 0xff] ^
		    c->table[5][w >> 16 & 0xff] ^ c->table[4][w >> 24 & 0xff] ^
		    c->table[3][w >> 32 & 0xff] ^ c->table[2][w >> 40 & 0xff] ^
		    c->table[1][w >> 48 & 0xff] ^ c->table[0][w >> 56];
	}
	for (; len > 0; p++, len--)
		v = v >> 8 ^ c->table[0][(v ^ *p) & 0xff];
	c->value = v;
}

uint64_t crc_value(const struct crc *c)
{
	return c->value ^ all_ones(c->params);
}

/* a * b modulo the polynomial; bit (width - 1) is x^0, as in every reflected CRC. */
static uint64_t multiply(const struct crc_params *p, uint64_t a, uint64_t b)
{
	uint64_t product = 0;

	for (uint64_t bit = UINT64_C(1) << (p->width - 1); bit; bit >>= 1) {
		if (a & bit)
			product ^= b;
		b = b & 1 ? b >> 1 ^ p->poly : b >> 1;
	}
	return product;
}

/* Appending b_len bytes multiplies a's CRC by x^(8 * b_len); the inversions at both ends cancel
 * out. */
uint64_t crc_combine(const struct crc_params *p, uint64_t a, uint64_t b, uint64_t b_len)
{
	uint64_t power = UINT64_C(1) << (p->width - 1 - 8); /* x^8 */

	for (uint64_t n = b_len; n; n >>= 1) {
		if (n & 1)
			a = multiply(p, power, a);
		power = multiply(p, power, power);
	}
	return a ^ b;
}
