/* SPDX-License-Identifier: Apache-2.0 */
/* clean-state and uninstall: both take the cloud down first and ask before data are lost. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "cmd/apparmor.h"
#include "cmd/cmd_priv.h"
#include "cmd/host.h"
#include "cmd/pool_disks.h"
#include "cmd/processes.h"
#include "cmd/service.h"
#include "cmd/stop.h"
#include "cmd/virtd.h"
#include "net/net.h"
#include "os/file.h"
#include "os/spawn.h"
#include "volume/buffer.h"
#include "volume/keyfile.h"

#define STOP_TIMEOUT_S 10 /* guests whose disks go anyway */

#define NOT_SET_UP "NotSetUp" /* an error's code */

/* What clean-state forgets; settings, certificates and logs stay. */
static const char *const data_folders[] = {"clc", "cc", "walrus", "sc", "nc", "keys"};

static int need_state(const struct settings *s, struct error *e)
{
	_cleanup_(freep) char *conf = settings_path(s, "mallee.conf");

	if (access(conf, F_OK) == 0)
		return 0;
	return error_set(e, NOT_SET_UP, "There is no cloud in %s.",
			 settings_get(s, SETTING_STATE));
}

static int need_root(const struct settings *s, const char *command, struct error *e)
{
	_cleanup_(freep) char *call = program_to_call();

	if (geteuid() == 0 || is_fake(s))
		return 0;
	return error_set(e, "NotRoot", "This needs root. Nothing was changed. Run:\n  sudo %s %s",
			 call, command);
}

/* libvirtd may be down with the cloud: domains are files then, and only it can read them. */
static int with_libvirtd(struct error *e, pid_t *ret_virtlogd, pid_t *ret_libvirtd)
{
	struct spawn log = {.argv = (const char *const[]){"/usr/sbin/virtlogd", NULL},
			    .log_path = "/dev/null",
			    .new_session = true};
	struct spawn virt = {.argv = (const char *const[]){"/usr/sbin/libvirtd", NULL},
			     .log_path = "/dev/null",
			     .new_session = true};
	int r = 0;

	if (virtd_answers())
		return 0;
	if (virtd_by_systemd())
		return virtd_start_by_systemd(e);
	if (!virtlogd_answers())
		r = spawn_start(&log, ret_virtlogd, e);
	if (r == 0)
		r = spawn_start(&virt, ret_libvirtd, e);
	for (int i = 0; r == 0 && i < 150 && !virtd_answers(); i++)
		usleep(100000);
	return r;
}

static int remove_domains(const struct settings *s, struct error *e)
{
	pid_t virtlogd = 0, libvirtd = 0;
	int count = 0, r;

	if (is_fake(s))
		return 0;
	r = with_libvirtd(e, &virtlogd, &libvirtd);
	if (r == 0)
		r = virtd_remove_domains(settings_get(s, SETTING_CLOUD_ID), &count, e);
	if (libvirtd > 0)
		kill(libvirtd, SIGTERM);
	if (virtlogd > 0)
		kill(virtlogd, SIGTERM);
	if (r == 0 && count)
		printf("  removed %d guest(s) from libvirt\n", count);
	return r;
}

/* What serves volumes lives on where nothing else runs any more. Its write buffers are on the host, outside of our folders. */
static int end_volumes(const struct settings *s, struct error *e)
{
	int r = processes_end(s, e);

	if (r == 0 && buffers_remove(settings_get(s, SETTING_CLOUD_ID)) < 0)
		return error_set(e, "InternalError", "The volumes' write buffers, in mallee-%s below /dev/shm or /run, cannot be removed.",
				 settings_get(s, SETTING_CLOUD_ID));
	if (r == 0 && keyfiles_remove(settings_get(s, SETTING_CLOUD_ID)) < 0)
		return error_set(e, "InternalError", "The files of volumes' keys, in mallee-keys-%s-… below /dev/shm or /run, cannot be removed.",
				 settings_get(s, SETTING_CLOUD_ID));
	return r;
}

