/* SPDX-License-Identifier: Apache-2.0 */
/* What the subcommands share: options, settings, places. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/text.h"
#include "cmd/cmd_priv.h"
#include "os/spawn.h"

static const struct option_spec *find_option(const struct option_spec *specs, size_t count,
					     const char *arg)
{
	size_t len = strcspn(arg, "=");

	for (size_t i = 0; i < count; i++) {
		if (strlen(specs[i].name) == len && !strncmp(specs[i].name, arg, len))
			return &specs[i];
	}
	return NULL;
}

int options_parse(int argc, char **argv, const struct option_spec *specs, size_t spec_count,
		  const char **words, int min, int max)
{
	int count = 0;

	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i], *equals = strchr(arg, '=');
		const struct option_spec *o;

		if (arg[0] != '-' || !arg[1]) {
			if (count == max) {
				fprintf(
				    stderr,
				    "mallee %s: \"%s\" is one word too many; see mallee %s --help\n",
				    argv[0], arg, argv[0]);
				return -EINVAL;
			}
			words[count++] = arg;
			continue;
		}
		o = find_option(specs, spec_count, arg);
		if (!o || (o->flag && equals)) {
			fprintf(stderr, "mallee %s: unknown option %s; see mallee %s --help\n",
				argv[0], arg, argv[0]);
			return -EINVAL;
		}
		if (o->flag) {
			*o->flag = true;
		} else if (equals) {
			*o->value = equals + 1;
		} else if (i + 1 < argc) {
			*o->value = argv[++i];
		} else {
			fprintf(stderr, "mallee %s: %s needs a value\n", argv[0], arg);
			return -EINVAL;
		}
	}
	if (count < min) {
		fprintf(stderr, "mallee %s: something is missing; see mallee %s --help\n", argv[0],
			argv[0]);
		return -EINVAL;
	}
	if (words)
		words[count] = NULL;
	return count;
}

int command_failed(const struct error *e)
{
	fflush(stdout);
	fprintf(stderr, "mallee: %s\n", e->message[0] ? e->message : "failed");
	return 1;
}

int load_settings(struct settings **ret)
{
	struct error e = {0};

	return settings_load(ret, &e) < 0 ? command_failed(&e) : 0;
}

bool is_fake(const struct settings *s)
{
	return str_eq(settings_get(s, SETTING_HYPERVISOR), "fake");
}

char *program_dir(void)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	char *slash;

	if (n <= 0)
		return strdup("/usr/bin");
	path[n] = '\0';
	slash = strrchr(path, '/');
	if (slash)
		*slash = '\0';
	return strdup(path);
}

/* The build folder, when dir is where Meson puts programs inside it; else NULL. */
static char *build_tree(const char *dir)
{
	_cleanup_(freep) char *mark = NULL;
	char *root;

	if (!str_suffix(dir, "/src/cmd"))
		return NULL;
	root = strndup(dir, strlen(dir) - strlen("/src/cmd"));
	if (!root || asprintf(&mark, "%s/build.ninja", root) < 0)
		abort();
	if (access(mark, F_OK) == 0)
		return root;
	free(root);
	return NULL;
}

char *build_dir(void)
{
	_cleanup_(freep) char *dir = program_dir();

	return build_tree(dir);
}

char *program_to_call(void)
{
	_cleanup_(freep) char *dir = program_dir(), *build = build_tree(dir);
	const char *state = getenv("MALLEE_STATE");
	char *call;

	if (asprintf(&call, "%s%s%s%s/mallee", state ? "MALLEE_STATE=" : "", state ? state : "",
		     state ? " " : "", build ? build : dir) < 0)
		abort();
	return call;
}

char *share_path(const char *name)
{
	_cleanup_(freep) char *dir = program_dir(), *build = build_tree(dir);
	char *path;

	if (asprintf(&path, "%s/%s", build ? MALLEE_SOURCE_DIR : MALLEE_SHARE_DIR, name) < 0)
		abort();
	return path;
}

char *cache_dir(void)
{
	_cleanup_(freep) char *dir = program_dir(), *build = build_tree(dir);
	const char *set = getenv("MALLEE_CACHE");
	char *path;

	if (set && set[0] == '/')
		return strdup(set);
	if (!build || access(build, W_OK) < 0)
		return strdup("/var/cache/mallee");
	if (asprintf(&path, "%s/cache", build) < 0)
		abort();
	return path;
}

const char *public_host(const struct settings *s)
{
	const char *listen = settings_get(s, SETTING_LISTEN);

	return str_eq(listen, "0.0.0.0") ? "127.0.0.1" : listen;
}

void clean_environment(void)
{
	static const char *const names[] = {"http_proxy",	   "https_proxy",     "all_proxy",
					    "HTTP_PROXY",	   "HTTPS_PROXY",     "ALL_PROXY",
					    "LIBVIRT_DEFAULT_URI", "XDG_RUNTIME_DIR", "TMPDIR"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unsetenv(names[i]);
}

int run_visibly(const char *const *argv, int *ret_code, struct error *e)
{
	struct spawn s = {.argv = argv};
	int status, r;
	pid_t pid;

	fflush(stdout);
	r = spawn_start(&s, &pid, e);
	if (r < 0)
		return r;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return error_errno(e, errno, "Cannot wait for %s", argv[0]);
	}
	*ret_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return 0;
}
