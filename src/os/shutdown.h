/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OS_SHUTDOWN_H
#define MALLEE_OS_SHUTDOWN_H

#include <stdbool.h>

/* There where systemd runs. */
#define SYSTEMD_RUNS "/run/systemd/system"

/* Whether the host is being shut down or rebooted, as systemd tells it. False where systemd_runs is missing: other systems end
 * guests and services in no order that could be asked for. */
bool host_going_down(const char *systemd_runs);

#endif
