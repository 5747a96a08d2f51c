/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_CLC_H
#define MALLEE_SVC_CLC_CLC_H

#include "base/error.h"
#include "base/settings.h"

/* The cloud controller: the public API, accounts, authoritative state, reconciling. */
struct clc;

/* Opens $MALLEE_STATE/clc/clc.db (made with the account `default` at the first start), and listens.
 * s must outlive it. When it returns, requests are being served. */
int clc_start(const struct settings *s, struct clc **ret, struct error *e);
/* Requests under way are finished; instances are left as they are. NULL is fine. */
void clc_stop(struct clc *c);

#endif
