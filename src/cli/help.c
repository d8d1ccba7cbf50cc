/* SPDX-License-Identifier: BSD-2-Clause */
/* viaduct help [COMMAND|knobs], and viaduct knobs, both from the tables: nothing is written down twice. */
#define _GNU_SOURCE
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "host/knobs.h"

static const char general[] =
    "Usage: viaduct COMMAND ...\n"
    "\n"
    "  run [--profile NAME] [--set KNOB=VALUE] [--rules FILE] [--] PROGRAM [ARGUMENT...]\n"
    "                          run a program and its children with accelerated sockets\n"
    "  stat [PID] [--json] [--explain]\n"
    "                          stacks, their sockets and counters\n"
    "  explain PID             for each socket of a program: is it accelerated, and if not, why\n"
    "  check [--rules FILE] [--json]\n"
    "                          whether the network path will work here, and what mends what it lacks\n"
    "  dump [--pid PID]... [-w FILE] [FILTER]\n"
    "                          the frames that stacks send and receive, as pcapng\n"
    "  knobs [--markdown]      all knobs with their ranges and defaults\n"
    "  help [COMMAND]          more about a command\n"
    "  version\n"
    "\n"
    "stat, explain and check only look: they never stop, slow or change anything.\n";

static const char help_run[] =
    "Usage: viaduct run [--profile NAME] [--set KNOB=VALUE]... [--rules FILE] [--] PROGRAM [ARGUMENT...]\n"
    "\n"
    "Runs PROGRAM, and what it starts, with the library libviaduct.so preloaded. Connections to other programs that\n"
    "run so on this machine go through shared memory; all others are the kernel's, as ever.\n"
    "\n"
    "  --profile NAME       a set of knobs for one purpose (below)\n"
    "  --set KNOB=VALUE     set a knob; may be given several times; wins over the profile\n"
    "  --rules FILE         which sockets to accelerate; without it /etc/viaduct/rules (docs/rules.md)\n"
    "\n"
    "Knobs are environment variables VIADUCT_KNOB too; \"viaduct knobs\" lists them. A knob that does not exist, or a\n"
    "value out of range, is refused before the program starts. LD_PRELOAD keeps what it has.\n"
    "\n"
    "Exit status: the program's; 2 wrong option or knob; 126 the program can't be run, or can't be accelerated "
    "(static,\n"
    "setuid, another architecture or C library); 127 there is no such program.\n";

static const char help_stat[] =
    "Usage: viaduct stat [PID] [--json] [--explain]\n"
    "\n"
    "Shows every stack (or PID's) that you may look at: its processes, its sockets with protocol, state, bytes waiting "
    "to\n"
    "be read and to be acknowledged, addresses and vNIC, its vNICs, and the counters that are not zero.\n"
    "\n"
    "  --json      the same as one JSON object\n"
    "  --explain   all counters, each with a sentence that says what it counts\n"
    "\n"
    "Exit status: 0; 1 there is no stack, or you may not look at it; 2 wrong option.\n";

static const char help_explain[] =
    "Usage: viaduct explain PID\n"
    "\n"
    "Says for each socket of the process whether it is accelerated and over what, or, in one sentence, why not.\n"
    "\n"
    "Exit status: 0; 1 no such process, you may not look at it, or it does not run under viaduct; 2 wrong option.\n";

static const char help_check[] =
    "Usage: viaduct check [--rules FILE] [--json]\n"
    "\n"
    "Says what this machine and this user can do: kernel, rights, viaductd, limits, interfaces with their XDP mode, "
    "queues\n"
    "and offloads, and the file of rules, with line numbers. Below each lack stands what mends it. It changes "
    "nothing.\n"
    "\n"
    "  --rules FILE   check this file of rules; without it /etc/viaduct/rules\n"
    "  --json         the same as one JSON object\n"
    "\n"
    "Exit status: 0 connections over the network will be accelerated; 1 they will not; 2 wrong option.\n";

static const char help_dump[] =
    "Usage: viaduct dump [--pid PID]... [-w FILE] [-s BYTES] [-c COUNT] [--pcap] [-q] [FILTER]\n"
    "\n"
    "Writes the frames that stacks send and receive, each with its direction, stack and process, in the format "
    "pcapng.\n"
    "Without --pid all stacks that you may look at, those of programs that start later too. FILTER is as tcpdump's\n"
    "(pcap-filter(7)). For example: viaduct dump tcp port 6379 | tcpdump -n -r -\n"
    "\n"
    "  --pid PID    only stacks of this process; may be given several times\n"
    "  -w FILE      write to FILE; without it, or with \"-\", to standard output\n"
    "  -s BYTES     at most so many bytes of each frame\n"
    "  -c COUNT     end after so many frames\n"
    "  --pcap       the old format pcap, without directions and names\n"
    "  -q           no news on standard error\n"
    "\n"
    "A frame between two programs is there twice: as sent by one stack and as received by the other. On such wires\n"
    "checksums are not filled in (tcpdump -K does not check them). No program waits for a capture: frames that come\n"
    "faster than they are written are lost to it, and counted. One capture of a stack at a time.\n"
    "\n"
    "Exit status: 0; 1 nothing to capture, or the output can't be written; 2 wrong option or filter.\n";

static const char help_knobs[] =
    "Usage: viaduct knobs [--markdown]\n"
    "\n"
    "Lists all knobs. Set one with \"viaduct run --set KNOB=VALUE\" or as environment variable\n"
    "VIADUCT_KNOB. --markdown prints docs/knobs.md.\n";

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
	static const struct option options[] = {{"markdown", no_argument, NULL, 'm'}, {NULL, 0, NULL, 0}};
	int markdown = 0, c;
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
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
		fputs(general, stdout);
	} else if (!strcmp(topic, "run")) {
		fputs(help_run, stdout);
		print_profiles();
	} else if (!strcmp(topic, "stat")) {
		fputs(help_stat, stdout);
	} else if (!strcmp(topic, "explain")) {
		fputs(help_explain, stdout);
	} else if (!strcmp(topic, "dump")) {
		fputs(help_dump, stdout);
	} else if (!strcmp(topic, "check")) {
		fputs(help_check, stdout);
	} else if (!strcmp(topic, "knobs")) {
		fputs(help_knobs, stdout);
	} else {
		return cli_error(EXIT_USAGE,
				 "there is no help on \"%s\"; there is on run, stat, explain, check, dump and knobs",
				 topic);
	}
	return EXIT_OK;
}
