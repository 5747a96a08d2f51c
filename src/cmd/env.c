/* SPDX-License-Identifier: Apache-2.0 */
/* env and aws: the same variables, once printed and once set for Debian's aws. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "cmd/client.h"
#include "cmd/cmd_priv.h"

#define AWS_PROGRAM "/usr/bin/aws"

/* Everything by which a user's own set-up could lead the request, or its keys, elsewhere. */
static const char *const foreign_variables[] = {
    "AWS_PROFILE",	 "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
    "AWS_ROLE_ARN",	 "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_REGION",	 "AWS_ENDPOINT_URL",
    "AWS_CA_BUNDLE",	 "AWS_CREDENTIAL_EXPIRATION",
    "AWS_CONFIG_FILE",	 "AWS_SHARED_CREDENTIALS_FILE",
};

static int get_account(const struct settings *s, const char *name, struct arena *a,
		       const struct admin_account **ret, struct error *e)
{
	_cleanup_(client_freep) struct client *c = NULL;
	struct admin_get_account_request in = {.name = name};
	void *reply;
	int r = client_new(s, &c, e);

	if (r == 0)
		r = client_rpc(c, PEER_CLC, &admin_service, "GetAccount", &in, a, &reply, 0, e);
	if (r < 0)
		return r;
	*ret = reply;
	return 0;
}

static void print_env(const struct settings *s, const struct admin_account *account)
{
	const char *host = public_host(s);
	unsigned api = settings_port(s, PORT_API), s3 = settings_port(s, PORT_S3);

	printf("export AWS_ACCESS_KEY_ID=%s\nexport AWS_SECRET_ACCESS_KEY='%s'\n",
	       account->access_key_id, account->secret_access_key);
	printf("export AWS_DEFAULT_REGION=%s\nexport AWS_REGION=%s\n",
	       settings_get(s, SETTING_REGION), settings_get(s, SETTING_REGION));
	printf(
	    "export AWS_ENDPOINT_URL_EC2=http://%s:%u\nexport AWS_ENDPOINT_URL_STS=http://%s:%u\nexport AWS_ENDPOINT_URL_IAM=http://%s:%u\n",
	    host, api, host, api, host, api);
	printf("export AWS_ENDPOINT_URL_S3=http://%s:%u\nexport AWS_EC2_METADATA_DISABLED=true\n",
	       host, s3);
	printf("unset AWS_PROFILE AWS_SESSION_TOKEN\n");
	printf(
	    "# Debian 12's aws and boto3 ignore AWS_ENDPOINT_URL_* and would call Amazon with these keys: give them --endpoint-url,\n"
	    "# or use `mallee aws`.\n");
}

int cmd_env(int argc, char **argv)
{
	_cleanup_(settings_freep) struct settings *s = NULL;
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const struct admin_account *account;
	const char *name = "default";
	const struct option_spec options[] = {{"--account", NULL, &name}};
	struct error e = {0};

	if (options_parse(argc, argv, options, ARRAY_SIZE(options), NULL, 0, 0) < 0)
		return EXIT_USAGE;
	if (load_settings(&s))
		return 1;
	if (get_account(s, name, a, &account, &e) < 0)
		return command_failed(&e);
	print_env(s, account);
	return 0;
}

/* Options of aws that take a value and may stand before the service's name. */
static bool takes_value(const char *arg)
{
	static const char *const names[] = {"--region",
					    "--output",
					    "--query",
					    "--profile",
					    "--color",
					    "--ca-bundle",
					    "--cli-read-timeout",
					    "--cli-connect-timeout",
					    "--cli-binary-format"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (str_eq(arg, names[i]))
			return true;
	}
	return false;
}

static const char *service_of(int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		if (argv[i][0] != '-')
			return argv[i];
		if (takes_value(argv[i]))
			i++;
	}
	return NULL;
}

static int port_of(const char *service, enum port *ret, struct error *e)
{
	static const struct {
		const char *name;
		enum port port;
	} served[] = {{"ec2", PORT_API},
		      {"sts", PORT_API},
		      {"iam", PORT_API},
		      {"s3", PORT_S3},
		      {"s3api", PORT_S3}};

	for (size_t i = 0; i < ARRAY_SIZE(served); i++) {
		if (str_eq(service, served[i].name)) {
			*ret = served[i].port;
			return 0;
		}
	}
	return error_set(
	    e, "NotServed",
	    "aws %s: this cloud serves ec2, s3, s3api, sts and iam, and nothing is sent to Amazon.",
	    service);
}

static void set_environment(const struct settings *s, const struct admin_account *account)
{
	for (size_t i = 0; i < ARRAY_SIZE(foreign_variables); i++)
		unsetenv(foreign_variables[i]);
	setenv("AWS_ACCESS_KEY_ID", account->access_key_id, 1);
	setenv("AWS_SECRET_ACCESS_KEY", account->secret_access_key, 1);
	setenv("AWS_DEFAULT_REGION", settings_get(s, SETTING_REGION), 1);
	setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
	setenv("AWS_CONFIG_FILE", "/dev/null", 1);
	setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null", 1);
	if (!getenv("AWS_PAGER"))
		setenv("AWS_PAGER", "", 1);
}

/* argv[0] is aws' own first word. Returns only when aws can't be executed. */
static int execute_aws(const struct settings *s, const char *account_name, int argc, char **argv,
		       struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const struct admin_account *account;
	const char *service = service_of(argc, argv);
	const char **args;
	enum port port = PORT_API;
	int n = 0, r = 0;

	if (service && !str_eq(service, "help"))
		r = port_of(service, &port, e);
	if (r == 0)
		r = get_account(s, account_name, a, &account, e);
	if (r < 0)
		return r;
	set_environment(s, account);
	args = arena_new_array(a, const char *, (size_t)argc + 4);
	args[n++] = "aws";
	args[n++] = "--endpoint-url";
	args[n++] = arena_printf(a, "http://%s:%u", public_host(s), settings_port(s, port));
	for (int i = 0; i < argc; i++)
		args[n++] = argv[i];
	execv(AWS_PROGRAM, (char *const *)args);
	return error_errno(e, errno, "Cannot execute " AWS_PROGRAM " (Debian's package awscli)");
}

int cmd_aws(int argc, char **argv)
{
	_cleanup_(settings_freep) struct settings *s = NULL;
	const char *account = "default";
	struct error e = {0};
	int at = 1;

	if (argc > 2 && str_eq(argv[1], "--account")) {
		account = argv[2];
		at = 3;
	}
	if (at >= argc) {
		fprintf(
		    stderr,
		    "usage: mallee aws [--account NAME] SERVICE COMMAND..., e.g. mallee aws ec2 describe-instances\n");
		return EXIT_USAGE;
	}
	for (int i = at; i < argc; i++) {
		if (str_eq(argv[i], "--endpoint-url") || str_prefix(argv[i], "--endpoint-url=") ||
		    str_eq(argv[i], "--profile")) {
			fprintf(
			    stderr,
			    "mallee aws: %s is not yours to give: the cloud sets the endpoint and the keys\n",
			    argv[i]);
			return EXIT_USAGE;
		}
	}
	if (load_settings(&s))
		return 1;
	execute_aws(s, account, argc - at, argv + at, &e);
	return command_failed(&e);
}
