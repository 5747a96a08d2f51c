/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/apparmor.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/text.h"
#include "os/file.h"
#include "os/spawn.h"

#define ENABLED "/sys/module/apparmor/parameters/enabled"
#define FILE_MAX_BYTES (1 << 20)

bool apparmor_confines(void)
{
	_cleanup_(freep) char *enabled = NULL;
	size_t len;

	return file_read(ENABLED, 16, &enabled, &len) == 0 && enabled[0] == 'Y' &&
	       access(APPARMOR_PROFILE, R_OK) == 0;
}

/* The file's text without this cloud's lines. A begin without its end takes nothing away: somebody
 * edited there. */
static void without_ours(const char *text, const char *cloud_id, struct buf *out)
{
	_cleanup_(buf_done) struct buf begin = BUF_INIT, end = BUF_INIT;
	const char *from, *to;

	buf_printf(&begin, "# mallee %s: begin\n", cloud_id);
	buf_printf(&end, "# mallee %s: end\n", cloud_id);
	from = strstr(text, begin.data);
	to = from ? strstr(from, end.data) : NULL;
	if (!to) {
		buf_puts(out, text);
		return;
	}
	buf_append(out, text, (size_t)(from - text));
	buf_puts(out, to + end.len);
}

static int read_local(const char *path, char **ret, struct error *e)
{
	size_t len;
	int r = file_read(path, FILE_MAX_BYTES, ret, &len);

	if (r == -ENOENT) {
		*ret = strdup("");
		return *ret ? 0 : -ENOMEM;
	}
	return r < 0 ? error_errno(e, r, "Cannot read %s", path) : 0;
}

static int write_if_changed(const char *path, const char *old, const struct buf *now,
			    bool *ret_changed, struct error *e)
{
	const char *text = now->data ? now->data : "";
	int r;

	*ret_changed = !str_eq(old, text);
	if (!*ret_changed)
		return 0;
	r = file_write_atomic(path, text, now->len, 0644);
	return r < 0 ? error_errno(e, r, "Cannot write %s", path) : 0;
}

/* Put one line of this cloud's, rule, into the local part. */
static int allow(const char *path, const char *cloud_id, const char *state, const char *rule,
		 bool *ret_changed, struct error *e)
{
	_cleanup_(buf_done) struct buf now = BUF_INIT;
	_cleanup_(freep) char *old = NULL;
	int r;

	if (strpbrk(state, " \t\n\"'{}[]*?^,\\@#"))
		return error_set(
		    e, "InvalidState",
		    "The state folder %s has characters in its name that AppArmor's rules give "
		    "a meaning: choose another by MALLEE_STATE",
		    state);
	r = read_local(path, &old, e);
	if (r < 0)
		return r;
	without_ours(old, cloud_id, &now);
	if (now.len > 0 && now.data[now.len - 1] != '\n')
		buf_putc(&now, '\n');
	buf_printf(&now, "# mallee %s: begin\n%s\n# mallee %s: end\n", cloud_id, rule, cloud_id);
	return write_if_changed(path, old, &now, ret_changed, e);
}

int apparmor_allow(const char *path, const char *cloud_id, const char *state, bool *ret_changed,
		   struct error *e)
{
	_cleanup_(buf_done) struct buf rule = BUF_INIT;

	buf_printf(&rule, "%s/nc/instances/** r,", state);
	return allow(path, cloud_id, state, rule.data, ret_changed, e);
}

int apparmor_allow_sockets(const char *path, const char *cloud_id, const char *state,
			   bool *ret_changed, struct error *e)
{
	_cleanup_(buf_done) struct buf rule = BUF_INIT;

	buf_printf(&rule, "owner %s/**/vhost.sock rw,", state);
	return allow(path, cloud_id, state, rule.data, ret_changed, e);
}

int apparmor_withdraw(const char *path, const char *cloud_id, bool *ret_changed, struct error *e)
{
	_cleanup_(buf_done) struct buf now = BUF_INIT;
	_cleanup_(freep) char *old = NULL;
	int r = read_local(path, &old, e);

	if (r < 0)
		return r;
	without_ours(old, cloud_id, &now);
	return write_if_changed(path, old, &now, ret_changed, e);
}

int apparmor_reload(struct error *e)
{
	return run_command(e, "apparmor_parser", "-r", APPARMOR_PROFILE, NULL);
}
