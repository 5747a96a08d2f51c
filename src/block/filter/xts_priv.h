/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FILTER_XTS_PRIV_H
#define MALLEE_BLOCK_FILTER_XTS_PRIV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/*
 * AES-256-XTS (IEEE 1619) of a disk's sectors, as dm-crypt lays out aes-xts-plain64: a sector's tweak is its number, counted in
 * units of 512 bytes whatever its size.
 *
 * A lane is a thread's share: the expanded key and a sector's room, so that threads share nothing that changes.
 */
#define XTS_KEY_BYTES 64u
#define XTS_SECTOR_MAX 4096u

struct xts;

/* sector_bytes: 512 or 4096. The key stays the caller's, who wipes it. -EINVAL: its halves are alike, which XTS must not have. */
int xts_new(const uint8_t key[XTS_KEY_BYTES], uint32_t sector_bytes, unsigned lanes, struct xts **ret);
void xts_free(struct xts *x); /* wipes; NULL is fine */

/* Whole sectors, from byte off of the disk on. 0 or -EIO. */
int xts_encrypt(struct xts *x, unsigned lane, uint64_t off, const void *from, void *to, size_t bytes); /* from may be to */
/* The same of [skip, skip + len) of iov, whose elements may begin and end inside sectors. What is encrypted is left as it is. */
int xts_encrypt_iov(struct xts *x, unsigned lane, uint64_t off, const struct iovec *iov, unsigned count, uint64_t skip, void *to, size_t len);
int xts_decrypt_iov(struct xts *x, unsigned lane, uint64_t off, const struct iovec *iov, unsigned count, uint64_t skip, size_t len); /* in place */

#endif
