/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_WALRUS_WALRUS_H
#define MALLEE_SVC_WALRUS_WALRUS_H

#include "base/error.h"
#include "base/settings.h"

/* The object store: S3 on PORT_S3, our own messages on PORT_WALRUS, the operator's listener on
 * PORT_OPS_WALRUS. Data is kept under $MALLEE_STATE/walrus; the certificate walrus must be in
 * $MALLEE_STATE/certs. */
struct walrus;

/* s must outlive it. */
int walrus_start(const struct settings *s, struct walrus **ret, struct error *e);
/* Finishes what is under way, for a few seconds; NULL is fine. */
void walrus_stop(struct walrus *w);

#endif
