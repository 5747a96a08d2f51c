/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BASE_BUF_H
#define MALLEE_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>

#include "base/macros.h"

/* A growing byte buffer. data is NUL-terminated behind len (the NUL is not counted) once anything was
 * appended. Initialise with BUF_INIT; out of memory aborts. */
struct buf {
	char *data;
	size_t len;
	size_t cap;
};

#define BUF_INIT ((struct buf){ 0 })

void buf_append(struct buf *b, const void *data, size_t len);
void buf_puts(struct buf *b, const char *s);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) _printf_(2, 3);
void buf_vprintf(struct buf *b, const char *fmt, va_list ap) _printf_(2, 0);
void buf_reset(struct buf *b); /* length 0, memory kept */
void buf_done(struct buf *b);  /* frees, back to BUF_INIT */
/* The buffer's text as a malloc()ed string that the caller owns; the buffer is empty afterwards. */
char *buf_steal(struct buf *b);

#endif
