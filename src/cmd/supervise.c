/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor: one process that starts the services (and libvirt's daemons where no systemd
 * does), starts them again when they die, reaps what they leave behind (QEMU's processes are
 * orphans as soon as libvirtd has started them), and cuts long logs. It holds no state: killed, the
 * services go on, and the next supervisor adopts them by their pid files.
 *
 * SIGTERM stops everything and ends; SIGHUP makes it execute itself anew (`mallee up` after a
 * build), leaving the services be. One thread, one loop.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "cmd/cmd_priv.h"
#include "cmd/rotate.h"
#include "cmd/service.h"
#include "cmd/unit.h"
#include "cmd/virtd.h"
#include "os/file.h"
#include "os/loop.h"
#include "os/privs.h"

#define STOP_TIMEOUT_MS 20000
#define TICK_MS 5000
#define LOG_MAX_BYTES (16u << 20)

enum {
	UNIT_VIRTLOGD,
	UNIT_LIBVIRTD,
	UNIT_FIRST_SERVICE,
	UNIT_COUNT = UNIT_FIRST_SERVICE + SERVICE_COUNT
};

struct supervisor {
	struct settings *settings;
	struct loop *loop;
	struct unit units[UNIT_COUNT];
	const char *service_argv[SERVICE_COUNT][2];
	bool stopping, services_down, again;
	pid_t
	    recorded[UNIT_FIRST_SERVICE]; /* libvirt's daemons that are ours, as in run/NAME.ours */
	struct loop_source *tick, *deadline;
};

/* They are the host's, not this cloud's: nothing in their environment ties them to it. */
static const char *const virtlogd_argv[] = {"/usr/bin/env", "-u", "MALLEE_STATE",
					    "/usr/sbin/virtlogd", NULL};
static const char *const libvirtd_argv[] = {"/usr/bin/env", "-u", "MALLEE_STATE",
					    "/usr/sbin/libvirtd", NULL};

static void prepare_unit(struct supervisor *v, struct unit *u, const char *name)
{
	u->name = name;
	u->loop = v->loop;
	u->pid_fd = -1;
	u->log_path = settings_path(v->settings, "log/%s.log", name);
}

static void on_unit_down(void *ctx);

/* The pid file belongs to the service's user, in a folder that does not: no service can pose as
 * another. */
static int make_pidfile(const struct unit *u, struct error *e)
{
	_cleanup_(fd_closep) int fd =
	    open(u->pid_path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);

	if (fd < 0 || (u->uid && fchown(fd, u->uid, u->gid) < 0))
		return error_errno(e, errno, "Cannot make %s", u->pid_path);
	return 0;
}

