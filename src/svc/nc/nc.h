/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_NC_NC_H
#define MALLEE_SVC_NC_NC_H

#include "base/error.h"
#include "base/settings.h"

/*
 * The node controller: runs on one host the instances that the cluster controller wants there.
 * Everything that it starts in the background ends with nc_stop(); guests go on. Needs root, but
 * for the fake hypervisor.
 */
struct nc;

/* s is copied. Returns when the node serves; it registers with the cluster controller in the
 * background. */
int nc_start(const struct settings *s, struct nc **ret, struct error *e);
void nc_stop(struct nc *nc); /* NULL is fine */

#endif
