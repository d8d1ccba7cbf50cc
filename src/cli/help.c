/* SPDX-License-Identifier: BSD-2-Clause */
/* viaduct help [COMMAND|knobs], and viaduct knobs, both from the tables: nothing is written down twice. */
#define _GNU_SOURCE
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "host/knobs.h"

#define SENTENCES 26 /* column in which they begin */

/* What stands before and behind the list of options. */
static const struct {
	const char *before, *after;
} help[COMMANDS] = {
    [CMD_run] =
	{"Runs PROGRAM, and what it starts, with the library libviaduct.so preloaded. Connections to other\n"
	 "programs that run so on this machine go through shared memory; those to other machines through AF_XDP\n"
	 "where viaductd runs or can be started; all others are the kernel's, as ever.\n",
	 "Knobs are environment variables VIADUCT_KNOB too; \"viaduct knobs\" lists them. A knob that does not\n"
	 "exist, or a value out of range, is refused before the program starts, and so are wrong rules.\n"
	 "LD_PRELOAD keeps what it has.\n"
	 "\n"
	 "Exit status: the program's; 2 wrong option, knob or rule; 126 the program can't be run, or can't be\n"
	 "accelerated (static, Go, setuid, another architecture or C library); 127 there is no such program.\n"},
    [CMD_stat] =
	{"Shows every stack (or PID's) that you may look at: its processes, its sockets with protocol, state,\n"
	 "bytes waiting to be read and to be acknowledged, addresses and vNIC, its vNICs, and the counters that\n"
	 "are not zero.\n",
	 "Exit status: 0; 1 there is no stack, or you may not look at it; 2 wrong option.\n"},
    [CMD_explain] =
	{"Says for each socket of the process whether it is accelerated and over what, or, in one sentence,\n"
	 "why not.\n",
	 "Exit status: 0; 1 no such process, you may not look at it, or it does not run under viaduct; 2 wrong\n"
	 "option.\n"},
    [CMD_check] =
	{"Says what this machine and this user can do: kernel, rights, viaductd, limits, interfaces with their\n"
	 "XDP mode, queues and offloads, and the file of rules, with line numbers. Below each lack stands what\n"
	 "mends it. It changes nothing.\n",
	 "Exit status: 0 connections over the network will be accelerated; 1 they will not; 2 wrong option.\n"},
    [CMD_dump] =
	{"Writes the frames that stacks send and receive, each with its direction, stack and process, in the\n"
	 "format pcapng. Without --pid all stacks that you may look at, those of programs that start later too.\n"
	 "FILTER is as tcpdump's (pcap-filter(7)). For example: viaduct dump tcp port 6379 | tcpdump -K -n -r -\n",
	 "A frame between two programs is there twice: as sent by one stack and as received by the other. On such\n"
	 "wires checksums are not filled in (tcpdump -K does not check them). No program waits for a capture:\n"
	 "frames that come faster than they are written are lost to it, and counted. One capture of a stack at a\n"
	 "time.\n"
	 "\n"
	 "Exit status: 0; 1 nothing to capture, or the output can't be written; 2 wrong option or filter.\n"},
    [CMD_knobs] = {"Lists all knobs. Set one with \"viaduct run --set KNOB=VALUE\" or as environment variable\n"
		   "VIADUCT_KNOB.\n",
		   "Exit status: 0; 2 wrong option.\n"},
};

static void print_general(void)
{
	puts("Usage: viaduct COMMAND ...\n");
	for (unsigned i = 0; i < COMMANDS; i++) {
		const struct command_info *c = &command_info[i];
		int n = printf("  %s%s%s", c->name, *c->arguments ? " " : "", c->arguments);
		if (n > SENTENCES - 2)
			n = printf("\n") - 1;
		printf("%*s%s\n", SENTENCES - n, "", c->sentence);
	}
	puts("\nstat, explain and check only look: they never stop, slow or change anything.");
}

/* "--profile NAME", or "-w FILE" of one that is known by its letter. */
static int option_text(const struct option_info *o, char *out, size_t len)
{
	bool by_letter = o->command == CMD_dump && strchr("wscq", o->letter);
	return by_letter ? snprintf(out, len, "-%c%s%s", o->letter, *o->argument ? " " : "", o->argument)
			 : snprintf(out, len, "--%s%s%s", o->name, *o->argument ? " " : "", o->argument);
}

static void print_help(enum command command)
{
	char text[64];
	int width = 0;
	printf("Usage: viaduct %s %s\n\n%s\n", command_info[command].name, command_info[command].arguments,
	       help[command].before);
	for (unsigned i = 0; i < option_count; i++) {
		int n = option_info[i].command == command ? option_text(&option_info[i], text, sizeof(text)) : 0;
		width = n > width ? n : width;
	}
	for (unsigned i = 0; i < option_count; i++) {
		if (option_info[i].command != command)
			continue;
		option_text(&option_info[i], text, sizeof(text));
		printf("  %-*s   %s\n", width, text, option_info[i].sentence);
	}
	printf("%s%s", width ? "\n" : "", help[command].after);
}

