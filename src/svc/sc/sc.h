/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_SC_H
#define MALLEE_SVC_SC_SC_H

#include "base/error.h"
#include "base/settings.h"

/*
 * The storage controller: keeps the volumes and snapshots that the cloud controller wants. Everything that it starts in the
 * background ends with sc_stop(), but for the processes that serve volumes and snapshots: those go on, and the next one finds them.
 */
struct sc;

/* s is copied. Returns when it serves; Walrus and the cloud controller are looked for in the background. */
int sc_start(const struct settings *s, struct sc **ret, struct error *e);
void sc_stop(struct sc *sc); /* NULL is fine */

#endif