static int prepare_services(struct supervisor *v, struct error *e)
{
	uid_t uid = 0;
	gid_t gid = 0;
	int r;

	if (geteuid() == 0 && !is_fake(v->settings)) {
		r = privs_lookup_user(SERVICE_USER, &uid, &gid);
		if (r < 0)
			return error_errno(
			    e, r, "There is no user " SERVICE_USER "; `mallee up` makes it");
	}
	for (size_t i = 0; i < SERVICE_COUNT; i++) {
		struct unit *u = &v->units[UNIT_FIRST_SERVICE + i];

		prepare_unit(v, u, services[i].name);
		v->service_argv[i][0] = settings_path(v->settings, "bin/%s", services[i].program);
		u->argv = v->service_argv[i];
		u->pid_path = settings_path(v->settings, "run/%s.pid", services[i].name);
		u->uid = services[i].as_root ? 0 : uid;
		u->gid = services[i].as_root ? 0 : gid;
		u->on_down = on_unit_down;
		u->ctx = v;
		r = make_pidfile(u, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool needs_libvirt(const struct supervisor *v)
{
	return !is_fake(v->settings) && geteuid() == 0;
}

/* Which of libvirt's daemons are ours is kept in run/NAME.ours, so that a later supervisor knows
 * what to stop. */
static void record_ours(struct supervisor *v, int index)
{
	struct unit *u = &v->units[index];
	_cleanup_(freep) char *path = settings_path(v->settings, "run/%s.ours", u->name);
	char text[16];

	if (u->pid == v->recorded[index] || (u->state != UNIT_UP && u->state != UNIT_DOWN))
		return;
	snprintf(text, sizeof(text), "%d\n", (int)u->pid);
	if (u->pid == 0)
		unlink(path);
	else if (file_write_atomic(path, text, strlen(text), 0644) < 0)
		log_warn("cannot record", "unit=%s", u->name);
	v->recorded[index] = u->pid;
}

/* Take it over from the supervisor before, if that one started it and it is still the same process.
 */
static void adopt_ours(struct supervisor *v, int index, const char *pid_path)
{
	struct unit *u = &v->units[index];
	_cleanup_(freep) char *path = settings_path(v->settings, "run/%s.ours", u->name);
	_cleanup_(freep) char *text = NULL;
	size_t len;

	if (file_read(path, 16, &text, &len) < 0 || atoi(text) <= 0 ||
	    atoi(text) != pidfile_holder(pid_path))
		return;
	u->pid_path = strdup(pid_path);
	unit_start(u);
	free(u->pid_path); /* what runs there later need not be ours */
	u->pid_path = NULL;
	v->recorded[index] = u->pid;
}

static void prepare_libvirt(struct supervisor *v)
{
	struct unit *log = &v->units[UNIT_VIRTLOGD], *virt = &v->units[UNIT_LIBVIRTD];

	prepare_unit(v, log, "virtlogd");
	log->argv = virtlogd_argv;
	log->runs_elsewhere = virtlogd_answers;
	log->on_down = on_unit_down;
	log->ctx = v;
	prepare_unit(v, virt, "libvirtd");
	virt->argv = libvirtd_argv;
	virt->runs_elsewhere = virtd_answers;
	virt->on_down = on_unit_down;
	virt->ctx = v;
	adopt_ours(v, UNIT_VIRTLOGD, "/run/virtlogd.pid");
	adopt_ours(v, UNIT_LIBVIRTD, "/run/libvirtd.pid");
}

static void wait_until(bool (*fn)(void))
{
	for (int i = 0; i < 150 && !fn(); i++)
		usleep(100000); /* before the loop runs: nothing else to do */
}

/* Also called every few seconds: libvirtd may have been another cloud's, which is gone now. */
static void keep_libvirt(struct supervisor *v)
{
	struct error e = {0};

	if (virtd_answers())
		return;
	if (virtd_by_systemd()) {
		if (virtd_start_by_systemd(&e) < 0)
			log_error("systemd does not start libvirtd", "err=%s",
				  log_quote(e.message));
		return;
	}
	unit_start(&v->units[UNIT_VIRTLOGD]);
	if (v->units[UNIT_VIRTLOGD].state == UNIT_UP && v->units[UNIT_LIBVIRTD].state == UNIT_DOWN)
		wait_until(virtlogd_answers);
	unit_start(&v->units[UNIT_LIBVIRTD]);
	record_ours(v, UNIT_VIRTLOGD);
	record_ours(v, UNIT_LIBVIRTD);
}

static void stop_libvirt(struct supervisor *v)
{
	int domains;

	if (v->units[UNIT_LIBVIRTD].state == UNIT_DOWN &&
	    v->units[UNIT_VIRTLOGD].state == UNIT_DOWN)
		return;
	domains = virtd_active_domains();
	if (domains > 0) {
		log_info("libvirtd stays", "domains=%d", domains);
		return;
	}
	unit_stop(&v->units[UNIT_LIBVIRTD]);
	unit_stop(&v->units[UNIT_VIRTLOGD]);
}

static bool all_down(const struct supervisor *v, int from, int to)
{
	for (int i = from; i < to; i++) {
		if (v->units[i].state == UNIT_STOPPING)
			return false;
	}
	return true;
}

static void on_unit_down(void *ctx)
{
	struct supervisor *v = ctx;

	if (!v->stopping)
		return;
	if (!v->services_down && all_down(v, UNIT_FIRST_SERVICE, UNIT_COUNT)) {
		v->services_down = true;
		stop_libvirt(v);
	}
	if (v->services_down && all_down(v, 0, UNIT_COUNT))
		loop_stop(v->loop);
}

static void on_deadline(void *ctx)
{
	struct supervisor *v = ctx;

	for (int i = 0; i < UNIT_COUNT; i++)
		unit_kill(&v->units[i]);
}

static void on_term(void *ctx, int signo)
{
	struct supervisor *v = ctx;

	if (v->stopping)
		return;
	log_info("stopping", "signal=%d", signo);
	v->stopping = true;
	if (loop_add_timer(v->loop, STOP_TIMEOUT_MS, STOP_TIMEOUT_MS, on_deadline, v,
			   &v->deadline) < 0)
		log_error("cannot set a timer", "for=deadline");
	for (int i = UNIT_COUNT - 1; i >= UNIT_FIRST_SERVICE; i--)
		unit_stop(&v->units[i]);
	on_unit_down(v);
}

static void on_hup(void *ctx, int signo)
{
	struct supervisor *v = ctx;

	v->again = !v->stopping;
	if (v->again)
		loop_stop(v->loop);
}

static void on_child(void *ctx, int signo)
{
	struct supervisor *v = ctx;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (int i = 0; i < UNIT_COUNT; i++)
			unit_reaped(&v->units[i], pid, status);
	}
}

static void on_tick(void *ctx)
{
	struct supervisor *v = ctx;

	if (v->stopping)
		return;
	if (needs_libvirt(v)) {
		keep_libvirt(v);
		record_ours(v, UNIT_VIRTLOGD);
		record_ours(v, UNIT_LIBVIRTD);
	}
	for (int i = 0; i < UNIT_COUNT; i++) {
		if (v->units[i].log_path)
			rotate_log(v->units[i].log_path, LOG_MAX_BYTES);
	}
}

static int make_loop(struct supervisor *v, struct error *e)
{
	int r = loop_new(&v->loop);

	if (r == 0)
		r = loop_add_signal(v->loop, SIGTERM, on_term, v);
	if (r == 0)
		r = loop_add_signal(v->loop, SIGINT, on_term, v);
	if (r == 0)
		r = loop_add_signal(v->loop, SIGHUP, on_hup, v);
	if (r == 0)
		r = loop_add_signal(v->loop, SIGCHLD, on_child, v);
	if (r == 0)
		r = loop_add_timer(v->loop, TICK_MS, TICK_MS, on_tick, v, &v->tick);
	return r < 0 ? error_errno(e, r, "Cannot make the event loop") : 0;
}

static void stop_done(struct supervisor *v)
{
	loop_remove(v->tick);
	loop_remove(v->deadline);
	for (int i = 0; i < UNIT_COUNT; i++)
		unit_done(&v->units[i]);
	for (size_t i = 0; i < SERVICE_COUNT; i++)
		free((char *)v->service_argv[i][0]);
	loop_free(v->loop);
}

static int supervise(struct supervisor *v, struct error *e)
{
	int r = make_loop(v, e);

	if (r == 0)
		r = prepare_services(v, e);
	if (r < 0)
		return r;
	if (needs_libvirt(v)) {
		prepare_libvirt(v);
		keep_libvirt(v);
		wait_until(virtd_answers);
	}
	for (int i = UNIT_FIRST_SERVICE; i < UNIT_COUNT; i++)
		unit_start(&v->units[i]);
	return loop_run(v->loop);
}

/* The exec keeps the process, so that the services stay its children. */
static int execute_again(const struct settings *s, struct error *e)
{
	_cleanup_(freep) char *path = settings_path(s, "bin/mallee");
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execl(path, path, "supervise", (char *)NULL);
	return error_errno(e, errno, "Cannot execute %s", path);
}

int cmd_supervise(int argc, char **argv)
{
	_cleanup_(settings_freep) struct settings *s = NULL;
	_cleanup_(freep) char *pid_path = NULL;
	struct supervisor v = {0};
	struct error e = {0};
	pid_t holder = 0;
	int fd, r = options_parse(argc, argv, NULL, 0, NULL, 0, 0);

	if (r < 0)
		return EXIT_USAGE;
	if (load_settings(&s))
		return 1;
	umask(022);
	log_init("supervisor", LOG_LEVEL_INFO);
	pid_path = settings_path(s, "run/supervisor.pid");
	r = pidfile_take(pid_path, &fd, &holder);
	if (r == -EBUSY)
		return command_failed(
		    (error_set(&e, "AlreadyRunning",
			       "A supervisor of this cloud runs already, as process %d",
			       (int)holder),
		     &e));
	if (r < 0)
		return command_failed(
		    (error_errno(&e, r, "Cannot write %s; `mallee up` makes the folder", pid_path),
		     &e));
	if (chdir("/") < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		log_warn("not a subreaper", "err=%s", log_quote(strerror(errno)));
	v.settings = s;
	for (int i = 0; i < UNIT_COUNT; i++)
		v.units[i].pid_fd = -1;
	r = supervise(&v, &e);
	stop_done(&v);
	if (r == 0 && v.again)
		r = execute_again(s, &e);
	if (r < 0) {
		log_error("cannot run", "err=%s", log_quote(e.message));
		return 1;
	}
	log_info("stopped", "all=1");
	return 0;
}
