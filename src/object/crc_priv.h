/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OBJECT_CRC_PRIV_H
#define MALLEE_OBJECT_CRC_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* Reflected CRCs that start and end inverted, of 32 or 64 bits. */
struct crc_params {
	unsigned width; /* bits */
	uint64_t poly;	/* reflected */
};

struct crc;

struct crc *crc_new(const struct crc_params *p); /* p must outlive it; never NULL */
void crc_free(struct crc *c);
void crc_update(struct crc *c, const void *data, size_t len);
uint64_t crc_value(const struct crc *c);
uint64_t crc_combine(const struct crc_params *p, uint64_t a, uint64_t b, uint64_t b_len);

#endif
