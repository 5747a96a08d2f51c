/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_VIRTD_H
#define MALLEE_CMD_VIRTD_H

#include <stdbool.h>

#include "base/error.h"

/* libvirt's daemons on this machine. Where systemd runs, its units are used; else the supervisor
 * runs them itself. */
bool virtd_answers(void); /* libvirtd's socket takes connections */
bool virtlogd_answers(void);
bool virtd_by_systemd(void); /* systemd is the init system and knows libvirtd */
int virtd_start_by_systemd(struct error *e);
/* Domains that run, of whatever cloud or none; negative when libvirtd does not answer. */
int virtd_active_domains(void);
/* Undefine (and turn off) every domain of this cloud: names that start "mallee-<cloud id>-". *ret:
 * how many. */
int virtd_remove_domains(const char *cloud_id, int *ret, struct error *e);

#endif
