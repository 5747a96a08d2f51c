/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_UPLOAD_H
#define MALLEE_CMD_UPLOAD_H

#include "cmd/client.h"

struct import {
	const char *file;	 /* raw or qcow2 */
	const char *name;	 /* of the image; [A-Za-z0-9()[] ./'@_-]{3,128} as Amazon has it */
	const char *description; /* NULL: none */
	bool public;		 /* every account may use it */
	bool instance_store;	 /* the root is a disk of the node's, not a volume */
	bool quiet;		 /* no progress on stdout */
};

/* Convert to raw where needed, upload, register, wait until it is available. An image whose root is
 * a volume is made of a snapshot: the uploaded object is removed when it has been imported.
 * *ret_image_id lives in a. */
int image_import(struct client *c, const struct settings *s, const struct import *i,
		 struct arena *a, const char **ret_image_id, struct error *e);
/* Run image/tiny/build unless what it made is newer than its parts. *ret_path: malloc()ed path of
 * the raw image. */
int image_build_tiny(const char *output /* NULL: in the cache folder */, char **ret_path,
		     struct error *e);

#endif
