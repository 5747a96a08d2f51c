/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/daemon.h"
#include "svc/clc/clc.h"

DAEMON_MAIN(clc, "Cloud controller: the EC2, STS and IAM APIs, accounts, the authoritative state.")
