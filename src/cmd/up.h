/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_UP_H
#define MALLEE_CMD_UP_H

#include "base/error.h"
#include "base/settings.h"

/* Start the supervisor unless it runs; it starts, or adopts, the services. */
int supervisor_start(const struct settings *s, struct error *e);
/* Wait until all services say that they are well. */
int services_wait(const struct settings *s, int timeout_ms, struct error *e);

#endif
