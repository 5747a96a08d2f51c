/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "hyper/disk_priv.h"
#include "hyper/kvm_priv.h"

/* Text for an attribute or an element. XML 1.0 has no way to write control bytes. */
static int put_text(struct buf *out, const char *s, struct error *e)
{
	if (!utf8_valid(s, strlen(s)))
		return error_set(e, "InvalidParameterValue", "a name of the machine is not UTF-8"),
		       -EINVAL;
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c < 0x20 || c == 0x7f) {
			error_set(e, "InvalidParameterValue",
				  "a name of the machine holds a control byte");
			return -EINVAL;
		}
		switch (c) {
		case '<':
			buf_puts(out, "&lt;");
			break;
		case '>':
			buf_puts(out, "&gt;");
			break;
		case '&':
			buf_puts(out, "&amp;");
			break;
		case '\'':
			buf_puts(out, "&apos;");
			break;
		case '"':
			buf_puts(out, "&quot;");
			break;
		default:
			buf_putc(out, (char)c);
		}
	}
	return 0;
}

/* before TEXT after, with TEXT escaped; errors stick in *r, so that a caller writes a list of these
 * and looks once. */
static void put(struct buf *out, int *r, const char *before, const char *text, const char *after,
		struct error *e)
{
	if (*r < 0)
		return;
	buf_puts(out, before);
	*r = put_text(out, text, e);
	buf_puts(out, after);
}

static void put_address(struct buf *out, unsigned int port)
{
	buf_printf(
	    out,
	    "      <address type='pci' domain='0x0000' bus='0x%02x' slot='0x00' function='0x0'/>\n",
	    port);
}

static void put_root_ports(struct buf *out)
{
	buf_puts(out, "    <controller type='pci' index='0' model='pcie-root'/>\n");
	for (unsigned int i = 0; i < KVM_PORT_COUNT; i++) {
		unsigned int slot = KVM_PORT_SLOT + i / 8, function = i % 8;

		buf_printf(
		    out,
		    "    <controller type='pci' index='%u' model='pcie-root-port'>\n"
		    "      <model name='pcie-root-port'/>\n"
		    "      <target chassis='%u' port='0x%02x'/>\n"
		    "      <address type='pci' domain='0x0000' bus='0x00' slot='0x%02x' function='0x%u'%s/>\n"
		    "    </controller>\n",
		    i + 1, i + 1, slot << 3 | function, slot, function,
		    function == 0 ? " multifunction='on'" : "");
	}
}

/* What cloud-init looks at to know EC2: UUID and serial alike, both starting "ec2". */
static void put_dmi(struct buf *out, int *r, const struct hyper_machine *m, struct error *e)
{
	buf_puts(out, "  <os>\n"
		      "    <type arch='x86_64' machine='q35'>hvm</type>\n"
		      "    <smbios mode='sysinfo'/>\n"
		      "  </os>\n"
		      "  <sysinfo type='smbios'>\n"
		      "    <bios>\n"
		      "      <entry name='vendor'>Amazon EC2</entry>\n"
		      "    </bios>\n"
		      "    <system>\n"
		      "      <entry name='manufacturer'>Amazon EC2</entry>\n"
		      "      <entry name='product'>Mallee</entry>\n");
	put(out, r, "      <entry name='serial'>", m->uuid, "</entry>\n", e);
	put(out, r, "      <entry name='uuid'>", m->uuid, "</entry>\n", e);
	buf_puts(out, "    </system>\n"
		      "    <chassis>\n"
		      "      <entry name='manufacturer'>Amazon EC2</entry>\n");
	put(out, r, "      <entry name='asset'>", m->instance_id, "</entry>\n", e);
	buf_puts(out, "    </chassis>\n"
		      "  </sysinfo>\n");
}

/* Under TCG, erms and fsrm make the guest copy memory with `rep movsb`, which the emulator runs
 * byte by byte: a sixth of the speed. */
