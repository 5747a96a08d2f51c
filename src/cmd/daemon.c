/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/daemon.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "cmd/cmd_priv.h"
#include "os/file.h"
#include "os/loop.h"

static void on_stop(void *ctx, int signo)
{
	struct loop *l = ctx;

	log_info("stopping", "signal=%d", signo);
	loop_stop(l);
}

static int parse_arguments(const struct daemon_desc *d, int argc, char **argv)
{
	if (argc == 1)
		return 0;
	if (argc == 2 && str_eq(argv[1], "--version")) {
		printf("mallee-%s %s\n", d->name, MALLEE_VERSION);
	} else if (argc == 2 && str_eq(argv[1], "--help")) {
		_cleanup_(buf_done) struct buf text = BUF_INIT;

		settings_describe(&text);
		printf(
		    "usage: mallee-%s [--help | --version]\n\n%s\n\nStarted by `mallee up`. Logs to stderr, ends at SIGTERM. Settings:\n%s",
		    d->name, d->summary, text.data);
	} else {
		fprintf(stderr, "mallee-%s takes no arguments; see --help\n", d->name);
		return -EINVAL;
	}
	return 1;
}

/* Many connections, many guests: as many descriptors as the host allows. */
static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int take_pidfile(const struct daemon_desc *d, const struct settings *s, int *ret_fd,
			struct error *e)
{
	_cleanup_(freep) char *path = settings_path(s, "run/%s.pid", d->name);
	pid_t holder = 0;
	int r = pidfile_take(path, ret_fd, &holder);

	if (r == -EBUSY)
		return error_set(e, "AlreadyRunning",
				 "mallee-%s runs already with this state folder, as process %d",
				 d->name, (int)holder);
	if (r < 0)
		return error_errno(e, r, "Cannot write %s; `mallee up` makes the folder", path);
	return 0;
}

/* Signals are blocked, for loop_run() to deliver, before the service starts threads that would take
 * them. */
static int make_loop(struct loop **ret, struct error *e)
{
	int r = loop_new(ret);

	if (r == 0)
		r = loop_add_signal(*ret, SIGTERM, on_stop, *ret);
	if (r == 0)
		r = loop_add_signal(*ret, SIGINT, on_stop, *ret);
	return r < 0 ? error_errno(e, r, "Cannot make the event loop") : 0;
}

static int serve(const struct daemon_desc *d, const struct settings *s, struct error *e)
{
	_cleanup_(fd_closep) int pid_fd = -1;
	struct loop *loop = NULL;
	void *service = NULL;
	int r = take_pidfile(d, s, &pid_fd, e);

	if (r < 0)
		return r;
	r = make_loop(&loop, e);
	if (r == 0)
		r = d->start(s, &service, e);
	if (r == 0) {
		log_info("started", "version=%s", MALLEE_VERSION);
		r = loop_run(loop);
		d->stop(service);
	}
	loop_free(loop);
	return r;
}

int daemon_main(const struct daemon_desc *d, int argc, char **argv)
{
	_cleanup_(settings_freep) struct settings *s = NULL;
	enum log_level level = LOG_LEVEL_INFO;
	struct error e = {0};
	int r = parse_arguments(d, argc, argv);

	if (r != 0)
		return r < 0 ? EXIT_USAGE : 0;
	clean_environment();
	umask(022);
	signal(SIGPIPE, SIG_IGN);
	log_init(d->name, level);
	raise_limits();
	r = settings_load(&s, &e);
	if (r == 0) {
		log_level_parse(settings_get(s, SETTING_LOG_LEVEL), &level);
		log_init(d->name, level);
		r = serve(d, s, &e);
	}
	if (r < 0)
		log_error("cannot run", "err=%s",
			  log_quote(error_is_set(&e) ? e.message : strerror(-r)));
	else
		log_info("stopped", NULL);
	return r < 0 ? 1 : 0;
}
