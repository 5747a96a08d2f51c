/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread waits for ends (a pidfd each) and for what is due, and is the only one that starts processes. Others change what
 * is wanted under the lock and wake it. A volume that has no process is looked for (adopted, if its control socket answers)
 * before one is started: its predecessor may live on.
 *
 * Lock: `lock` guards the list and every volume; never held while a process is started, connected to or waited for. A volume
 * is freed by the thread alone, so that it may use one without the lock while it works on it.
 */
#include "volume/keeper.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "os/file.h"
#include "os/spawn.h"
#include "volume/control.h"
#include "volume/keeper_priv.h"

#define LIVED_MS 2000       /* who lived as long as that is started again at once */
#define PAUSE_FIRST_MS 100
#define PAUSE_MAX_MS 5000
#define CONNECT_MS 2000
#define KILLED_MS 10000     /* the kernel's time to end what was killed */
#define POLL_MAX 4096

struct volume {
	struct volume *next;
	struct keeper_record rec;
	struct keeper_record *changed; /* takes rec's place at the next start; NULL: none */
	pid_t pid;      /* 0: none */
	int pidfd;
	int64_t started_ms, due_ms;
	unsigned quick_ends;
	uint64_t restarts;
	bool looked;    /* for a process of its predecessor's */
	bool ran;       /* it had a process since this keeper was made */
	bool stopping;
	bool gone;      /* stopping, and no process is left */
	unsigned users; /* who waits for it */
};

struct keeper {
	char *program, *run_dir, *log_dir;
	void (*noted)(void *ctx, const char *id, const char *what, const struct error *why);
	void *ctx;
	int wake_fd;
	pthread_t thread;
	bool thread_made;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t changed;
	struct volume *volumes;
	bool stop;
};

static struct volume *find(struct keeper *k, const char *id)
{
	struct volume *v = k->volumes;

	while (v && (v->gone || !str_eq(v->rec.id, id))) /* who is gone may be there anew */
		v = v->next;
	return v;
}

