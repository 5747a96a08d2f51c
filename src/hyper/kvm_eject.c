/* SPDX-License-Identifier: Apache-2.0 */
/* Stand-in until tried. */
#include "hyper/kvm_priv.h"

int kvm_eject(const struct kvm_monitor *m, unsigned int port, struct error *e)
{
	error_set(e, "InternalError", "the hypervisor cannot take a disk from a guest that holds on to it");
	return -EOPNOTSUPP;
}
