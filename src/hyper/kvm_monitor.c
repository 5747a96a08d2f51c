/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's own monitor (QMP), through libvirt: for what libvirt cannot do, or does wrong. */
#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>

#include "hyper/kvm_priv.h"

static void json_freep(json_t **j)
{
	json_decref(*j);
}

/* The answer's text: {"return": …} or {"error": {"class": …, "desc": …}}. */
static int take_answer(const char *text, const char *command, json_t **ret, struct error *e)
{
	_cleanup_(json_freep) json_t *answer = json_loads(text, 0, NULL);
	json_t *value = json_object_get(answer, "return");
	const char *why = json_string_value(json_object_get(json_object_get(answer, "error"), "desc"));

	if (!value)
		return error_set(e, "InternalError", "QEMU refused %s: %s", command,
				 why ? why : "no reason given");
	if (ret)
		*ret = json_incref(value);
	return 0;
}

int kvm_monitor_run(const struct kvm_monitor *m, const char *command, json_t *args, json_t **ret,
		    struct error *e)
{
	_cleanup_(json_freep) json_t *request = json_pack("{s:s}", "execute", command);
	_cleanup_(freep) char *text = NULL, *answer = NULL;
	const char *name = virDomainGetName(m->dom);

	if (args && json_object_set_new(request, "arguments", args) < 0)
		abort();
	text = json_dumps(request, JSON_COMPACT);
	if (!text)
		abort();
	if (virDomainQemuMonitorCommand(m->dom, text, &answer, 0) == 0)
		return take_answer(answer, command, ret, e);
	if (virGetLastErrorCode() == VIR_ERR_OPERATION_INVALID ||
	    virGetLastErrorCode() == VIR_ERR_NO_DOMAIN) {
		error_set(e, "IncorrectInstanceState", "the machine %s does not run", name);
		return -ENOENT;
	}
	return kvm_error(m->k, m->conn, e, "speak to the monitor of", name);
}

int kvm_monitor_line(const struct kvm_monitor *m, const char *line, char **ret_text,
		     struct error *e)
{
	_cleanup_(json_freep) json_t *answer = NULL;
	int r = kvm_monitor_run(m, "human-monitor-command", json_pack("{s:s}", "command-line", line),
				&answer, e);

	if (r < 0)
		return r;
	if (ret_text) {
		const char *text = json_string_value(answer);

		*ret_text = strdup(text ? text : "");
		if (!*ret_text)
			abort();
	}
	return 0;
}
