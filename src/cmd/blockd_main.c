/* SPDX-License-Identifier: Apache-2.0 */
/* A program that serves one volume. Options to a stack, its front ends and its control socket; then it serves until SIGTERM. */
#include <grp.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "block/drivers.h"
#include "cmd/blockd.h"
#include "os/loop.h"
#include "os/privs.h"

#define EXIT_USAGE 2

static void print_help(const struct blockd_program *program)
{
	const struct blk_layer_ops *const *drivers = program->drivers;
	_cleanup_(buf_done) struct buf text = BUF_INIT;

	buf_printf(&text,
		 "usage: %s --back SPEC [--filter SPEC]... --front SPEC [--front SPEC]... [OPTION]...\n"
		 "       %s --to SOCKET COMMAND [ARGUMENTS]\n\n"
		 "Serves one volume: front ends over filters over a back end. SPEC is NAME or NAME:OPTION=VALUE,...;\n"
		 "a comma inside a value is written twice. Runs in the foreground, logs to stderr, ends at SIGTERM.\n\n"
		 "  --name NAME       what logs and metrics call the volume\n"
		 "  --queues N        queue threads, 1 to 16 (1)\n"
		 "  --io ENGINE       auto, uring or threads (auto: io_uring where the host allows it)\n"
		 "  --control SOCKET  commands and counters on this unix socket\n"
		 "  --user UID:GID    become this user before anything is opened\n"
		 "  --sandbox on|off  once all is open, system calls that serving does not take end the process (%s)\n"
		 "  --to SOCKET       send a command to a running one; `help` lists them\n"
		 "  --help, --version\n\nback ends:\n",
		 program->name, program->name, program->sandbox ? "on" : "off");
	for (const struct blk_layer_ops *const *d = drivers; *d; d++) {
		if (d != drivers && (*d)->is_back != d[-1]->is_back)
			buf_puts(&text, "\n");
		buf_printf(&text, "  --%s %s  %s\n", (*d)->is_back ? "back" : "filter", (*d)->name, (*d)->doc);
		blk_options_describe((*d)->options, &text);
	}
	buf_puts(&text, "\n");
	for (const struct blk_front_ops *const *f = blk_fronts; *f; f++) {
		buf_printf(&text, "  --front %s  %s\n", (*f)->name, (*f)->doc);
		blk_options_describe((*f)->options, &text);
	}
	fputs(text.data, stdout);
}

/* The parts of the manual page that the drivers' tables tell, in mdoc: for the build. */
static void man_option(const char *name, const char *value, const char *doc, const char *more)
{
	printf(".It Cm %s Ns = Ns Ar %s\n%s%s.\n", name, value, doc, more);
}

static void man_options(const struct blk_option *o)
{
	static const char *const values[] = { "text", "on|off", "number", "bytes", "ms" };
	char more[128];

	printf(".Bl -tag -width Ds\n");
	for (; o && o->name; o++) {
		*more = '\0';
		if (o->required)
			snprintf(more, sizeof(more), " (required)");
		else if (o->fallback)
			snprintf(more, sizeof(more), "; %s unless said", o->fallback);
		man_option(o->name, o->type == BLK_OPT_CHOICE ? o->choices : values[o->type], o->doc, more);
	}
	printf(".El\n");
}

static void man_drivers(const struct blk_layer_ops *const *drivers)
{
	for (const struct blk_layer_ops *const *d = drivers; *d; d++) {
		printf(".Ss %s %s: %s\n", (*d)->is_back ? "Back end" : "Filter", (*d)->name, (*d)->doc);
		man_options((*d)->options);
	}
	for (const struct blk_front_ops *const *f = blk_fronts; *f; f++) {
		printf(".Ss Front end %s: %s\n", (*f)->name, (*f)->doc);
		man_options((*f)->options);
	}
}

static void man_verbs(const struct blk_layer_ops *const *drivers)
{
	printf(".Bl -tag -width Ds\n");
	for (const struct blk_layer_ops *const *d = drivers; *d; d++) {
		for (const struct blk_verb *v = (*d)->verbs; v && v->name; v++) {
			printf(".It Cm %s %s\n%s.\n", (*d)->name, v->name, v->doc);
			if (v->args && v->args->name)
				man_options(v->args);
		}
	}
	printf(".El\n");
}

static int take_spec(const char **list, unsigned max, const char *value, const char *what, struct error *e)
{
	unsigned i = 0;

	while (i < max && list[i])
		i++;
	if (i == max)
		return error_set(e, "InvalidOption", "more than %u of %s", max, what);
	list[i] = value;
	return 0;
}

