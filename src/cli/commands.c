/* SPDX-License-Identifier: BSD-2-Clause */
/* See commands.h. */
#define _GNU_SOURCE
#include "cli/commands.h"

#include <getopt.h>
#include <stddef.h>

#define OPTIONS_MAX 16

const struct command_info command_info[COMMANDS] = {
#define COMMAND(name, arguments, sentence) {#name, arguments, sentence},
#define OPTION(command, letter, name, argument, sentence)
#include "cli/commands.def"
#undef COMMAND
#undef OPTION
};

const struct option_info option_info[] = {
#define COMMAND(name, arguments, sentence)
#define OPTION(command, letter, name, argument, sentence) {CMD_##command, letter, name, argument, sentence},
#include "cli/commands.def"
#undef COMMAND
#undef OPTION
};
const unsigned option_count = sizeof(option_info) / sizeof(option_info[0]);

int command_option(enum command command, int argc, char **argv, int ordered)
{
	struct option list[OPTIONS_MAX] = {{"help", no_argument, NULL, 'h'}};
	char letters[2 * OPTIONS_MAX + 2] = "+h", *end = letters + 2;
	int n = 1;
	for (unsigned i = 0; i < option_count && n < OPTIONS_MAX - 1; i++) {
		const struct option_info *o = &option_info[i];
		if (o->command != command)
			continue;
		list[n++] = (struct option){o->name, *o->argument ? required_argument : no_argument, NULL, o->letter};
		*end++ = o->letter;
		if (*o->argument)
			*end++ = ':';
	}
	return getopt_long(argc, argv, ordered ? letters : letters + 1, list, NULL);
}
