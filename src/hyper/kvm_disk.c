/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that come and go while the guest runs.
 *
 * A vhost-user disk is two things in QEMU: a character device (the socket) and the PCI device that
 * uses it. libvirt can plug both, but drops `reconnect` when it does: the guest would hang for ever
 * once the server died. So they are plugged through QEMU's monitor, and all are unplugged so. A file
 * is plugged by libvirt, which gives QEMU's user access to it.
 *
 * Nothing is remembered here. The names say it all, and are read anew by each call:
 *
 *   device ID    chardev socket-ID    chardev detaching-ID
 *      -             -                    -                  not there
 *      -            yes                   any                half plugged or unplugged: the rest is removed
 *     yes            .                    -                  attached
 *     yes            .                   yes                 the guest was asked to let go
 *      -             -                   yes                 it has: the mark is removed
 *
 * A disk of the XML has libvirt's chr-vu-ID in the place of socket-ID. They must differ: libvirt
 * hears of a gone disk when it likes, and then removes chr-vu-ID, which by then could be that of
 * the disk plugged again.
 *
 * `detaching-ID` is a null device that serves as a mark only, since QEMU does not tell whether a
 * device_del is under way; it is made before and goes with the guest's QEMU, as what it stands for
 * does. (When a guest boots anew, QEMU itself takes out what it was asked to.) `mallee-ejecting` is
 * such a mark, too (kvm_eject.c).
 */
#include <libvirt/virterror.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "hyper/disk_priv.h"
#include "hyper/host.h"
#include "hyper/kvm_priv.h"
#include "os/file.h"

#define CHARDEV "socket-"
#define COLD_CHARDEV "chr-vu-" /* libvirt's */
#define MARK "detaching-"
#define LABEL_BYTES (KVM_DISK_ID_BYTES + 16)
#define LAG_MS 10000 /* so long libvirt may take to hear what QEMU has done */
#define LAG_POLL_MS 50
#define SERVED_MS 3000 /* so long a socket may take to be answered */
#define SERVED_POLL_MS 20

struct plug {
	char id[KVM_DISK_ID_BYTES];
	struct hyper_disk disk; /* what the id says; serial points into id */
	bool device, chardev, cold_chardev, asked;
	bool connected; /* chardev is */
};

struct plugs {
	struct plug list[4 * HYPER_DISK_SLOTS]; /* more than a guest's ports: the rest of earlier ones */
	size_t count;
	bool ejecting; /* a caller was killed in kvm_eject() */
};

static void json_freep(json_t **j)
{
	json_decref(*j);
}

/* The plug of this id, added if need be; NULL when the id is none of ours. */
static struct plug *plug_of(struct plugs *p, const char *id)
{
	struct hyper_disk d;
	struct plug *new;

	for (size_t i = 0; i < p->count; i++)
		if (str_eq(p->list[i].id, id))
			return &p->list[i];
	if (p->count == ARRAY_SIZE(p->list) || strlen(id) >= KVM_DISK_ID_BYTES ||
	    kvm_disk_id_parse(id, &d) < 0)
		return NULL;
	new = &p->list[p->count++];
	*new = (struct plug){0};
	strcpy(new->id, id);
	kvm_disk_id_parse(new->id, &new->disk);
	return new;
}

static struct plug *find_serial(struct plugs *p, const char *serial)
{
	for (size_t i = 0; i < p->count; i++)
		if (str_eq(p->list[i].disk.serial, serial))
			return &p->list[i];
	return NULL;
}