static void wake(struct keeper *k)
{
	_unused_ ssize_t n = write(k->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

static void note(struct keeper *k, const char *id, const char *what, const struct error *why)
{
	if (k->noted)
		k->noted(k->ctx, id, what, why);
}

static void volume_free(struct volume *v)
{
	if (v->pidfd >= 0)
		close(v->pidfd);
	if (v->changed)
		keeper_record_done(v->changed);
	free(v->changed);
	keeper_record_done(&v->rec);
	free(v);
}

static struct volume *volume_new(struct keeper_record *rec)
{
	struct volume *v = calloc(1, sizeof(*v));

	if (!v)
		abort();
	v->rec = *rec;
	memset(rec, 0, sizeof(*rec));
	v->pidfd = -1;
	return v;
}

/* ---- the thread: starting and adopting ---- */

static void control_path(struct keeper *k, const char *id, char *path, size_t size)
{
	snprintf(path, size, "%s/%s/control.sock", k->run_dir, id);
}

/* Whoever serves the control socket: its pid and pidfd. */
static bool adopt(struct keeper *k, const char *id, pid_t *ret_pid, int *ret_pidfd)
{
	_cleanup_(fd_closep) int fd = -1;
	char path[4096];

	control_path(k, id, path, sizeof(path));
	if (control_connect(path, CONNECT_MS, &fd, ret_pid))
		return false;
	*ret_pidfd = pidfd_open(*ret_pid, 0);
	return *ret_pidfd >= 0;
}

static int start(struct keeper *k, const struct keeper_record *r, pid_t *ret_pid, int *ret_pidfd, struct error *e)
{
	const char *argv[KEEPER_ARGS_MAX + 8];
	char control[4096], log[4096], user[32];
	size_t n = 0;

	control_path(k, r->id, control, sizeof(control));
	snprintf(log, sizeof(log), "%s/%s.log", k->log_dir, r->id);
	argv[n++] = k->program;
	argv[n++] = "--name";
	argv[n++] = r->id;
	argv[n++] = "--control";
	argv[n++] = control;
	if (geteuid() == 0) {
		snprintf(user, sizeof(user), "%u:%u", r->uid, r->gid);
		argv[n++] = "--user";
		argv[n++] = user;
	}
	for (size_t i = 0; r->args[i]; i++)
		argv[n++] = r->args[i];
	argv[n] = NULL;
	int err = spawn_start(&(struct spawn){.argv = argv, .log_path = log, .new_session = true}, ret_pid, e);
	if (err)
		return err;
	*ret_pidfd = pidfd_open(*ret_pid, 0);
	return *ret_pidfd < 0 ? error_errno(e, errno, "Watching the process of volume %s", r->id) : 0;
}

/* Without the lock: v stays, and its record does not change. only_look: it is not wanted any more. */
static void bring_up(struct keeper *k, struct volume *v, bool only_look)
{
	struct error e = {0};
	pid_t pid = 0;
	int pidfd = -1, err = 0;
	bool adopted = adopt(k, v->rec.id, &pid, &pidfd);

	if (!adopted && !only_look)
		err = start(k, &v->rec, &pid, &pidfd, &e);
	if (err)
		note(k, v->rec.id, "cannot be started", &e);
	else if (!adopted && !only_look && v->ran)
		note(k, v->rec.id, "started again", NULL);
	pthread_mutex_lock(&k->lock);
	v->looked = true;
	v->started_ms = clock_mono_ms();
	if (err) {
		v->due_ms = v->started_ms + PAUSE_MAX_MS;
	} else if (pidfd >= 0) {
		v->pid = pid;
		v->pidfd = pidfd;
		v->restarts += !adopted && v->ran;
		v->ran = true;
		if (v->stopping) /* asked for meanwhile, when there was nobody to tell */
			pidfd_send_signal(pidfd, SIGTERM, NULL, 0);
	}
	pthread_mutex_unlock(&k->lock);
}

/* ---- the thread: ends ---- */

/* Lock */
static void has_ended(struct volume *v)
{
	int64_t now = clock_mono_ms();

	waitpid(v->pid, NULL, WNOHANG); /* a child of ours, or its predecessor's */
	close(v->pidfd);
	v->pidfd = -1;
	v->pid = 0;
	v->quick_ends = now - v->started_ms < LIVED_MS ? MIN_OF(v->quick_ends + 1, 10u) : 0;
	v->due_ms = now + (v->quick_ends ? MIN_OF(PAUSE_FIRST_MS << (v->quick_ends - 1), PAUSE_MAX_MS) : 0);
}

/* Lock. Those that are stopped and that nobody waits for any more. */
static void sweep(struct keeper *k)
{
	struct volume **at = &k->volumes;

	while (*at) {
		struct volume *v = *at;
		if (v->stopping && v->looked && !v->pid && !v->gone) {
			v->gone = true;
			pthread_cond_broadcast(&k->changed);
		}
		if (v->gone && !v->users) {
			*at = v->next;
			volume_free(v);
		} else {
			at = &v->next;
		}
	}
}

/* Lock; on the thread, which is the only one that reads rec's arguments without it. */
static void take_change(struct volume *v)
{
	if (!v->changed)
		return;
	keeper_record_done(&v->rec);
	v->rec = *v->changed;
	free(TAKE_PTR(v->changed));
}

/* Lock. One that has no process and is due; *ret_wait_ms: until the next is. */
static struct volume *next_due(struct keeper *k, int64_t *ret_wait_ms)
{
	int64_t now = clock_mono_ms();

	*ret_wait_ms = -1;
	for (struct volume *v = k->volumes; v; v = v->next) {
		if (v->pid || v->gone || (v->stopping && v->looked))
			continue;
		if (v->due_ms <= now)
			return v;
		if (*ret_wait_ms < 0 || v->due_ms - now < *ret_wait_ms)
			*ret_wait_ms = v->due_ms - now;
	}
	return NULL;
}

/* Lock */
static size_t gather_fds(struct keeper *k, struct pollfd *fds)
{
	size_t n = 0;

	fds[n++] = (struct pollfd){k->wake_fd, POLLIN, 0};
	for (struct volume *v = k->volumes; v && n < POLL_MAX; v = v->next) {
		if (v->pid)
			fds[n++] = (struct pollfd){v->pidfd, POLLIN, 0};
	}
	return n;
}

static void take_ends(struct keeper *k, const struct pollfd *fds, size_t n)
{
	char ended[65];

	for (size_t i = 1; i < n; i++) {
		if (!fds[i].revents)
			continue;
		*ended = '\0';
		pthread_mutex_lock(&k->lock);
		for (struct volume *v = k->volumes; v; v = v->next) {
			if (v->pid && v->pidfd == fds[i].fd) {
				if (!v->stopping)
					strcpy(ended, v->rec.id);
				has_ended(v);
				break;
			}
		}
		pthread_cond_broadcast(&k->changed);
		pthread_mutex_unlock(&k->lock);
		if (*ended)
			note(k, ended, "ended by itself", NULL);
	}
}

static void *run(void *arg)
{
	struct keeper *k = arg;
	struct pollfd *fds = calloc(POLL_MAX, sizeof(*fds));
	uint64_t count;

	if (!fds)
		abort();
	for (;;) {
		int64_t wait_ms;
		pthread_mutex_lock(&k->lock);
		bool stop = k->stop;
		sweep(k);
		struct volume *v = next_due(k, &wait_ms);
		bool only_look = v && v->stopping;
		if (v)
			take_change(v);
		size_t n = gather_fds(k, fds);
		pthread_mutex_unlock(&k->lock);
		if (stop)
			break;
		if (v) {
			bring_up(k, v, only_look);
			wait_ms = 0;
		}
		if (poll(fds, n, (int)wait_ms) <= 0)
			continue;
		if (fds[0].revents) {
			_unused_ ssize_t got = read(k->wake_fd, &count, sizeof(count));
		}
		take_ends(k, fds, n);
	}
	free(fds);
	return NULL;
}

/* ---- making ---- */

static int load(struct keeper *k, struct error *e)
{
	DIR *dir = opendir(k->run_dir);

	if (!dir)
		return error_errno(e, errno, "Reading %s", k->run_dir);
	for (struct dirent *entry; (entry = readdir(dir));) {
		struct keeper_record rec;
		struct error why = {0};
		if (!keeper_record_id_valid(entry->d_name))
			continue;
		/* A folder without a record: cut off between the two, nothing runs. */
		if (keeper_record_read(k->run_dir, entry->d_name, &rec, &why)) {
			note(k, entry->d_name, "is not known: its record cannot be read", &why);
			continue;
		}
		struct volume *v = volume_new(&rec);
		v->next = k->volumes;
		k->volumes = v;
	}
	closedir(dir);
	return 0;
}

int keeper_new(const struct keeper_settings *s, struct keeper **ret, struct error *e)
{
	struct keeper *k = calloc(1, sizeof(*k));

	if (!k)
		return error_errno(e, ENOMEM, "Making the keeper of volumes");
	k->program = strdup(s->program);
	k->run_dir = strdup(s->run_dir);
	k->log_dir = strdup(s->log_dir);
	k->noted = s->noted;
	k->ctx = s->ctx;
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&k->changed, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&k->lock, NULL);
	k->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int err = k->program && k->run_dir && k->log_dir && k->wake_fd >= 0 ? 0 :
									      error_errno(e, ENOMEM, "Making the keeper of volumes");
	if (!err)
		err = load(k, e);
	if (!err && (err = -pthread_create(&k->thread, NULL, run, k)))
		error_errno(e, err, "Starting the keeper of volumes");
	k->thread_made = !err;
	if (err) {
		keeper_free(k);
		return err;
	}
	*ret = k;
	return 0;
}

void keeper_free(struct keeper *k)
{
	if (!k)
		return;
	if (k->thread_made) {
		pthread_mutex_lock(&k->lock);
		k->stop = true;
		pthread_mutex_unlock(&k->lock);
		wake(k);
		pthread_join(k->thread, NULL);
	}
	while (k->volumes) {
		struct volume *v = k->volumes;
		k->volumes = v->next;
		volume_free(v);
	}
	fd_closep(&k->wake_fd);
	pthread_cond_destroy(&k->changed);
	pthread_mutex_destroy(&k->lock);
	free(k->program);
	free(k->run_dir);
	free(k->log_dir);
	free(k);
}

/* ---- starting ---- */

static int add(struct keeper *k, struct keeper_record *rec, struct error *e)
{
	struct volume *v = find(k, rec->id);

	if (v && v->stopping)
		return error_set(e, "IncorrectState", "The process of volume %s is being stopped", rec->id);
	if (v && !keeper_record_equal(v->changed ? v->changed : &v->rec, rec))
		return error_set(e, "IncorrectState", "Volume %s is served already, in another way", rec->id), -EEXIST;
	if (v)
		return 0;
	int err = keeper_record_write(k->run_dir, rec, e);
	if (err)
		return err;
	v = volume_new(rec);
	v->next = k->volumes;
	k->volumes = v;
	return 0;
}

static int wait_answer(struct keeper *k, const char *id, int timeout_ms, struct error *e)
{
	int64_t end = clock_mono_ms() + timeout_ms;
	char path[4096], line[256];

	control_path(k, id, path, sizeof(path));
	do {
		_cleanup_(fd_closep) int fd = -1;
		pid_t pid;
		if (control_connect(path, CONNECT_MS, &fd, &pid) == 0)
			return 0;
		usleep(10000);
	} while (clock_mono_ms() < end);
	snprintf(path, sizeof(path), "%s/%s.log", k->log_dir, id);
	keeper_last_line(path, line, sizeof(line));
	error_set(e, "InternalError", "The process of volume %s does not serve it after %d ms: %s", id, timeout_ms,
		  *line ? line : "its log is empty");
	return -ETIMEDOUT;
}

int keeper_start(struct keeper *k, const struct keeper_volume *v, int timeout_ms, struct error *e)
{
	struct keeper_record rec;
	char id[65];
	int err = keeper_record_copy(v, &rec, e);

	if (err)
		return err;
	strcpy(id, rec.id);
	pthread_mutex_lock(&k->lock);
	err = add(k, &rec, e);
	pthread_mutex_unlock(&k->lock);
	keeper_record_done(&rec);
	if (err)
		return err;
	wake(k);
	return wait_answer(k, id, timeout_ms, e);
}

static void set_change(struct volume *v, struct keeper_record *rec)
{
	if (!v->changed)
		v->changed = calloc(1, sizeof(*v->changed));
	else
		keeper_record_done(v->changed);
	if (!v->changed)
		abort();
	*v->changed = *rec;
	memset(rec, 0, sizeof(*rec));
}

int keeper_change(struct keeper *k, const struct keeper_volume *v, struct error *e)
{
	struct keeper_record rec;
	int err = keeper_record_copy(v, &rec, e);

	if (err)
		return err;
	pthread_mutex_lock(&k->lock);
	struct volume *known = find(k, rec.id);
	if (!known || known->stopping) {
		err = -ENOENT;
		error_set(e, "InternalError", "Volume %s is not served here", rec.id);
	} else if (!keeper_record_equal(known->changed ? known->changed : &known->rec, &rec)) {
		err = keeper_record_write(k->run_dir, &rec, e);
	}
	if (!err)
		set_change(known, &rec);
	pthread_mutex_unlock(&k->lock);
	keeper_record_done(&rec);
	return err;
}

/* ---- stopping ---- */

static void deadline_in(struct timespec *t, int timeout_ms)
{
	clock_gettime(CLOCK_MONOTONIC, t);
	t->tv_sec += timeout_ms / 1000;
	t->tv_nsec += (timeout_ms % 1000) * 1000000L;
	if (t->tv_nsec >= 1000000000L) {
		t->tv_sec++;
		t->tv_nsec -= 1000000000L;
	}
}

/* Lock; let go of while it waits. */
static bool wait_gone(struct keeper *k, struct volume *v, int timeout_ms)
{
	struct timespec end;

	deadline_in(&end, timeout_ms);
	while (!v->gone && !pthread_cond_timedwait(&k->changed, &k->lock, &end))
		;
	return v->gone;
}

static int remove_folder(struct keeper *k, const char *id, struct error *e)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", k->run_dir, id);
	int err = dir_remove(path);
	return err ? error_errno(e, err, "Removing %s", path) : 0;
}

