/* SPDX-License-Identifier: Apache-2.0 */
#include "os/shutdown.h"

#include <unistd.h>

#include "base/text.h"
#include "os/spawn.h"

bool host_going_down(const char *systemd_runs)
{
	static const char *const argv[] = {"systemctl", "is-system-running", NULL};
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct error e = {0};
	int code;

	if (access(systemd_runs, F_OK) < 0)
		return false;
	/* Its exit code tells "running" from all else, degraded ones included; the word tells more. */
	if (spawn_run(&(struct spawn){.argv = argv, .timeout_ms = 5000}, &out, &code, &e) < 0)
		return false;
	return out.data && str_prefix(out.data, "stopping");
}