static int look(const struct kvm_monitor *m, struct plugs *ret, struct error *e)
{
	_cleanup_(json_freep) json_t *devices = NULL, *chardevs = NULL;
	struct plug *p;
	size_t i;
	json_t *item;
	int r;

	ret->count = 0;
	ret->ejecting = false;
	r = kvm_monitor_run(m, "qom-list", json_pack("{s:s}", "path", "/machine/peripheral"),
			    &devices, e);
	if (r == 0)
		r = kvm_monitor_run(m, "query-chardev", NULL, &chardevs, e);
	if (r < 0)
		return r;
	json_array_foreach(devices, i, item) {
		const char *name = json_string_value(json_object_get(item, "name"));

		if (name && (p = plug_of(ret, name)))
			p->device = true;
	}
	json_array_foreach(chardevs, i, item) {
		const char *label = json_string_value(json_object_get(item, "label"));
		const char *file = json_string_value(json_object_get(item, "filename"));

		if (label && str_prefix(label, CHARDEV) &&
		    (p = plug_of(ret, label + strlen(CHARDEV)))) {
			p->chardev = true;
			p->connected = file && !str_prefix(file, "disconnected:");
		} else if (label && str_prefix(label, COLD_CHARDEV) &&
			   (p = plug_of(ret, label + strlen(COLD_CHARDEV)))) {
			p->cold_chardev = true;
		} else if (label && str_prefix(label, MARK) &&
			   (p = plug_of(ret, label + strlen(MARK)))) {
			p->asked = true;
		} else if (label && str_eq(label, KVM_EJECT_MARK)) {
			ret->ejecting = true;
		}
	}
	return 0;
}

static int remove_chardev(const struct kvm_monitor *m, const char *prefix, const char *id,
			  struct error *e)
{
	char label[LABEL_BYTES];

	snprintf(label, sizeof(label), "%s%s", prefix, id);
	return kvm_monitor_run(m, "chardev-remove", json_pack("{s:s}", "id", label), NULL, e);
}

/* Look, and clear away what belongs to no device. That a removal fails is no error: libvirt may
 * have been there first, and what really stays is tried again by the next call. */
static int settle(const struct kvm_monitor *m, struct plugs *ret, struct error *e)
{
	struct plugs seen;
	int r = look(m, &seen, e);

	if (r == 0 && seen.ejecting)
		r = kvm_eject_finish(m, e);
	if (r < 0)
		return r;
	ret->count = 0;
	for (size_t i = 0; i < seen.count; i++) {
		struct plug *p = &seen.list[i], *kept;

		if (p->device) {
			kept = plug_of(ret, p->id);
			kept->device = true;
			kept->asked = p->asked;
			continue;
		}
		if (p->chardev)
			(void)remove_chardev(m, CHARDEV, p->id, NULL);
		if (p->cold_chardev)
			(void)remove_chardev(m, COLD_CHARDEV, p->id, NULL);
		if (p->asked)
			(void)remove_chardev(m, MARK, p->id, NULL);
	}
	return 0;
}

/* 0: d can go there. 1: it is there. */
static int check_place(struct plugs *p, const struct hyper_disk *d, struct error *e)
{
	const struct plug *same = find_serial(p, d->serial);

	if (same && same->asked) {
		error_set(e, "IncorrectState", "the disk %s is being detached", d->serial);
		return -EBUSY;
	}
	if (same && same->disk.slot == d->slot && !same->disk.boot)
		return 1;
	if (same) {
		error_set(e, "InternalError", "the disk %s is in slot %d, not %d", d->serial,
			  same->disk.slot, d->slot);
		return -EEXIST;
	}
	for (size_t i = 0; i < p->count; i++)
		if (!p->list[i].disk.boot && p->list[i].disk.slot == d->slot) {
			error_set(e, "InternalError", "slot %d holds the disk %s, not %s", d->slot,
				  p->list[i].disk.serial, d->serial);
			return -EEXIST;
		}
	return 0;
}

/* libvirt hears of a disk that QEMU has let go of when it likes, and until then refuses another one
 * in that slot. */
static bool libvirt_lags(const struct kvm_monitor *m, int slot)
{
	char needle[KVM_DISK_ID_BYTES];
	char *xml = virDomainGetXMLDesc(m->dom, 0);
	bool lags;

	snprintf(needle, sizeof(needle), "'ua-disk%d-", slot);
	lags = xml && strstr(xml, needle);
	free(xml);
	return lags;
}

static int wait_for_libvirt(const struct kvm_monitor *m, const struct hyper_disk *d, struct error *e)
{
	int64_t end = clock_mono_ms() + LAG_MS;

	while (libvirt_lags(m, d->slot)) {
		if (clock_mono_ms() > end) {
			error_set(e, "ServiceUnavailable",
				  "libvirt does not know yet that slot %d is free for the disk %s; try again",
				  d->slot, d->serial);
			return -EBUSY;
		}
		usleep(LAG_POLL_MS * 1000);
	}
	return 0;
}