static void print_profiles(void)
{
	char names[PROFILE_COUNT][32];
	puts("\nProfiles:");
	for (unsigned p = 0; p < PROFILE_COUNT; p++) {
		knob_format(K_PROFILE, p, names[p], sizeof(names[p]));
		printf("  %-11s %s\n", names[p], profile_sentence[p]);
		for (unsigned i = 0; i < knob_override_count; i++) {
			char value[40];
			if (knob_overrides[i].profile != p)
				continue;
			knob_format(knob_overrides[i].knob, knob_overrides[i].value, value, sizeof(value));
			printf("  %-11s   %s=%s\n", "", knob_info[knob_overrides[i].knob].name, value);
		}
	}
}

static void range_text(const struct knob_info *k, char *out, size_t len)
{
	if (k->type == KNOB_UINT)
		snprintf(out, len, "%llu to %llu%s%s", (unsigned long long)k->low, (unsigned long long)k->high,
			 *k->unit ? " " : "", k->unit);
	else
		snprintf(out, len, "%s", k->type == KNOB_BOOL ? "0 or 1" : k->type == KNOB_PATH ? "a path" : k->unit);
}

static void print_knobs(void)
{
	puts("Knobs (set with viaduct run --set KNOB=VALUE, or as environment variable VIADUCT_KNOB):\n");
	for (int k = 0; k < KNOB_COUNT; k++) {
		char range[80], def[40];
		range_text(&knob_info[k], range, sizeof(range));
		knob_format((enum knob)k, knob_info[k].def, def, sizeof(def));
		printf("  %s = %s (%s)\n      %s\n", knob_info[k].name, def, range, knob_info[k].sentence);
	}
}

/* A table's cell can't have a bare bar. */
static void print_cell(const char *text)
{
	for (; *text; text++)
		printf(*text == '|' ? " \\| " : "%c", *text);
}

static void print_markdown(void)
{
	puts("# Knobs\n\n"
	     "This page is printed by `viaduct knobs --markdown` from the one table in `src/host/knobs.def`.\n\n"
	     "Each knob is an environment variable `VIADUCT_<KNOB>`; `viaduct run --set KNOB=VALUE` sets it for one "
	     "program. The\n"
	     "profile comes first, then each knob that is set.\n\n"
	     "| knob | values | default | what it does |\n|---|---|---|---|");
	for (int k = 0; k < KNOB_COUNT; k++) {
		char range[80], def[40];
		range_text(&knob_info[k], range, sizeof(range));
		knob_format((enum knob)k, knob_info[k].def, def, sizeof(def));
		printf("| `%s` | ", knob_info[k].name);
		print_cell(range);
		printf(" | %s | %s |\n", def, knob_info[k].sentence);
	}
	puts("\n## Profiles\n\n| profile | what for | knobs |\n|---|---|---|");
	for (unsigned p = 0; p < PROFILE_COUNT; p++) {
		char value[40];
		const char *between = "";
		knob_format(K_PROFILE, p, value, sizeof(value));
		printf("| `%s` | %s | ", value, profile_sentence[p]);
		for (unsigned i = 0; i < knob_override_count; i++) {
			if (knob_overrides[i].profile != p)
				continue;
			knob_format(knob_overrides[i].knob, knob_overrides[i].value, value, sizeof(value));
			printf("%s`%s=%s`", between, knob_info[knob_overrides[i].knob].name, value);
			between = ", ";
		}
		puts(" |");
	}
}

int cmd_knobs(int argc, char **argv)
{
	int markdown = 0, c;
	while ((c = command_option(CMD_knobs, argc, argv, 0)) >= 0) {
		if (c == 'h')
			return cmd_help(2, (char *[]){"help", "knobs"});
		if (c != 'm')
			return cli_usage("knobs");
		markdown = 1;
	}
	if (optind < argc)
		return cli_usage("knobs");
	if (markdown) {
		print_markdown();
	} else {
		print_knobs();
		print_profiles();
	}
	return EXIT_OK;
}

int cmd_help(int argc, char **argv)
{
	const char *topic = argc > 1 ? argv[1] : "";
	if (!*topic) {
		print_general();
		return EXIT_OK;
	}
	for (unsigned i = 0; i < COMMANDS; i++) {
		if (strcmp(topic, command_info[i].name) || !help[i].before)
			continue;
		print_help((enum command)i);
		if (i == CMD_run)
			print_profiles();
		return EXIT_OK;
	}
	return cli_error(EXIT_USAGE, "there is no help on \"%s\"; the commands are%s", topic, cli_command_names());
}
