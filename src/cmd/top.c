/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mallee top: what the instances of this node do, on a terminal's second screen that is left as it was found: at the end, at a
 * signal, and while stopped (^Z). Without a terminal, or with --once, one table; with --json the node's answer as it is.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "cmd/client.h"
#include "cmd/cmd_priv.h"
#include "cmd/top_screen.h"
#include "os/file.h"
#include "wire/codec.h"

#define INTERVAL_S 5
#define INTERVAL_MOST_S 3600
#define AGE_LEAST_MS 200 /* of the node */
#define ONCE_WIDTH 120

static const char enter_screen[] = "\033[?1049h\033[?25l"; /* the second screen, no cursor */
static const char leave_screen[] = "\033[?25h\033[?1049l";

struct top {
	struct client *client;
	int64_t interval_ms;
	struct top_view view;
	struct termios found; /* the terminal, as it was */
};

static volatile sig_atomic_t ended, stopped, resized; /* set by handlers only */

/* --- asking --- */

static int ask(struct top *t, struct arena *a, struct node_get_figures_response **ret, struct error *e)
{
	struct node_get_figures_request in = {.max_age_ms = WIRE_INT_OF(MAX_OF(t->interval_ms, AGE_LEAST_MS))};

	return client_rpc(t->client, PEER_NC, &node_service, "GetFigures", &in, a, (void **)ret, 0, e);
}

static int print_once(struct top *t, bool json)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(buf_done) struct buf text = BUF_INIT;
	struct node_get_figures_response *r;
	struct error e = {0};

	if (ask(t, a, &r, &e) < 0)
		return command_failed(&e);
	if (json) {
		wire_json_encode(&node_shape_get_figures_response, r, &text);
		buf_putc(&text, '\n');
	} else {
		top_print(r, &t->view, &text);
	}
	return fd_write_all(STDOUT_FILENO, text.data, text.len) < 0 ? 1 : 0;
}

/* --- the terminal --- */

static void write_out(const char *text, size_t len)
{
	(void)fd_write_all(STDOUT_FILENO, text, len); /* a terminal that is gone sends SIGHUP, too */
}

/* Keys come at once and are not shown; signals' keys stay. */
static void take_terminal(struct top *t)
{
	struct termios raw = t->found;

	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	write_out(enter_screen, sizeof(enter_screen) - 1);
}

static void give_terminal_back(struct top *t)
{
	write_out(leave_screen, sizeof(leave_screen) - 1);
	tcsetattr(STDIN_FILENO, TCSANOW, &t->found);
}

static void measure_terminal(struct top *t)
{
	struct winsize w;
	bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 && w.ws_row > 1;

	t->view.width = known ? w.ws_col : 80;
	t->view.height = known ? w.ws_row - 1 : 23; /* the last line is ours */
}

static void on_signal(int signo)
{
	if (signo == SIGWINCH)
		resized = 1;
	else if (signo == SIGTSTP)
		stopped = 1;
	else
		ended = signo;
}

static void catch_signals(void)
{
	static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP};
	struct sigaction a = {.sa_handler = on_signal}; /* no SA_RESTART: they end a wait */

	for (size_t i = 0; i < ARRAY_SIZE(caught); i++)
		sigaction(caught[i], &a, NULL);
}

/* --- the loop --- */

static void draw(struct top *t)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(buf_done) struct buf text = BUF_INIT, screen = BUF_INIT;
	struct node_get_figures_response *r;
	struct error e = {0};

	measure_terminal(t);
	if (ask(t, a, &r, &e) < 0)
		buf_printf(&text, "%.*s\n", t->view.width, e.message);
	else
		top_print(r, &t->view, &text);
	/* Home; each line clears what is behind it; then what is below. */
	buf_puts(&screen, "\033[H");
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] == '\n')
			buf_puts(&screen, "\033[K\r");
		buf_putc(&screen, text.data[i]);
	}
	buf_puts(&screen, "\033[J");
	buf_printf(&screen, "\033[%d;1H%.*s\033[K", t->view.height + 1, t->view.width,
		   "q quit; sort by: b busiest, c CPU, i IOPS, m MB/s, n id");
	write_out(screen.data, screen.len);
}

static void stop_like_others(struct top *t)
{
	give_terminal_back(t);
	stopped = 0;
	raise(SIGSTOP);
	take_terminal(t);
}

/* Whether the screen is to be drawn anew for it. */
static bool take_key(struct top *t)
{
	static const char keys[] = "bcimn"; /* as enum top_sort */
	char key;
	ssize_t n = read(STDIN_FILENO, &key, 1);

	if (n == 0 || (n == 1 && key == 'q'))
		ended = SIGTERM;
	for (size_t i = 0; n == 1 && keys[i]; i++)
		if (keys[i] == key)
			t->view.sort = (enum top_sort)i;
	return n == 1;
}

/* Until it is time to draw again. */
static void wait_for_next(struct top *t)
{
	int64_t due = clock_mono_ms() + t->interval_ms;

	while (!ended && !resized && !stopped) {
		struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
		int64_t left = due - clock_mono_ms();
		int n = left > 0 ? poll(&in, 1, (int)left) : 0;

		if (n == 0 || (n > 0 && take_key(t)))
			return;
	}
}

static int run_screen(struct top *t)
{
	catch_signals();
	take_terminal(t);
	while (!ended) {
		resized = 0;
		draw(t);
		wait_for_next(t);
		if (stopped)
			stop_like_others(t);
	}
	give_terminal_back(t);
	return 0;
}

static int parse_interval(const char *text, int64_t *ret_ms)
{
	double s = INTERVAL_S;

	if (text && (parse_f64(text, &s) < 0 || !(s >= 0.2 && s <= INTERVAL_MOST_S))) {
		fprintf(stderr, "mallee top: --interval %s: give seconds, from 0.2 to %d\n", text, INTERVAL_MOST_S);
		return -EINVAL;
	}
	*ret_ms = (int64_t)(s * 1000);
	return 0;
}

int cmd_top(int argc, char **argv)
{
	_cleanup_(settings_freep) struct settings *s = NULL;
	_cleanup_(client_freep) struct client *c = NULL;
	bool once = false, json = false;
	const char *interval = NULL, *sort = "busiest";
	const struct option_spec options[] = {
	    {.name = "--once", .flag = &once},
	    {.name = "--json", .flag = &json},
	    {.name = "--interval", .value = &interval},
	    {.name = "--sort", .value = &sort},
	};
	struct top t = {.view.width = ONCE_WIDTH};
	struct error e = {0};

	if (options_parse(argc, argv, options, ARRAY_SIZE(options), NULL, 0, 0) < 0 || parse_interval(interval, &t.interval_ms) < 0)
		return EXIT_USAGE;
	if (top_sort_parse(sort) < 0) {
		fprintf(stderr, "mallee top: --sort %s: it takes busiest, cpu, iops, mb or id\n", sort);
		return EXIT_USAGE;
	}
	t.view.sort = (enum top_sort)top_sort_parse(sort);
	if (load_settings(&s))
		return 1;
	if (client_new(s, &c, &e) < 0)
		return command_failed(&e);
	t.client = c;
	if (once || json || !isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &t.found) < 0)
		return print_once(&t, json);
	t.view.bold = true;
	return run_screen(&t);
}
