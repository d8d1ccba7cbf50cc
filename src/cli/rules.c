/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of rules as `viaduct run` and `viaduct check` read them: every error is told, with its line (host/rules.h). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "host/rules.h"

struct file {
	const char *path;
	size_t len;
	char text[RULES_TEXT_MAX];
};

static void tell(void *arg, const struct rules_error *error)
{
	const struct file *f = arg;
	char out[1024];
	rules_explain(f->path, f->text, f->len, error, out, sizeof(out));
	fprintf(stderr, "%s\n", out);
}

int cli_rules_check(const char *path)
{
	static struct file f;
	static struct rules r;
	int n = rules_read(path ? path : RULES_FILE_DEFAULT, f.text, sizeof(f.text));
	if (n == -ENOENT && !path)
		return EXIT_OK;
	f.path = path ? path : RULES_FILE_DEFAULT;
	if (n < 0)
		return cli_error(EXIT_USAGE, "can't read the rules in %s: %s", f.path, strerror(-n));
	f.len = (size_t)n;
	return rules_parse(&r, f.text, f.len, tell, &f) ? EXIT_USAGE : EXIT_OK;
}
