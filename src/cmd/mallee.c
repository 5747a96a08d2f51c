/* SPDX-License-Identifier: Apache-2.0 */
/* The mallee command: a table of subcommands. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "cmd/cmd_priv.h"

static const struct command commands[] = {
    {"up", "[--no-instance]", "start the cloud on this machine, and a first instance",
     "Makes what is missing (state folder, users, certificates), starts the services, registers the\n"
     "built-in image, runs a first instance and waits until it answers. Doing it again changes nothing.\n\n"
     "  --no-instance   only the services: no image, no key pair, no instance\n",
     cmd_up},
    {"down", "[--timeout SECONDS]", "shut guests and services down; nothing is lost",
     "Asks each guest to power off, and turns it off if it has not within the timeout (30 s). The next\n"
     "`mallee up` starts those that should run.\n",
     cmd_down},
    {"status", "", "services, nodes, capacity, what guests run on",
     "Exit code 0: all is well; 1: something is wrong, and the lines say what.\n", cmd_status},
    {"top", "[--interval SECONDS] [--sort busiest|cpu|iops|mb|id] [--once] [--json]",
     "what the instances here do, and what holds their disks back",
     "Of each disk, under each other: what the guest asks, what its storage is asked, and the host's disk\n"
     "under both, in iostat's terms. docs/figures.md says what the figures are, docs/diagnosis.md the rules.\n\n"
     "  --interval SECONDS   how often the screen is drawn anew, and samples are made at least (5)\n"
     "  --sort WHAT          what stands first: busiest (CPU or disk), cpu, iops, mb, id\n"
     "  --once               one table, as without a terminal\n"
     "  --json               the node's whole answer, with CloudWatch's names\n",
     cmd_top},
    {"doctor", "", "look for what is wrong and say what to do", "Changes nothing.\n", cmd_doctor},
    {"env", "[--account NAME]", "print export lines for AWS clients",
     "Use it as: eval \"$(mallee env)\"\n", cmd_env},
    {"aws", "[--account NAME] ARGS...", "run /usr/bin/aws against this cloud",
     "Debian's aws ignores AWS_ENDPOINT_URL and would call Amazon; this gives it --endpoint-url and\n"
     "keys. For ec2, s3, s3api, sts and iam; other services are refused.\n",
     cmd_aws, .passes_on = 1},
    {"account", "create NAME | list", "make or list accounts", "", cmd_account},
    {"image",
     "build tiny [--output FILE] | import FILE --name NAME [--description TEXT] [--public]",
     "build the built-in image, or register one of yours",
     "import takes raw and qcow2 images of disks that boot by BIOS.\n", cmd_image},
    {"volume", "scrub [--snapshot ID]", "read what EBS keeps and compare it with what was recorded",
     "Reads all snapshots, or one, past every cache, and the maps and lengths of volumes that nobody has open.\n"
     "Exit code 0: nothing is corrupt; 1: not all could be read; 2: something is corrupt, and the lines say what.\n",
     cmd_volume},
    {"api", "[SERVICE]", "list the API actions that are served", "", cmd_api},
    {"bench", "disk | net | block | paper | report | compare | explain | model [OPTIONS]",
     "measure how much of disk and network guests get, and why not more",
     "  disk      the study's dd, streams and random requests, over hypervisor, target and driver\n"
     "  net       TCP and request/response between guests, this host and another\n"
     "  block     the block engine against other block servers\n"
     "  paper     disk and net within half an hour: paper.json, and the tables of docs/paper.md\n"
     "  paper-doc put a result's tables into docs/paper.md\n"
     "  report    show a kept result: as tables, HTML or CSV\n"
     "  compare   two results, row by row\n"
     "  explain   a result on standard input: say of each row what holds it back, what would mend it and what that gains\n"
     "  model     the study's tables beside what a model of its machines predicts\n\n"
     "`mallee bench COMMAND --help` tells a command's options. explain exits with 2 when its input is no result.\n",
     cmd_bench, .passes_on = 2},
    {"clean-state", "[--yes]", "forget instances, images, objects and accounts",
     "Takes the cloud down first. Keeps the settings.\n", cmd_clean_state},
    {"uninstall", "[--yes]", "give the host back as it was",
     "Takes the cloud down, removes its network, domains, users and state. Data are lost: it asks first.\n",
     cmd_uninstall},
    {"supervise", "", "run and watch the services (what `up` starts)", "", cmd_supervise},
};

static void print_help(void)
{
	_cleanup_(buf_done) struct buf settings = BUF_INIT;

	printf("usage: mallee COMMAND [ARGUMENTS]\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		printf("  %-12s %s\n", commands[i].name, commands[i].summary);
	settings_describe(&settings);
	buf_puts(&settings, "\nMALLEE_CACHE, from the environment only: where downloads and built images are kept.\n");
	printf(
	    "\n`mallee COMMAND --help` tells more.\n\nSettings, from the environment or from mallee.conf in the state folder:\n%s",
	    settings.data);
}

static int run(const struct command *c, int argc, char **argv)
{
	int own = c->passes_on ? MIN_OF(argc, c->passes_on) : argc;

	for (int i = 1; i < own; i++) {
		if (!str_eq(argv[i], "--help") && !str_eq(argv[i], "-h"))
			continue;
		printf("usage: mallee %s%s%s\n\n%s.\n%s%s", c->name, *c->args ? " " : "", c->args,
		       c->summary, *c->help ? "\n" : "", c->help);
		return 0;
	}
	return c->run(argc, argv);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2 || str_eq(argv[1], "--help") || str_eq(argv[1], "-h") ||
	    str_eq(argv[1], "help")) {
		print_help();
		return argc < 2 ? EXIT_USAGE : 0;
	}
	if (str_eq(argv[1], "--version")) {
		printf("mallee %s\n", MALLEE_VERSION);
		return 0;
	}
	clean_environment();
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (str_eq(commands[i].name, argv[1]))
			return run(&commands[i], argc - 1, argv + 1);
	}
	fprintf(stderr, "mallee: there is no command \"%s\"; see mallee --help\n", argv[1]);
	return EXIT_USAGE;
}
