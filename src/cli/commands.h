/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of commands and options (commands.def), for the command and for viaduct-dump. */
#ifndef VD_CLI_COMMANDS_H
#define VD_CLI_COMMANDS_H

enum command {
#define COMMAND(name, arguments, sentence) CMD_##name,
#define OPTION(command, letter, name, argument, sentence)
#include "cli/commands.def"
#undef COMMAND
#undef OPTION
	COMMANDS
};

struct command_info {
	const char *name, *arguments, *sentence;
};
extern const struct command_info command_info[COMMANDS];

struct option_info {
	enum command command;
	char letter;
	const char *name, *argument, *sentence;
};
extern const struct option_info option_info[];
extern const unsigned option_count;

/* getopt_long over the command's options, all of them also by their letter, up to the first word that is none if
 * `ordered`. The letter, 'h' for help, '?' wrong (getopt has said so), -1 at the end. */
int command_option(enum command command, int argc, char **argv, int ordered);

#endif
