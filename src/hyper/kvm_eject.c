/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk is pulled out of a guest that does not let go of it.
 *
 * QEMU has no command for that. But it emulates, in a few I/O ports, the hardware that the guest's
 * ACPI code uses to throw out a device when the guest has let go (QEMU, docs/specs/acpi_pci_hotplug):
 * the number of a bus into one register, a bit for the slot into another. Its human monitor can write
 * ports, so this does as the guest would. What follows in QEMU is its ordinary unplugging.
 *
 * The guest may use the same two registers meanwhile; between our two writes it could make us throw
 * out another device. So it stands still for these few milliseconds, and the register is given back
 * as it was. A caller that is killed in between leaves the guest paused, and behind it a null
 * chardev as a mark: kvm_eject_finish() lets such a guest run on.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "hyper/kvm_priv.h"

#define REG_EJECT 0x08 /* a bit a slot; ours are alone on their buses, in slot 0 */
#define REG_BUS 0x10

static void json_freep(json_t **j)
{
	json_decref(*j);
}

static int get_number(const struct kvm_monitor *m, const char *path, const char *property,
		      int64_t *ret, struct error *e)
{
	_cleanup_(json_freep) json_t *value = NULL;
	int r = kvm_monitor_run(m, "qom-get", json_pack("{s:s, s:s}", "path", path, "property", property),
				&value, e);

	if (r == 0)
		*ret = json_integer_value(value);
	return r;
}

/* Where the ports are: a property of the south bridge, which QEMU gives no name of its own. */
static int find_ports(const struct kvm_monitor *m, int64_t *ret, struct error *e)
{
	_cleanup_(json_freep) json_t *parts = NULL;
	json_t *part;
	size_t i;
	int r = kvm_monitor_run(m, "qom-list", json_pack("{s:s}", "path", "/machine/unattached"),
				&parts, e);

	if (r < 0)
		return r;
	json_array_foreach(parts, i, part) {
		const char *type = json_string_value(json_object_get(part, "type"));
		const char *name = json_string_value(json_object_get(part, "name"));
		char path[128];

		if (!type || !name || !str_eq(type, "child<ICH9-LPC>"))
			continue;
		snprintf(path, sizeof(path), "/machine/unattached/%s", name);
		return get_number(m, path, "acpi-pcihp-io-base", ret, e);
	}
	error_set(e, "InternalError", "QEMU shows no ports to throw a device out with");
	return -EOPNOTSUPP;
}

static int write_port(const struct kvm_monitor *m, int64_t port, int64_t value, struct error *e)
{
	char line[64];

	snprintf(line, sizeof(line), "o/w 0x%" PRIx64 " 0x%" PRIx64, port, value);
	return kvm_monitor_line(m, line, NULL, e);
}

/* The answer is "portl[0x0cd0] = 0x00000000". */
static int read_port(const struct kvm_monitor *m, int64_t port, int64_t *ret, struct error *e)
{
	_cleanup_(freep) char *text = NULL;
	const char *value;
	char line[64];
	int r;

	snprintf(line, sizeof(line), "i/w 0x%" PRIx64, port);
	r = kvm_monitor_line(m, line, &text, e);
	if (r < 0)
		return r;
	value = strstr(text, "= ");
	if (!value || sscanf(value, "= %" SCNx64, (uint64_t *)ret) != 1)
		return error_set(e, "InternalError", "QEMU does not read a port but says \"%s\"", text);
	return 0;
}

static int throw_out(const struct kvm_monitor *m, int64_t base, int64_t bus, struct error *e)
{
	int64_t before, now;
	int r = read_port(m, base + REG_BUS, &before, e);

	if (r == 0)
		r = write_port(m, base + REG_BUS, bus, e);
	if (r < 0)
		return r;
	/* Said and not done is the one thing that must not be. */
	r = read_port(m, base + REG_BUS, &now, e);
	if (r == 0 && now != bus)
		r = error_set(e, "InternalError", "QEMU did not select the disk's bus");
	if (r == 0)
		r = write_port(m, base + REG_EJECT, 1, e);
	(void)write_port(m, base + REG_BUS, before, NULL);
	return r;
}

static int mark(const struct kvm_monitor *m, struct error *e)
{
	return kvm_monitor_run(m, "chardev-add",
			       json_pack("{s:s, s:{s:s, s:{}}}", "id", KVM_EJECT_MARK, "backend",
					 "type", "null", "data"),
			       NULL, e);
}

int kvm_eject_finish(const struct kvm_monitor *m, struct error *e)
{
	int state, reason;

	if (virDomainGetState(m->dom, &state, &reason, 0) == 0 && state == VIR_DOMAIN_PAUSED &&
	    reason == VIR_DOMAIN_PAUSED_USER && virDomainResume(m->dom) < 0)
		return kvm_domain_error(m->k, m->dom, e, "resume");
	return kvm_monitor_run(m, "chardev-remove", json_pack("{s:s}", "id", KVM_EJECT_MARK), NULL, e);
}

int kvm_eject(const struct kvm_monitor *m, unsigned int port, struct error *e)
{
	int64_t base, bus;
	char path[64];
	int r, undone;

	snprintf(path, sizeof(path), "/machine/peripheral/pci.%u/pci.%u", port, port);
	r = find_ports(m, &base, e);
	if (r == 0)
		r = get_number(m, path, "acpi-pcihp-bsel", &bus, e);
	if (r == 0)
		r = mark(m, e);
	if (r < 0)
		return r;
	if (virDomainSuspend(m->dom) < 0)
		r = kvm_domain_error(m->k, m->dom, e, "pause");
	else
		r = throw_out(m, base, bus, e);
	undone = kvm_eject_finish(m, r < 0 ? NULL : e);
	return r < 0 ? r : undone;
}
