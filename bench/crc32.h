/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BENCH_CRC32_H
#define MALLEE_BENCH_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* The CRC-32 of Ethernet and zlib, eight bytes a step. */
struct crc32_tables {
	uint32_t t[8][256];
};

void crc32_init(struct crc32_tables *c);
uint32_t crc32_of(const struct crc32_tables *c, const void *data, size_t len_bytes);

#endif
