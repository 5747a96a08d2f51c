/* SPDX-License-Identifier: Apache-2.0 */
/* The disks of the fake hypervisor's machines: names in slots. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "hyper/disk_priv.h"
#include "hyper/fake_priv.h"

#define FAKE_DETACH_MS 100

static struct fake_disk *find_serial(struct fake_disks *d, const char *serial)
{
	for (size_t i = 0; i < d->count; i++)
		if (str_eq(d->list[i].serial, serial))
			return &d->list[i];
	return NULL;
}

static void add(struct fake_disks *d, int slot, bool asked, const char *serial)
{
	struct fake_disk *new = &d->list[d->count];

	if (d->count == ARRAY_SIZE(d->list))
		return;
	*new = (struct fake_disk){.slot = slot, .asked = asked};
	snprintf(new->serial, sizeof(new->serial), "%s", serial);
	d->count++;
}

void fake_disks_print(const struct fake_disks *d, struct buf *out)
{
	for (size_t i = 0; i < d->count; i++)
		buf_printf(out, "%d %d %s\n", d->list[i].slot, d->list[i].asked, d->list[i].serial);
}

void fake_disks_parse(struct fake_disks *ret, const char *text)
{
	char serial[HYPER_SERIAL_BYTES + 1];
	int slot, asked, end;

	ret->count = 0;
	while (sscanf(text, "%d %d %20s%n", &slot, &asked, serial, &end) == 3) {
		if (slot >= -1 && slot < HYPER_DISK_SLOTS)
			add(ret, slot, asked, serial);
		text += end;
	}
}

void fake_disks_set(struct fake_disks *ret, const struct hyper_machine *m)
{
	ret->count = 0;
	for (size_t i = 0; i < m->disk_count; i++)
		add(ret, m->disks[i].boot ? -1 : m->disks[i].slot, false, m->disks[i].serial);
}

bool fake_disks_asked(const struct fake_disks *d)
{
	for (size_t i = 0; i < d->count; i++)
		if (d->list[i].asked)
			return true;
	return false;
}

size_t fake_disks_expire(struct fake_disks *d, int64_t now_mono_ms)
{
	size_t kept = 0, before = d->count;

	for (size_t i = 0; i < before; i++)
		if (!d->list[i].asked || d->list[i].gone_mono_ms > now_mono_ms)
			d->list[kept++] = d->list[i];
	d->count = kept;
	return before - kept;
}

/* NULL when it is not on. */
static struct fake_machine *find_running(struct fake *f, const char *name)
{
	struct fake_machine *m = *fake_find(f, name);

	if (m && (m->state == HYPER_RUNNING || (m->due_mono_ms && m->next_state == HYPER_RUNNING)))
		return m;
	return NULL;
}

static int attach(struct fake_disks *d, const struct hyper_disk *disk, struct error *e)
{
	const struct fake_disk *same = find_serial(d, disk->serial);

	if (same && same->asked) {
		error_set(e, "IncorrectState", "the disk %s is being detached", disk->serial);
		return -EBUSY;
	}
	if (same && same->slot == disk->slot)
		return 0;
	for (size_t i = 0; i < d->count; i++)
		if (same || d->list[i].slot == disk->slot) {
			error_set(e, "InternalError", "the slot %d or the disk %s is in use",
				  disk->slot, disk->serial);
			return -EEXIST;
		}
	add(d, disk->slot, false, disk->serial);
	return 0;
}

static int attach_locked(struct fake *f, const char *name, const struct hyper_disk *d,
			 struct error *e)
{
	struct fake_machine *m = find_running(f, name);
	int r;

	if (!m) {
		error_set(e, "IncorrectInstanceState", "the machine %s does not run", name);
		return -ENOENT;
	}
	fake_refresh_rules(f);
	if (fake_rule(f->rules, m->id, FAKE_ATTACH_UNREACHABLE)) {
		error_set(e, "ServiceUnavailable", "nobody serves the disk %s, as fake.conf demands",
			  d->serial);
		return -ENOTCONN;
	}
	if (fake_rule(f->rules, m->id, FAKE_ATTACH_FAILS))
		return error_set(e, "InternalError", "cannot attach %s, as fake.conf demands",
				 d->serial);
	r = attach(&m->disks, d, e);
	return r == 0 ? fake_store(f, m) : r;
}

int fake_disk_attach(struct hyper *h, const char *name, const struct hyper_disk *d, struct error *e)
{
	struct fake *f = fake_of(h);
	int r = hyper_disk_check(d, e);

	if (r == 0 && d->boot)
		r = hyper_disk_no_boot(e);
	if (r < 0)
		return r;
	pthread_mutex_lock(&f->lock);
	r = attach_locked(f, name, d, e);
	pthread_mutex_unlock(&f->lock);
	return r;
}

static int detach_locked(struct fake *f, const char *name, const char *serial, bool force,
			 struct error *e)
{
	struct fake_machine *m = find_running(f, name);
	struct fake_disk *d = m ? find_serial(&m->disks, serial) : NULL;

	if (!d)
		return 0;
	if (d->slot < 0) {
		error_set(e, "OperationNotPermitted", "the machine boots from the disk %s", serial);
		return -EPERM;
	}
	if (force) {
		*d = m->disks.list[--m->disks.count];
	} else if (!d->asked) {
		d->asked = true;
		d->gone_mono_ms = clock_mono_ms() + FAKE_DETACH_MS;
		f->unplugging = true;
		pthread_cond_signal(&f->changed);
	}
	return fake_store(f, m);
}

int fake_disk_detach(struct hyper *h, const char *name, const char *serial, bool force,
		     struct error *e)
{
	struct fake *f = fake_of(h);
	int r;

	pthread_mutex_lock(&f->lock);
	r = detach_locked(f, name, serial, force, e);
	pthread_mutex_unlock(&f->lock);
	return r;
}

int fake_disk_list(struct hyper *h, const char *name, struct arena *a,
		   struct hyper_disk_status **ret, size_t *ret_count, struct error *e _unused_)
{
	struct fake *f = fake_of(h);
	struct fake_machine *m;
	struct hyper_disk_status *list;
	size_t n;

	pthread_mutex_lock(&f->lock);
	m = find_running(f, name);
	n = m ? m->disks.count : 0;
	list = arena_new_array(a, struct hyper_disk_status, n);
	for (size_t i = 0; i < n; i++) {
		list[i].serial = arena_strdup(a, m->disks.list[i].serial);
		list[i].slot = m->disks.list[i].slot;
		list[i].state =
		    m->disks.list[i].asked ? HYPER_DISK_DETACHING : HYPER_DISK_ATTACHED;
	}
	pthread_mutex_unlock(&f->lock);
	*ret = list;
	*ret_count = n;
	return 0;
}
