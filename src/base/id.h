/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BASE_ID_H
#define MALLEE_BASE_ID_H

#include <stdbool.h>
#include <stddef.h>

/* Resource ids: PREFIX "-" 17 lower-case hexadecimal digits, as Amazon's (i-, ami-, r-, eni-, key-, vol-). */
#define ID_LEN 32 /* room for the longest prefix and NUL */

void id_new(const char *prefix, char out[static ID_LEN]);
/* True if s is PREFIX-, then 8 or 17 lower-case hexadecimal digits (Amazon accepts both lengths). */
bool id_valid(const char *prefix, const char *s);

/* Fill with random bytes from the kernel. Never fails (aborts if the kernel has none to give). */
void random_bytes(void *out, size_t len);
/* A random token of len characters out of [A-Za-z0-9], NUL-terminated: out holds len + 1. */
void random_token(char *out, size_t len);

#endif
