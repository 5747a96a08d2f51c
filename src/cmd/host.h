/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_HOST_H
#define MALLEE_CMD_HOST_H

#include "base/error.h"
#include "base/settings.h"

/*
 * What Mallee made on this machine that its clouds share, recorded in /var/lib/mallee-host before
 * it is made: users/NAME, clouds/ID (whose text is the state folder), packages, kvm-device (whose
 * /dev/kvm was). The last cloud that is uninstalled takes it all away.
 */

/* The users "mallee" (the services) and "libvirt-qemu" (libvirtd refuses to run without), made if
 * missing. */
int host_users_make(struct error *e);
/* QEMU's user gets access to /dev/kvm (hyper/host.h). After host_cloud_add(). */
int host_kvm_prepare(struct error *e);
/* Enter this cloud into the list. */
int host_cloud_add(const struct settings *s, struct error *e);
/* Strike this cloud from the list; if none is left, remove the users that we made and the record
 * itself, and print which packages were installed for Mallee. */
int host_cloud_remove(const struct settings *s, struct error *e);

#endif
