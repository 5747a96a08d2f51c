/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_FIRST_H
#define MALLEE_CMD_FIRST_H

#include "cmd/client.h"

/* What `mallee up` puts into a new cloud, each only where it is missing: the image "tiny", the key
 * pair "mallee", an instance tagged Name=first. Prints what it does. */
struct first {
	char image_id[32], instance_id[32], address[48];
	char *key_path;
};

int first_make(struct client *c, const struct settings *s, struct first *ret, struct error *e);
void first_done(struct first *f);

#endif
