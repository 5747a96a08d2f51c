/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hypervisor that runs nothing: for tests and for scale. Each machine is a struct in a hash table
 * and a small file in <run_dir>/fake, so that a node controller that was killed finds its machines
 * again. A thread turns what was begun (a start, a shutdown) into what is, a moment later, and
 * tells the watcher; one pass over all machines a tick, and only while any is changing.
 *
 * Tests steer it through <run_dir>/fake.conf, read again whenever it changes; one rule a line, `#`
 * starts a comment:
 *
 *   host vcpus=N memory_mib=N disk_mib=N    what the host has
 *   <instance id or *> start-fails          start() fails for good
 *   <instance id or *> start-unreachable    start() fails as if libvirtd were gone
 *   <instance id or *> ignores-shutdown     the guest does not listen to ACPI
 *   <instance id or *> powers-off           the guest switches itself off
 *   <instance id or *> crashes              the guest's QEMU dies
 *   <instance id or *> keeps-disks          the guest lets go of no disk (but for force)
 *   <instance id or *> attach-fails         disk_attach() fails for good
 *   <instance id or *> attach-unreachable   disk_attach() fails as if nobody served the disk
 */
#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "hyper/disk_priv.h"
#include "hyper/fake_priv.h"
#include "os/file.h"

#define FAKE_TICK_MS 20
#define FAKE_START_MS 50
#define FAKE_SHUTDOWN_MS 100
#define FAKE_CONF_MS 200 /* how often fake.conf is looked at */

struct fake *fake_of(struct hyper *h)
{
	struct fake *f = (struct fake *)h;

	assert(f && f->magic == FAKE_MAGIC);
	return f;
}

struct fake_machine **fake_find(struct fake *f, const char *name)
{
	uint32_t hash = 2166136261u;
	struct fake_machine **p;

	for (const char *c = name; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 16777619u;
	for (p = &f->buckets[hash % FAKE_BUCKETS]; *p; p = &(*p)->next)
		if (str_eq((*p)->name, name))
			break;
	return p;
}

static void machine_free(struct fake_machine *m)
{
	free(m->name);
	free(m);
}

/* The file holds what the machine is about to be: whoever reads it comes after a restart. */
int fake_store(struct fake *f, const struct fake_machine *m)
{
	_cleanup_(buf_done) struct buf text = BUF_INIT;
	char path[4096];
	int fd, r;

	snprintf(path, sizeof(path), "%s/%s", f->dir, m->name);
	buf_printf(&text, "%d %d\n", m->due_mono_ms ? m->next_state : m->state, m->off_reason);
	fake_disks_print(&m->disks, &text);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = fd_write_all(fd, text.data, text.len);
	close(fd);
	return r;
}

static void unstore(struct fake *f, const char *name)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	unlink(path);
}

static struct fake_machine *machine_new(struct fake *f, const char *name)
{
	struct fake_machine *m = calloc(1, sizeof(*m)), **p = fake_find(f, name);

	if (!m || !(m->name = strdup(name)))
		abort();
	m->id = m->name + strlen("mallee-") + strlen(f->cloud_id) + 1;
	*p = m;
	return m;
}

static bool is_ours(const struct fake *f, const char *name)
{
	size_t n = strlen(f->cloud_id);

	return str_prefix(name, "mallee-") && strncmp(name + 7, f->cloud_id, n) == 0 &&
	       name[7 + n] == '-';
}

static void load_machines(struct fake *f)
{
	DIR *d = opendir(f->dir);
	struct dirent *entry;

	while (d && (entry = readdir(d))) {
		_cleanup_(freep) char *text = NULL;
		char path[4096];
		int state, reason, end;
		size_t len;
		struct fake_machine *m;

		snprintf(path, sizeof(path), "%s/%s", f->dir, entry->d_name);
		if (!is_ours(f, entry->d_name) || file_read(path, 4096, &text, &len) < 0 ||
		    sscanf(text, "%d %d%n", &state, &reason, &end) != 2 || state < HYPER_ABSENT ||
		    state > HYPER_OFF)
			continue;
		m = machine_new(f, entry->d_name);
		m->state = (enum hyper_state)state;
		m->off_reason = (enum hyper_off_reason)reason;
		fake_disks_parse(&m->disks, text + end);
		f->unplugging = true; /* perhaps */
	}
	if (d)
		closedir(d);
}

