/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_SETUP_H
#define MALLEE_CMD_SETUP_H

#include "base/error.h"
#include "base/settings.h"

/* What `mallee up` makes before anything is started; each step does nothing where its work is done
 * already. */

/* May this user, with these settings, on this host? Changes nothing. Without root the message is
 * the command to run. */
int preflight(struct settings *s, struct error *e);
/* Cloud id, subnet, region … into mallee.conf. */
int setup_settings(struct settings *s, struct error *e);
/* Folders with their owners, programs into bin/, certificates. */
int setup_state(struct settings *s, struct error *e);

#endif
