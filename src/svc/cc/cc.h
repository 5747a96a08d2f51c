/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CC_CC_H
#define MALLEE_SVC_CC_CC_H

#include "base/error.h"
#include "base/settings.h"

/* The cluster controller: places instances on nodes, tells nodes what is wanted and gathers what
 * is. */
struct cc;

/* Listens on loopback: PORT_CC (messages), PORT_OPS_CC (health, metrics). s is read during the call
 * only. */
int cc_start(const struct settings *s, struct cc **ret, struct error *e);
/* Instances are left as they are. NULL is fine. */
void cc_stop(struct cc *c);

#endif