/* Read fake.conf if it is another than last time. */
void fake_refresh_rules(struct fake *f)
{
	_cleanup_(freep) char *text = NULL;
	struct stat st;
	size_t len;

	if (stat(f->conf_path, &st) < 0) {
		fake_rules_free(TAKE_PTR(f->rules));
		f->conf_time = (struct timespec){0};
		return;
	}
	if (st.st_mtim.tv_sec == f->conf_time.tv_sec && st.st_mtim.tv_nsec == f->conf_time.tv_nsec)
		return;
	if (file_read(f->conf_path, 1 << 20, &text, &len) < 0)
		return;
	fake_rules_free(f->rules);
	f->rules = fake_rules_parse(text);
	f->conf_time = st.st_mtim;
}

static void change_later(struct fake *f, struct fake_machine *m, enum hyper_state next, int64_t ms)
{
	if (m->due_mono_ms == 0)
		f->changing++;
	m->next_state = next;
	m->due_mono_ms = clock_mono_ms() + ms;
	pthread_cond_signal(&f->changed);
}

static void settle(struct fake *f, struct fake_machine *m)
{
	if (m->due_mono_ms) {
		f->changing--;
		m->due_mono_ms = 0;
	}
}

/* What the rules say that a running guest does by itself. */
static void apply_rules(struct fake *f, struct fake_machine *m)
{
	if (m->state != HYPER_RUNNING || m->due_mono_ms)
		return;
	if (fake_rule(f->rules, m->id, FAKE_POWERS_OFF))
		m->off_reason = HYPER_OFF_GUEST;
	else if (fake_rule(f->rules, m->id, FAKE_CRASHES))
		m->off_reason = HYPER_OFF_CRASHED;
	else
		return;
	change_later(f, m, HYPER_OFF, 0);
	fake_store(f, m);
}

/* Take out the disks that the guest lets go of by now. */
static bool let_go(struct fake *f, struct fake_machine *m, int64_t now)
{
	if (!fake_disks_asked(&m->disks))
		return false;
	if (fake_rule(f->rules, m->id, FAKE_KEEPS_DISKS) || !fake_disks_expire(&m->disks, now)) {
		f->unplugging = true;
		return false;
	}
	f->unplugging |= fake_disks_asked(&m->disks);
	fake_store(f, m);
	return true;
}

static const char **append_name(struct arena *a, const char **names, size_t *n, size_t *room,
				const char *name)
{
	if (*n == *room) {
		const char **more = arena_new_array(a, const char *, *room = 2 * *room + 16);

		if (names)
			memcpy(more, names, *n * sizeof(*names));
		names = more;
	}
	names[(*n)++] = arena_strdup(a, name);
	return names;
}

/* One pass: carry out what is due; the names of those that changed go to the caller. */
static size_t pass(struct fake *f, bool rules, struct arena *a, const char ***ret_names)
{
	int64_t now = clock_mono_ms();
	const char **names = NULL;
	size_t n = 0, room = 0;
	bool unplugging = f->unplugging;

	f->unplugging = false;
	for (size_t b = 0; b < FAKE_BUCKETS; b++)
		for (struct fake_machine *m = f->buckets[b]; m; m = m->next) {
			if (rules)
				apply_rules(f, m);
			bool told = unplugging && let_go(f, m, now);

			if (m->due_mono_ms && m->due_mono_ms <= now) {
				m->state = m->next_state;
				settle(f, m);
				told = true;
			}
			if (told)
				names = append_name(a, names, &n, &room, m->name);
		}
	*ret_names = names;
	return n;
}

static void wait_ms(struct fake *f, int64_t ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += ms * 1000000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&f->changed, &f->lock, &t);
}