static int attach_file(const struct kvm_monitor *m, const struct hyper_disk *d, struct error *e)
{
	struct buf xml = BUF_INIT;
	int r = wait_for_libvirt(m, d, e);

	if (r == 0)
		r = kvm_disk_xml(d, hyper_direct_io(d->path), &xml, e);
	if (r == 0 && virDomainAttachDeviceFlags(m->dom, xml.data, VIR_DOMAIN_AFFECT_LIVE) < 0)
		r = kvm_domain_error(m->k, m->dom, e, "attach a disk to");
	buf_done(&xml);
	return r;
}

/* QEMU connects by itself, once a second, and has no event that says when it is. device_add must
 * not run before: it would wait for the socket while the whole guest stands still. */
static int wait_connected(const struct kvm_monitor *m, const struct hyper_disk *d, const char *id,
			  struct error *e)
{
	int64_t end = clock_mono_ms() + SERVED_MS;

	for (;;) {
		struct plugs now;
		int r = look(m, &now, e);
		const struct plug *p = r == 0 ? plug_of(&now, id) : NULL;

		if (r < 0 || (p && p->connected))
			return r;
		if (clock_mono_ms() > end)
			break;
		usleep(SERVED_POLL_MS * 1000);
	}
	error_set(e, "ServiceUnavailable", "nobody serves the disk %s at %s", d->serial, d->path);
	return -ENOTCONN;
}

static int add_chardev(const struct kvm_monitor *m, const struct hyper_disk *d, const char *label,
		       struct error *e)
{
	json_t *args =
	    json_pack("{s:s, s:{s:s, s:{s:{s:s, s:{s:s}}, s:b, s:i}}}", "id", label, "backend",
		      "type", "socket", "data", "addr", "type", "unix", "data", "path", d->path,
		      "server", 0, "reconnect", 1);

	if (!args) /* a path that is not UTF-8 */
		return error_set(e, "InvalidParameterValue", "the path of the disk %s is not UTF-8",
				 d->serial),
		       -EINVAL;
	return kvm_monitor_run(m, "chardev-add", args, NULL, e);
}

static int attach_vhost_user(const struct kvm_monitor *m, const struct hyper_disk *d,
			     struct error *e)
{
	char id[KVM_DISK_ID_BYTES], label[LABEL_BYTES], bus[16];
	int r;

	kvm_disk_id(d, id);
	snprintf(label, sizeof(label), CHARDEV "%s", id);
	snprintf(bus, sizeof(bus), "pci.%d", KVM_PORT_SPARE_FIRST + d->slot);
	r = add_chardev(m, d, label, e);
	if (r < 0)
		return r;
	r = wait_connected(m, d, id, e);
	if (r == 0)
		r = kvm_monitor_run(m, "device_add",
				    json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:i}", "driver",
					      "vhost-user-blk-pci", "id", id, "bus", bus, "addr",
					      "0x0", "chardev", label, "num-queues",
					      MAX_OF(d->queues, 1), "queue-size", KVM_QUEUE_SIZE),
				    NULL, e);
	if (r < 0)
		(void)remove_chardev(m, CHARDEV, id, NULL);
	return r;
}

static int do_attach(struct kvm *k, virConnectPtr conn, virDomainPtr dom, void *ctx,
		     struct error *e)
{
	const struct kvm_monitor m = {k, conn, dom};
	const struct hyper_disk *d = ctx;
	struct plugs p;
	int r = settle(&m, &p, e);

	if (r < 0)
		return r;
	r = check_place(&p, d, e);
	if (r != 0)
		return r > 0 ? 0 : r;
	return d->kind == HYPER_DISK_FILE ? attach_file(&m, d, e) : attach_vhost_user(&m, d, e);
}

int kvm_disk_attach(struct hyper *h, const char *name, const struct hyper_disk *d, struct error *e)
{
	struct hyper_disk copy = *d;
	int r = hyper_disk_check(d, e);

	if (r == 0 && d->boot)
		r = hyper_disk_no_boot(e);
	return r < 0 ? r : kvm_on_domain(h, name, NULL, do_attach, &copy, e);
}

static int pass_on(struct error *e, const struct error *why, int r)
{
	error_set(e, why->code, "%s", why->message);
	return r;
}

/* The guest is told at once, but answers when it likes. QEMU refuses a second request while the
 * first is under way; some ways of telling make it forget the first after 5 s. */