static int remove_network(const struct settings *s, struct error *e)
{
	_cleanup_(freep) char *dir = settings_path(s, "nc/net");

	return is_fake(s) ? 0 : net_uninstall(dir, e);
}

static int remove_folders(const struct settings *s, struct error *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(data_folders); i++) {
		_cleanup_(freep) char *path = settings_path(s, "%s", data_folders[i]);
		int r = dir_remove(path);

		if (r < 0)
			return error_errno(e, r, "Cannot remove %s", path);
	}
	return 0;
}

static int clean_state(const struct settings *s, bool yes, struct error *e)
{
	int r = need_state(s, e);

	if (r < 0)
		return r;
	r = need_root(s, "clean-state", e);
	if (r == 0)
		r = confirm(
		    yes,
		    "This forgets all instances, images, objects and accounts of this cloud, with their data.",
		    e);
	if (r == 0)
		r = cloud_stop(s, STOP_TIMEOUT_S, true, e);
	if (r == 0)
		r = remove_domains(s, e);
	if (r == 0)
		r = end_volumes(s, e);
	if (r == 0)
		r = pool_disks_blank(s, e);
	if (r == 0)
		r = remove_network(s, e); /* ports of guests that are no more */
	return r < 0 ? r : remove_folders(s, e);
}

static int unconfine(const struct settings *s, struct error *e)
{
	bool changed, sockets_changed;
	int r = apparmor_withdraw(APPARMOR_LOCAL, settings_get(s, SETTING_CLOUD_ID), &changed, e);

	if (r == 0)
		r = apparmor_withdraw(APPARMOR_GUESTS_LOCAL, settings_get(s, SETTING_CLOUD_ID),
				      &sockets_changed, e);
	return r == 0 && changed && apparmor_confines() ? apparmor_reload(e) : r;
}

static int uninstall(const struct settings *s, bool yes, struct error *e)
{
	int r = need_state(s, e);

	if (r < 0)
		return r;
	r = need_root(s, "uninstall", e);
	if (r == 0)
		r = confirm(
		    yes,
		    "This removes the cloud from this machine with all instances, images, objects and accounts.",
		    e);
	if (r == 0)
		r = cloud_stop(s, STOP_TIMEOUT_S, true, e);
	if (r == 0)
		r = remove_domains(s, e);
	if (r == 0)
		r = end_volumes(s, e);
	if (r == 0)
		r = pool_disks_blank(s, e);
	if (r == 0)
		r = remove_network(s, e);
	if (r == 0 && !is_fake(s))
		r = unconfine(s, e);
	if (r == 0 && !is_fake(s))
		r = host_cloud_remove(s, e);
	if (r == 0)
		r = pool_disks_give_back(s, e);
	if (r < 0)
		return r;
	r = dir_remove(settings_get(s, SETTING_STATE));
	return r < 0 ? error_errno(e, r, "Cannot remove %s", settings_get(s, SETTING_STATE)) : 0;
}

static int run(int argc, char **argv,
	       int (*fn)(const struct settings *s, bool yes, struct error *e), const char *done)
{
	_cleanup_(settings_freep) struct settings *s = NULL;
	bool yes = false;
	const struct option_spec options[] = {{"--yes", &yes, NULL}};
	struct error e = {0};
	int r;

	if (options_parse(argc, argv, options, ARRAY_SIZE(options), NULL, 0, 0) < 0)
		return EXIT_USAGE;
	if (load_settings(&s))
		return 1;
	r = fn(s, yes, &e);
	if (r < 0 && str_eq(e.code, NOT_SET_UP)) {
		printf("%s Nothing to do.\n", e.message);
		return 0;
	}
	if (r < 0)
		return command_failed(&e);
	printf("%s\n", done);
	return 0;
}

int cmd_clean_state(int argc, char **argv)
{
	return run(argc, argv, clean_state,
		   "Forgotten. `mallee up` begins anew, with the same settings.");
}

int cmd_uninstall(int argc, char **argv)
{
	return run(argc, argv, uninstall, "The cloud is gone, and the host is as it was before.");
}