static int take_user(struct blockd_settings *s, const char *value, struct error *e)
{
	unsigned uid, gid;
	char end;

	if (sscanf(value, "%u:%u%c", &uid, &gid, &end) != 2)
		return error_set(e, "InvalidOption", "--user %s: give it as UID:GID, in numbers", value);
	s->has_user = true;
	s->uid = uid;
	s->gid = gid;
	return 0;
}

static int take_io(struct blockd_settings *s, const char *value, struct error *e)
{
	static const char *const names[] = { "auto", "uring", "threads" };

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (str_eq(value, names[i])) {
			s->engine = (enum blk_io_engine)i;
			return 0;
		}
	}
	return error_set(e, "InvalidOption", "--io %s: give auto, uring or threads", value);
}

static int take_option(struct blockd_settings *s, const char *option, const char *value, struct error *e)
{
	uint64_t number = 1;

	if (str_eq(option, "--back")) {
		if (s->back)
			return error_set(e, "InvalidOption", "--back is given twice");
		s->back = value;
	} else if (str_eq(option, "--filter")) {
		return take_spec(s->filters, BLOCKD_FILTERS_MAX, value, option, e);
	} else if (str_eq(option, "--front")) {
		return take_spec(s->fronts, BLOCKD_FRONTS_MAX, value, option, e);
	} else if (str_eq(option, "--queues")) {
		if (parse_u64(value, 1, BLK_QUEUES_MAX, &number))
			return error_set(e, "InvalidOption", "--queues %s: give 1 to %u", value, BLK_QUEUES_MAX);
		s->queues = (unsigned)number;
	} else if (str_eq(option, "--name")) {
		if (strlen(value) > 64 || strpbrk(value, "\"\\\n"))
			return error_set(e, "InvalidOption", "--name: at most 64 characters, no quotes, backslashes or line breaks");
		s->name = value;
	} else if (str_eq(option, "--control")) {
		s->control = value;
	} else if (str_eq(option, "--io")) {
		return take_io(s, value, e);
	} else if (str_eq(option, "--sandbox")) {
		if (!str_eq(value, "on") && !str_eq(value, "off"))
			return error_set(e, "InvalidOption", "--sandbox %s: give on or off", value);
		s->sandbox = str_eq(value, "on");
	} else if (str_eq(option, "--user")) {
		return take_user(s, value, e);
	} else {
		return error_set(e, "InvalidOption", "there is no option %s; see --help", option);
	}
	return 0;
}

static int parse(struct blockd_settings *s, int argc, char **argv, struct error *e)
{
	for (int i = 1; i < argc; i += 2) {
		int err = i + 1 < argc ? take_option(s, argv[i], argv[i + 1], e) :
					 error_set(e, "InvalidOption", "%s needs a value; see --help", argv[i]);
		if (err)
			return err;
	}
	if (!s->back)
		return error_set(e, "InvalidOption", "--back is missing; see --help");
	if (!s->fronts[0] && !s->control)
		return error_set(e, "InvalidOption", "neither --front nor --control: nobody could reach the volume; see --help");
	return 0;
}

int blockd_main(const struct blockd_program *program, int argc, char **argv)
{
	struct blockd_settings s = { .queues = 1, .name = "", .started_by = getuid(), .drivers = program->drivers, .sandbox = program->sandbox };
	struct error e = { 0 };

	if (argc == 2 && str_eq(argv[1], "--help")) {
		print_help(program);
		return 0;
	}
	if (argc == 2 && str_eq(argv[1], "--version")) {
		printf("%s %s\n", program->name, MALLEE_VERSION);
		return 0;
	}
	if (argc == 2 && str_eq(argv[1], "--man-drivers"))
		return man_drivers(program->drivers), 0;
	if (argc == 2 && str_eq(argv[1], "--man-verbs"))
		return man_verbs(program->drivers), 0;
	if (argc >= 4 && str_eq(argv[1], "--to"))
		return blockd_send(argv[2], argc - 3, argv + 3);
	if (parse(&s, argc, argv, &e)) {
		fprintf(stderr, "%s: %s\n", program->name, e.message);
		return EXIT_USAGE;
	}
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_TIMERSLACK, 1000UL); /* ns: paced disks and throttles are as exact as their timers */
	mallopt(M_ARENA_MAX, 1);          /* the data path allocates nothing: one heap is enough */
	log_init(program->name + strlen("mallee-"), LOG_LEVEL_INFO);
	return blockd_run(&s);
}
