/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/text.h"
#include "cmd/cmd_priv.h"
#include "gen/ec2.h"
#include "gen/iam.h"
#include "gen/s3.h"
#include "gen/sts.h"

static const struct wire_service *const served[] = {&ec2_service, &s3_service, &sts_service,
						    &iam_service};

static size_t known_count(const struct wire_service *s)
{
	size_t n = 0;

	while (s->known_actions && s->known_actions[n])
		n++;
	return n;
}

static void print_service(const struct wire_service *s)
{
	printf("%s %s: %zu of %zu actions\n", s->name, s->api_version, s->action_count,
	       known_count(s));
	for (size_t i = 0; i < s->action_count; i++)
		printf("  %s\n", s->actions[i].name);
}

int cmd_api(int argc, char **argv)
{
	const char *words[2];
	int count = options_parse(argc, argv, NULL, 0, words, 0, 1);
	bool found = false;

	if (count < 0)
		return EXIT_USAGE;
	for (size_t i = 0; i < ARRAY_SIZE(served); i++) {
		if (count == 1 && !str_eq(words[0], served[i]->name))
			continue;
		print_service(served[i]);
		found = true;
	}
	if (!found) {
		fprintf(stderr,
			"mallee api: there is no service \"%s\"; there are ec2, s3, sts, iam\n",
			words[0]);
		return EXIT_USAGE;
	}
	return 0;
}
