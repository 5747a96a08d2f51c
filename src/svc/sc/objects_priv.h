/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_OBJECTS_PRIV_H
#define MALLEE_SVC_SC_OBJECTS_PRIV_H

#include "svc/sc/objects.h"

/* The ctx of objects that were made with these ops: asserted. */
void *objects_ctx(struct objects *o, const struct objects_ops *ops);

#endif
