/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_STOP_H
#define MALLEE_CMD_STOP_H

#include <stdbool.h>

#include "base/error.h"
#include "base/settings.h"

/* Whether anything of this cloud runs. */
bool cloud_runs(const struct settings *s);
/* Shut the guests down (asking, then off after timeout_s), then the services, then the supervisor.
 * Prints progress.
 * regardless: guests that cannot be shut down are told of and no reason to stop. */
int cloud_stop(const struct settings *s, int timeout_s, bool regardless, struct error *e);
/* Ask "… [y/N]" on a terminal unless yes. 0, or -ECANCELED with what to do when there is no
 * terminal or the answer is no. */
int confirm(bool yes, const char *question, struct error *e);

#endif