static void *run(void *ctx)
{
	struct fake *f = ctx;
	int64_t conf_at = 0;

	pthread_mutex_lock(&f->lock);
	while (!f->stopping) {
		_cleanup_(arena_freep) struct arena *a = arena_new();
		bool look = clock_mono_ms() >= conf_at;
		const char **names = NULL;
		size_t n = 0;

		if (look) {
			fake_refresh_rules(f);
			conf_at = clock_mono_ms() + FAKE_CONF_MS;
		}
		if (f->changing || f->unplugging || (look && f->rules))
			n = pass(f, look && f->rules, a, &names);
		if (n > 0 && f->watch_fn) {
			void (*fn)(void *, const char *) = f->watch_fn;
			void *fn_ctx = f->watch_ctx;

			pthread_mutex_unlock(&f->lock);
			for (size_t i = 0; i < n; i++)
				fn(fn_ctx, names[i]);
			pthread_mutex_lock(&f->lock);
		}
		if (!f->stopping)
			wait_ms(f, f->changing || f->unplugging ? FAKE_TICK_MS : FAKE_CONF_MS);
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

static void fake_close(struct hyper *h)
{
	struct fake *f;

	if (!h)
		return;
	f = fake_of(h);
	if (f->thread_started) {
		pthread_mutex_lock(&f->lock);
		f->stopping = true;
		pthread_cond_signal(&f->changed);
		pthread_mutex_unlock(&f->lock);
		pthread_join(f->thread, NULL);
	}
	for (size_t b = 0; b < FAKE_BUCKETS; b++)
		while (f->buckets[b]) {
			struct fake_machine *m = f->buckets[b];

			f->buckets[b] = m->next;
			machine_free(m);
		}
	fake_rules_free(f->rules);
	free(f->cloud_id);
	free(f->dir);
	free(f->conf_path);
	pthread_cond_destroy(&f->changed);
	pthread_mutex_destroy(&f->lock);
	f->magic = 0;
	free(f);
}

static int fake_open(const struct hyper_config *c, struct hyper **ret, struct error *e)
{
	struct fake *f = calloc(1, sizeof(*f));
	pthread_condattr_t attr;
	int r;

	if (!f || asprintf(&f->dir, "%s/fake", c->run_dir) < 0 ||
	    asprintf(&f->conf_path, "%s/fake.conf", c->run_dir) < 0 ||
	    !(f->cloud_id = strdup(c->cloud_id)))
		abort();
	f->magic = FAKE_MAGIC;
	pthread_mutex_init(&f->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&f->changed, &attr);
	pthread_condattr_destroy(&attr);
	r = dir_make(f->dir, 0700);
	if (r < 0) {
		error_errno(e, r, "cannot make %s", f->dir);
	} else {
		fake_refresh_rules(f);
		load_machines(f);
		r = -pthread_create(&f->thread, NULL, run, f);
		f->thread_started = r == 0;
		if (r < 0)
			error_errno(e, r, "cannot start the fake hypervisor's thread");
	}
	if (r < 0) {
		fake_close((struct hyper *)f);
		return r;
	}
	*ret = (struct hyper *)f;
	return 0;
}

/* The guest's first words: a console that has something to show. */
static void write_console(const struct hyper_machine *m)
{
	int fd = open(m->console_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	char text[128];
	int n = snprintf(text, sizeof(text), "fake guest %s: booted\n", m->instance_id);

	if (fd < 0)
		return;
	(void)fd_write_all(fd, text, (size_t)n);
	close(fd);
}

static int start_locked(struct fake *f, const struct hyper_machine *m, struct error *e)
{
	struct fake_machine *known = *fake_find(f, m->name);
	int r;

	fake_refresh_rules(f);
	if (fake_rule(f->rules, m->instance_id, FAKE_START_UNREACHABLE)) {
		error_set(e, "ServiceUnavailable",
			  "cannot reach the fake hypervisor, as fake.conf demands");
		return -ENOTCONN;
	}
	if (fake_rule(f->rules, m->instance_id, FAKE_START_FAILS))
		return error_set(e, "InternalError", "cannot start %s, as fake.conf demands",
				 m->name);
	if (known && (known->state == HYPER_RUNNING ||
		      (known->due_mono_ms && known->next_state == HYPER_RUNNING)))
		return 0;
	if (!known)
		known = machine_new(f, m->name);
	settle(f, known);
	known->state = HYPER_OFF;
	known->off_reason = HYPER_OFF_UNKNOWN;
	fake_disks_set(&known->disks, m);
	change_later(f, known, HYPER_RUNNING, FAKE_START_MS);
	r = fake_store(f, known);
	if (r < 0)
		return error_errno(e, r, "cannot record %s", m->name);
	write_console(m);
	return 0;
}

static int fake_start(struct hyper *h, const struct hyper_machine *m, struct error *e)
{
	struct fake *f = fake_of(h);
	int r = hyper_disks_check(m, e);

	if (r < 0)
		return r;
	if (!is_ours(f, m->name))
		return error_set(e, "InternalError", "the machine %s is not one of cloud %s",
				 m->name, f->cloud_id),
		       -EPERM;
	pthread_mutex_lock(&f->lock);
	r = start_locked(f, m, e);
	pthread_mutex_unlock(&f->lock);
	return r;
}

static int fake_shutdown(struct hyper *h, const char *name, struct error *e)
{
	struct fake *f = fake_of(h);
	struct fake_machine *m;
	int r = 0;

	pthread_mutex_lock(&f->lock);
	m = *fake_find(f, name);
	if (!m) {
		error_set(e, "InternalError", "there is no machine %s", name);
		r = -ENOENT;
	} else if (m->state == HYPER_RUNNING &&
		   !fake_rule(f->rules, m->id, FAKE_IGNORES_SHUTDOWN)) {
		m->off_reason =
		    HYPER_OFF_GUEST; /* as libvirt says it: the guest switched itself off */
		change_later(f, m, HYPER_OFF, FAKE_SHUTDOWN_MS);
		fake_store(f, m);
	}
	pthread_mutex_unlock(&f->lock);
	return r;
}

static int fake_destroy(struct hyper *h, const char *name, struct error *e _unused_)
{
	struct fake *f = fake_of(h);
	struct fake_machine **p, *m;

	pthread_mutex_lock(&f->lock);
	p = fake_find(f, name);
	m = *p;
	if (m) {
		*p = m->next;
		settle(f, m);
		unstore(f, name);
		machine_free(m);
	}
	pthread_mutex_unlock(&f->lock);
	return 0;
}

static int fake_reboot(struct hyper *h, const char *name, struct error *e)
{
	struct fake *f = fake_of(h);
	struct fake_machine *m;

	pthread_mutex_lock(&f->lock);
	m = *fake_find(f, name);
	pthread_mutex_unlock(&f->lock);
	if (m)
		return 0;
	error_set(e, "InternalError", "there is no machine %s", name);
	return -ENOENT;
}

static void fill_status(const struct fake_machine *m, struct hyper_status *st)
{
	st->state = m->state;
	st->off_reason = m->state == HYPER_OFF ? m->off_reason : HYPER_OFF_UNKNOWN;
	if (m->due_mono_ms && m->next_state == HYPER_OFF)
		st->state = HYPER_SHUTTING_DOWN;
}

static int fake_status(struct hyper *h, const char *name, struct hyper_status *ret,
		       struct error *e _unused_)
{
	struct fake *f = fake_of(h);
	struct hyper_status st = {.name = name, .state = HYPER_ABSENT};
	struct fake_machine *m;

	pthread_mutex_lock(&f->lock);
	m = *fake_find(f, name);
	if (m)
		fill_status(m, &st);
	pthread_mutex_unlock(&f->lock);
	*ret = st;
	return 0;
}

static int fake_list(struct hyper *h, struct arena *a, struct hyper_status **ret, size_t *ret_count,
		     struct error *e _unused_)
{
	struct fake *f = fake_of(h);
	struct hyper_status *list;
	size_t n = 0;

	pthread_mutex_lock(&f->lock);
	for (size_t b = 0; b < FAKE_BUCKETS; b++)
		for (struct fake_machine *m = f->buckets[b]; m; m = m->next)
			n++;
	list = arena_new_array(a, struct hyper_status, n);
	n = 0;
	for (size_t b = 0; b < FAKE_BUCKETS; b++)
		for (struct fake_machine *m = f->buckets[b]; m; m = m->next) {
			list[n].name = arena_strdup(a, m->name);
			fill_status(m, &list[n++]);
		}
	pthread_mutex_unlock(&f->lock);
	*ret = list;
	*ret_count = n;
	return 0;
}

static int fake_watch(struct hyper *h, void (*fn)(void *ctx, const char *name), void *ctx)
{
	struct fake *f = fake_of(h);

	pthread_mutex_lock(&f->lock);
	f->watch_fn = fn;
	f->watch_ctx = ctx;
	pthread_mutex_unlock(&f->lock);
	return 0;
}

static void fake_host(struct hyper *h, struct hyper_host *ret)
{
	struct fake *f = fake_of(h);

	pthread_mutex_lock(&f->lock);
	fake_refresh_rules(f);
	fake_rules_host(f->rules, ret);
	pthread_mutex_unlock(&f->lock);
}

const struct hyper_ops hyper_fake_ops = {
    .name = "fake",
    .open = fake_open,
    .close = fake_close,
    .start = fake_start,
    .shutdown = fake_shutdown,
    .destroy = fake_destroy,
    .reboot = fake_reboot,
    .status = fake_status,
    .list = fake_list,
    .disk_attach = fake_disk_attach,
    .disk_detach = fake_disk_detach,
    .disk_list = fake_disk_list,
    .watch = fake_watch,
    .host = fake_host,
    .fakes_network = true,
    .fakes_disks = true,
};
