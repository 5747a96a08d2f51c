/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CC_HANDLERS_PRIV_H
#define MALLEE_SVC_CC_HANDLERS_PRIV_H

#include "svc/cc/cc_priv.h"

struct rpc_binding cluster_binding(struct cc *c);

#endif
