/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net_priv.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "os/file.h"

/* The very flags with which libvirt and QEMU attach: others would be refused on a persistent tap.
 */
#define TAP_FLAGS (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)

int tap_make(struct nl *nl, const char *name, uid_t uid, gid_t gid)
{
	_cleanup_(fd_closep) int fd = -1;
	struct ifreq ifr = {.ifr_flags = TAP_FLAGS};
	struct nl_link l;
	int r;

	r = nl_link_get(nl, name, &l);
	if (!r && strcmp(l.kind, "tun"))
		return -EEXIST;
	if (!r && l.owner == uid && l.group == gid)
		return 0;
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0 || ioctl(fd, TUNSETOWNER, (unsigned long)uid) < 0 ||
	    ioctl(fd, TUNSETGROUP, (unsigned long)gid) < 0 || ioctl(fd, TUNSETPERSIST, 1UL) < 0)
		return -errno;
	return 0;
}
