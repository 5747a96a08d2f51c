/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/text.h"
#include "cmd/client.h"
#include "cmd/cmd_priv.h"

static int create(struct client *c, const char *name, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct admin_create_account_request in = {.name = name};
	const struct admin_account *out;
	void *reply;
	int r = client_rpc(c, PEER_CLC, &admin_service, "CreateAccount", &in, a, &reply, 0, e);

	if (r < 0)
		return r;
	out = reply;
	printf("account %s: %s\nIts keys: mallee env --account %s\n", out->name, out->account_id,
	       out->name);
	return 0;
}

static int list(struct client *c, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const struct admin_list_accounts_response *out;
	void *reply;
	int r = client_rpc(c, PEER_CLC, &admin_service, "ListAccounts", NULL, a, &reply, 0, e);

	if (r < 0)
		return r;
	out = reply;
	for (size_t i = 0; i < out->accounts.count; i++)
		printf("%s  %s\n", out->accounts.items[i].account_id, out->accounts.items[i].name);
	return 0;
}

int cmd_account(int argc, char **argv)
{
	_cleanup_(settings_freep) struct settings *s = NULL;
	_cleanup_(client_freep) struct client *c = NULL;
	const char *words[3];
	struct error e = {0};
	int count = options_parse(argc, argv, NULL, 0, words, 1, 2), r;

	if (count < 0)
		return EXIT_USAGE;
	if (!(count == 2 && str_eq(words[0], "create")) &&
	    !(count == 1 && str_eq(words[0], "list"))) {
		fprintf(stderr, "usage: mallee account create NAME | list\n");
		return EXIT_USAGE;
	}
	if (load_settings(&s))
		return 1;
	r = client_new(s, &c, &e);
	if (r == 0)
		r = count == 2 ? create(c, words[1], &e) : list(c, &e);
	return r < 0 ? command_failed(&e) : 0;
}
