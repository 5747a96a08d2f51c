/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/daemon.h"
#include "svc/sc/sc.h"

DAEMON_MAIN(sc, "Storage controller: EBS volumes and snapshots.")