static void put_cpu(struct buf *out, enum hyper_accel accel)
{
	buf_puts(out, "  <features>\n"
		      "    <acpi/>\n"
		      "    <apic/>\n"
		      "  </features>\n");
	if (accel == HYPER_ACCEL_KVM)
		buf_puts(out, "  <cpu mode='host-passthrough' check='none'/>\n");
	else
		buf_puts(out, "  <cpu mode='maximum' check='none'>\n"
			      "    <feature policy='disable' name='erms'/>\n"
			      "    <feature policy='disable' name='fsrm'/>\n"
			      "  </cpu>\n");
	buf_puts(out, "  <clock offset='utc'/>\n"
		      "  <pm>\n"
		      "    <suspend-to-mem enabled='no'/>\n"
		      "    <suspend-to-disk enabled='no'/>\n"
		      "  </pm>\n"
		      "  <on_poweroff>destroy</on_poweroff>\n"
		      "  <on_reboot>restart</on_reboot>\n"
		      "  <on_crash>destroy</on_crash>\n");
}

void kvm_disk_id(const struct hyper_disk *d, char id[static KVM_DISK_ID_BYTES])
{
	if (d->boot)
		snprintf(id, KVM_DISK_ID_BYTES, "ua-boot-%s", d->serial);
	else
		snprintf(id, KVM_DISK_ID_BYTES, "ua-disk%d-%s", d->slot, d->serial);
}

int kvm_disk_id_parse(const char *id, struct hyper_disk *ret)
{
	struct hyper_disk d = {.slot = -1};
	char place[8];
	int end = 0;

	if (sscanf(id, "ua-%7[a-z0-9]-%n", place, &end) != 1 || end == 0)
		return -EINVAL;
	d.boot = str_eq(place, "boot");
	if (!d.boot) {
		int64_t slot;

		if (!str_prefix(place, "disk") ||
		    parse_i64(place + 4, 0, HYPER_DISK_SLOTS - 1, &slot) < 0)
			return -EINVAL;
		d.slot = (int)slot;
	}
	d.serial = id + end;
	*ret = d;
	return 0;
}

static void put_target(struct buf *out, int *r, const struct hyper_disk *d, struct error *e)
{
	char id[KVM_DISK_ID_BYTES];

	buf_printf(out, "      <target dev='vd%c' bus='virtio'/>\n", d->boot ? 'a' : 'b' + d->slot);
	if (d->boot)
		buf_puts(out, "      <boot order='1'/>\n");
	if (d->serial && d->kind == HYPER_DISK_FILE) /* of the other kind libvirt refuses it */
		put(out, r, "      <serial>", d->serial, "</serial>\n", e);
	if (d->serial) {
		kvm_disk_id(d, id);
		put(out, r, "      <alias name='", id, "'/>\n", e);
	}
	put_address(out, d->boot ? KVM_PORT_DISK : KVM_PORT_SPARE_FIRST + (unsigned int)d->slot);
	buf_puts(out, "    </disk>\n");
}

/* A file's blocks were all written beforehand. A guest's TRIM is ignored: it would punch holes into
 * the file, and every later write there would wait for the host's file system to allocate and
 * convert an extent. */
static void put_file_disk(struct buf *out, int *r, const struct hyper_disk *d, bool direct_io,
			  struct error *e)
{
	buf_printf(
	    out,
	    "    <disk type='file' device='disk'>\n"
	    "      <driver name='qemu' type='raw' cache='%s' io='%s' discard='ignore' iothread='1'",
	    direct_io ? "none" : "writeback", direct_io ? "native" : "threads");
	if (d->queues > 1)
		buf_printf(out, " queues='%d'", d->queues);
	buf_puts(out, "/>\n");
	put(out, r, "      <source file='", d->path, "'/>\n", e);
	put_target(out, r, d, e);
}

/* Without a number of queues QEMU asks for one a vCPU, and the server may have fewer. */
static void put_vhost_user_disk(struct buf *out, int *r, const struct hyper_disk *d,
				struct error *e)
{
	buf_printf(out,
		   "    <disk type='vhostuser' device='disk'>\n"
		   "      <driver name='qemu' type='raw' queues='%d' queue_size='%d'/>\n",
		   MAX_OF(d->queues, 1), KVM_QUEUE_SIZE);
	put(out, r, "      <source type='unix' path='", d->path, "'>\n", e);
	buf_puts(out, "        <reconnect enabled='yes' timeout='1'/>\n"
		      "      </source>\n");
	put_target(out, r, d, e);
}

