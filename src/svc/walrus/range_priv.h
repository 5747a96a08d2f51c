/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_WALRUS_RANGE_PRIV_H
#define MALLEE_SVC_WALRUS_RANGE_PRIV_H

#include <stdint.h>

#include "base/error.h"

/* A Range header over size bytes. 1: *ret_off and *ret_len are what is wanted; 0: to be ignored, as
 * S3 does with what it does not understand and with several ranges; InvalidRange when no byte of it
 * exists. */
int range_parse(const char *text, uint64_t size, uint64_t *ret_off, uint64_t *ret_len,
		struct error *e);

#endif
