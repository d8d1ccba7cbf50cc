/* SPDX-License-Identifier: BSD-2-Clause */
/* viaduct COMMAND ...: finds the subcommand. See cli.h. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"

static int cmd_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	puts("viaduct " VIADUCT_VERSION);
	return EXIT_OK;
}

static int (*const run[COMMANDS])(int argc, char **argv) = {
#define COMMAND(name, arguments, sentence) [CMD_##name] = cmd_##name,
#define OPTION(command, letter, name, argument, sentence)
#include "cli/commands.def"
#undef COMMAND
#undef OPTION
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

const char *cli_command_names(void)
{
	static char names[128];
	size_t len = 0;
	for (unsigned i = 0; i < COMMANDS; i++)
		len += (size_t)snprintf(names + len, sizeof(names) - len, "%s %s",
					!i                 ? ""
					: i + 1 < COMMANDS ? ","
							   : " and",
					command_info[i].name);
	return names;
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
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return cmd_help(argc - 1, argv + 1);
	if (!strcmp(argv[1], "--version"))
		return cmd_version(argc - 1, argv + 1);
	for (unsigned i = 0; i < COMMANDS; i++)
		if (!strcmp(argv[1], command_info[i].name))
			return run[i](argc - 1, argv + 1);
	cli_error(EXIT_USAGE, "there is no command \"%s\"; there are%s", argv[1], cli_command_names());
	return EXIT_USAGE;
}
