/* SPDX-License-Identifier: BSD-2-Clause */
/* viaduct COMMAND ...: finds the subcommand. See cli.h. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static int cmd_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	puts("viaduct " VIADUCT_VERSION);
	return EXIT_OK;
}

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
    {"run", cmd_run},     {"stat", cmd_stat},   {"explain", cmd_explain},   {"check", cmd_check},
    {"dump", cmd_dump},   {"knobs", cmd_knobs}, {"help", cmd_help},         {"version", cmd_version},
    {"--help", cmd_help}, {"-h", cmd_help},     {"--version", cmd_version},
};

int cli_error(int status, const char *format, ...)
{
	va_list args;
	fputs("viaduct: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return status;
}

int cli_usage(const char *command)
{
	fprintf(stderr, "Type \"viaduct help %s\" for what it takes.\n", command);
	return EXIT_USAGE;
}

int cli_pid(const char *text)
{
	char *end;
	long pid = strtol(text, &end, 10);
	return *text && !*end && pid > 0 && pid < 1 << 30 ? (int)pid : -1;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		cmd_help(1, argv);
		return EXIT_USAGE;
	}
	for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	cli_error(EXIT_USAGE,
		  "there is no command \"%s\"; there are run, stat, explain, check, dump, knobs, help and version",
		  argv[1]);
	return EXIT_USAGE;
}
