/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/daemon.h"
#include "svc/cc/cc.h"

DAEMON_MAIN(cc, "Cluster controller: places instances on nodes and keeps them as they should be.")
