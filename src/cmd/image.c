/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/text.h"
#include "cmd/client.h"
#include "cmd/cmd_priv.h"
#include "cmd/upload.h"

static int build(const char *what, const char *output, struct error *e)
{
	_cleanup_(freep) char *path = NULL;
	int r;

	if (!str_eq(what, "tiny"))
		return error_set(e, "NoSuchImage",
				 "There is no built-in image \"%s\"; there is: tiny", what);
	r = image_build_tiny(output, &path, e);
	if (r == 0)
		printf("%s\n", path);
	return r;
}

static int import(const struct settings *s, const char *account, const struct import *i,
		  struct error *e)
{
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const char *image_id;
	int r = client_new(s, &c, e);

	if (r == 0)
		r = client_use_account(c, account, e);
	if (r == 0)
		r = image_import(c, s, i, a, &image_id, e);
	if (r == 0)
		printf("%s\n", image_id);
	return r;
}

int cmd_image(int argc, char **argv)
{
	_cleanup_(settings_freep) struct settings *s = NULL;
	const char *words[3], *output = NULL, *account = "default", *root = "ebs";
	struct import i = {0};
	const struct option_spec options[] = {{"--output", NULL, &output},
					      {"--name", NULL, &i.name},
					      {"--description", NULL, &i.description},
					      {"--public", &i.public, NULL},
					      {"--root-device-type", NULL, &root},
					      {"--account", NULL, &account}};
	struct error e = {0};
	int r;

	if (options_parse(argc, argv, options, ARRAY_SIZE(options), words, 2, 2) < 0)
		return EXIT_USAGE;
	if (load_settings(&s))
		return 1;
	if (str_eq(words[0], "build")) {
		r = build(words[1], output, &e);
	} else if (str_eq(words[0], "import") && i.name &&
		   (str_eq(root, "ebs") || str_eq(root, "instance-store"))) {
		i.file = words[1];
		i.instance_store = str_eq(root, "instance-store");
		r = import(s, account, &i, &e);
	} else {
		fprintf(
		    stderr,
		    "usage: mallee image build tiny [--output FILE] | import FILE --name NAME [--description TEXT] [--public] [--root-device-type ebs|instance-store] [--account NAME]\n");
		return EXIT_USAGE;
	}
	return r < 0 ? command_failed(&e) : 0;
}