static void put_disks(struct buf *out, int *r, const struct hyper_machine *m,
		      kvm_direct_io_fn *direct_io, struct error *e)
{
	struct hyper_disk root = {.kind = HYPER_DISK_FILE, .path = m->root_path, .boot = true};

	if (m->root_path)
		put_file_disk(out, r, &root, direct_io(m->root_path), e);
	for (size_t i = 0; i < m->disk_count; i++) {
		const struct hyper_disk *d = &m->disks[i];

		if (d->kind == HYPER_DISK_FILE)
			put_file_disk(out, r, d, direct_io(d->path), e);
		else
			put_vhost_user_disk(out, r, d, e);
	}
}

int kvm_disk_xml(const struct hyper_disk *d, bool direct_io, struct buf *out, struct error *e)
{
	int r = hyper_disk_check(d, e);

	if (r == 0 && d->kind == HYPER_DISK_FILE)
		put_file_disk(out, &r, d, direct_io, e);
	else if (r == 0)
		put_vhost_user_disk(out, &r, d, e);
	return r;
}

static void put_devices(struct buf *out, int *r, const struct hyper_machine *m,
			kvm_direct_io_fn *direct_io, struct error *e)
{
	buf_puts(out, "  <devices>\n");
	put_root_ports(out);
	buf_puts(out, "    <controller type='usb' model='none'/>\n");
	put_disks(out, r, m, direct_io, e);

	buf_puts(out, "    <interface type='ethernet'>\n");
	put(out, r, "      <mac address='", m->mac, "'/>\n", e);
	put(out, r, "      <target dev='", m->tap, "' managed='no'/>\n", e);
	buf_puts(out, "      <model type='virtio'/>\n");
	put_address(out, KVM_PORT_NIC);
	buf_puts(out, "    </interface>\n"
		      "    <serial type='file'>\n");
	put(out, r, "      <source path='", m->console_path, "' append='on'/>\n", e);
	buf_puts(out, "      <target type='isa-serial' port='0'/>\n"
		      "    </serial>\n"
		      "    <rng model='virtio'>\n"
		      "      <backend model='random'>/dev/urandom</backend>\n");
	put_address(out, KVM_PORT_RNG);
	buf_puts(out, "    </rng>\n"
		      "    <memballoon model='virtio'>\n");
	put_address(out, KVM_PORT_BALLOON);
	buf_puts(out, "    </memballoon>\n"
		      "    <audio id='1' type='none'/>\n"
		      "  </devices>\n");
}

int kvm_domain_xml(const struct hyper_machine *m, enum hyper_accel accel,
		   kvm_direct_io_fn *direct_io, struct buf *out, struct error *e)
{
	int r = hyper_disks_check(m, e);

	if (r < 0)
		return r;
	buf_printf(out, "<domain type='%s'>\n", accel == HYPER_ACCEL_KVM ? "kvm" : "qemu");
	put(out, &r, "  <name>", m->name, "</name>\n", e);
	put(out, &r, "  <uuid>", m->uuid, "</uuid>\n", e);
	put(out, &r, "  <title>Mallee instance ", m->instance_id, "</title>\n", e);
	buf_printf(out,
		   "  <memory unit='MiB'>%" PRId64 "</memory>\n"
		   "  <memoryBacking>\n"
		   "    <source type='memfd'/>\n"
		   "    <access mode='shared'/>\n"
		   "  </memoryBacking>\n"
		   "  <vcpu placement='static'>%d</vcpu>\n"
		   "  <iothreads>1</iothreads>\n",
		   m->memory_mib, m->vcpus);
	put_dmi(out, &r, m, e);
	put_cpu(out, accel);
	put_devices(out, &r, m, direct_io, e);
	buf_printf(out,
		   "  <seclabel type='static' model='dac' relabel='yes'>\n"
		   "    <label>+%u:+%u</label>\n"
		   "  </seclabel>\n"
		   "</domain>\n",
		   (unsigned int)m->uid, (unsigned int)m->gid);
	return r;
}
