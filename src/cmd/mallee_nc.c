/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/daemon.h"
#include "svc/nc/nc.h"

DAEMON_MAIN(nc, "Node controller: images, disks, network, metadata and guests of this machine.")
