/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/daemon.h"
#include "svc/walrus/walrus.h"

DAEMON_MAIN(walrus, "Walrus: the S3 object store.")
