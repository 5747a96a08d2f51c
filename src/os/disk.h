/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OS_DISK_H
#define MALLEE_OS_DISK_H

#include <stdint.h>

#include "base/error.h"

/* Whole block devices that an operator gives away. Errors say which device, and what is wrong with it. */

#define DISK_END_BYTES (1u << 20) /* signatures of file systems, volume managers and partitions lie within these of an end */

int disk_size(const char *device, int64_t *ret_bytes, struct error *e);
/* 0 when it is a whole disk, neither mounted nor otherwise used by the kernel, and blank at both ends: nobody's data. */
int disk_check_blank(const char *device, struct error *e);
/* Make it so: both ends are zeroes, durably. What is between stays. */
int disk_blank(const char *device, struct error *e);

#endif
