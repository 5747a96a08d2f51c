/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_APPARMOR_H
#define MALLEE_CMD_APPARMOR_H

#include <stdbool.h>

#include "base/error.h"

/*
 * libvirt confines each guest with AppArmor where the host has it. Its helper, virt-aa-helper, looks
 * at a domain's disks and console to write that guest's profile, and may itself read only what its own
 * profile lists. So the folder of a cloud's instances is added to that profile's local part, the
 * file that Debian keeps for such additions, between two lines that carry the cloud's id. Guests get
 * nothing by it: what each may open is still written for it alone.
 */
#define APPARMOR_LOCAL "/etc/apparmor.d/local/usr.lib.libvirt.virt-aa-helper"
#define APPARMOR_PROFILE "/etc/apparmor.d/usr.lib.libvirt.virt-aa-helper"

/* Whether this host confines virt-aa-helper: AppArmor is on and the profile is there. */
bool apparmor_confines(void);
/* Put this cloud's lines into the local part `path` (made if missing), or bring them up to date.
 * *ret_changed: the profile must be loaded again. A state folder whose name would have to be quoted is
 * refused. */
int apparmor_allow(const char *path, const char *cloud_id, const char *state, bool *ret_changed,
		   struct error *e);
/*
 * A guest's volumes are served on unix sockets, of which virt-aa-helper knows nothing. So what all
 * guests' profiles include gets a line, too: a guest's QEMU may open sockets of the name vhost.sock
 * in the state folder that belong to its own user. No reload: a profile is read when its guest
 * starts. Taken out by apparmor_withdraw().
 */
#define APPARMOR_GUESTS_LOCAL "/etc/apparmor.d/local/abstractions/libvirt-qemu"
int apparmor_allow_sockets(const char *path, const char *cloud_id, const char *state,
			   bool *ret_changed, struct error *e);
/* Take them out; a file that is then empty, or missing, is success. */
int apparmor_withdraw(const char *path, const char *cloud_id, bool *ret_changed, struct error *e);
/* Load the helper's profile again. */
int apparmor_reload(struct error *e);

#endif