int keeper_stop(struct keeper *k, const char *id, int timeout_ms, struct error *e)
{
	int err = 0;

	if (!keeper_record_id_valid(id))
		return error_set(e, "InvalidParameterValue", "\"%s\" is no name for a volume's process", id);
	pthread_mutex_lock(&k->lock);
	struct volume *v = find(k, id);
	if (v) {
		v->stopping = true;
		v->users++;
		if (v->pid)
			pidfd_send_signal(v->pidfd, SIGTERM, NULL, 0);
		wake(k);
		if (!wait_gone(k, v, timeout_ms)) {
			err = -ETIMEDOUT;
			error_set(e, "InternalError", "The process of volume %s did not end within %d ms, and was killed", id,
				  timeout_ms);
			if (v->pid)
				pidfd_send_signal(v->pidfd, SIGKILL, NULL, 0);
			wait_gone(k, v, KILLED_MS);
		}
		if (!v->gone) /* its I/O hangs in the kernel: it goes on being watched, and stopped */
			err = -ETIMEDOUT;
		v->users--;
	}
	bool gone = !v || v->gone;
	int removed = gone ? remove_folder(k, id, e) : 0;
	pthread_mutex_unlock(&k->lock);
	wake(k);
	return err ? err : removed;
}

/* ---- asking ---- */

int keeper_command(struct keeper *k, const char *id, const char *line, int timeout_ms, struct buf *ret_json, struct error *e)
{
	_cleanup_(fd_closep) int fd = -1;
	char path[4096];
	pid_t pid;

	pthread_mutex_lock(&k->lock);
	bool known = find(k, id);
	pthread_mutex_unlock(&k->lock);
	if (!known)
		return error_set(e, "InternalError", "Volume %s is not served here", id), -ENOENT;
	control_path(k, id, path, sizeof(path));
	int err = control_connect(path, timeout_ms, &fd, &pid);
	if (err)
		return error_errno(e, err, "Reaching the process of volume %s", id);
	return control_ask(fd, line, ret_json, e);
}

size_t keeper_list(struct keeper *k, struct keeper_status *out, size_t max)
{
	size_t n = 0;

	pthread_mutex_lock(&k->lock);
	for (struct volume *v = k->volumes; v; v = v->next, n++) {
		if (n >= max)
			continue;
		strcpy(out[n].id, v->rec.id);
		out[n].pid = v->pid;
		out[n].restarts = v->restarts;
	}
	pthread_mutex_unlock(&k->lock);
	return n;
}