static int ask(const struct kvm_monitor *m, const struct plug *p, struct error *e)
{
	char label[LABEL_BYTES];
	struct error why = {0};
	struct plugs now;
	int r = 0;

	snprintf(label, sizeof(label), MARK "%s", p->id);
	if (!p->asked)
		r = kvm_monitor_run(m, "chardev-add",
				    json_pack("{s:s, s:{s:s, s:{}}}", "id", label, "backend",
					      "type", "null", "data"),
				    NULL, e);
	if (r == 0)
		r = kvm_monitor_run(m, "device_del", json_pack("{s:s}", "id", p->id), NULL, &why);
	if (r != -EREMOTEIO || !error_is_set(&why))
		return error_is_set(&why) ? pass_on(e, &why, r) : r;
	r = settle(m, &now, e);
	if (r < 0 || p->asked || !find_serial(&now, p->disk.serial) ||
	    strstr(why.message, "in the process of unplug"))
		return r;
	(void)remove_chardev(m, MARK, p->id, NULL);
	return pass_on(e, &why, -EREMOTEIO);
}

struct detach {
	const char *serial;
	bool force;
};

static int do_detach(struct kvm *k, virConnectPtr conn, virDomainPtr dom, void *ctx,
		     struct error *e)
{
	const struct kvm_monitor m = {k, conn, dom};
	const struct detach *want = ctx;
	struct plugs p;
	const struct plug *found;
	int r = settle(&m, &p, e);

	if (r < 0)
		return r;
	found = find_serial(&p, want->serial);
	if (!found)
		return 0;
	if (found->disk.boot) {
		error_set(e, "OperationNotPermitted", "the machine boots from the disk %s",
			  want->serial);
		return -EPERM;
	}
	r = ask(&m, found, e);
	if (r < 0 || !want->force)
		return r;
	r = settle(&m, &p, e); /* the guest may have been quick */
	found = r == 0 ? find_serial(&p, want->serial) : NULL;
	if (!found)
		return r;
	r = kvm_eject(&m, KVM_PORT_SPARE_FIRST + found->disk.slot, e);
	return r < 0 ? r : settle(&m, &p, e);
}

int kvm_disk_detach(struct hyper *h, const char *name, const char *serial, bool force,
		    struct error *e)
{
	struct detach want = {serial, force};
	struct error why = {0};
	bool absent;
	int r = kvm_on_domain(h, name, &absent, do_detach, &want, &why);

	if (r == -ENOENT)
		return 0; /* it is off: nothing is plugged */
	return r < 0 ? pass_on(e, &why, r) : 0;
}

static int do_list(struct kvm *k, virConnectPtr conn, virDomainPtr dom, void *ctx, struct error *e)
{
	const struct kvm_monitor m = {k, conn, dom};

	return settle(&m, ctx, e);
}

int kvm_disk_list(struct hyper *h, const char *name, struct arena *a,
		  struct hyper_disk_status **ret, size_t *ret_count, struct error *e)
{
	struct plugs p = {.count = 0};
	struct error why = {0};
	bool absent;
	int r = kvm_on_domain(h, name, &absent, do_list, &p, &why);
	struct hyper_disk_status *list;

	if (r < 0 && r != -ENOENT)
		return pass_on(e, &why, r);
	list = arena_new_array(a, struct hyper_disk_status, p.count);
	for (size_t i = 0; i < p.count; i++) {
		list[i].serial = arena_strdup(a, p.list[i].disk.serial);
		list[i].slot = p.list[i].disk.slot;
		list[i].state = p.list[i].asked ? HYPER_DISK_DETACHING : HYPER_DISK_ATTACHED;
	}
	*ret = list;
	*ret_count = p.count;
	return 0;
}

static bool answers(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_cleanup_(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	return fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
}

int kvm_disks_served(const struct hyper_machine *m, struct error *e)
{
	for (size_t i = 0; i < m->disk_count; i++) {
		const struct hyper_disk *d = &m->disks[i];

		if (d->kind == HYPER_DISK_VHOST_USER && !answers(d->path)) {
			error_set(e, "ServiceUnavailable", "nobody serves the disk %s at %s",
				  d->serial, d->path);
			return -ENOTCONN;
		}
	}
	return 0;
}
