/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viaduct check: whether programs of this user could use the network path here, and what would mend each lack. It only
 * looks: no program is loaded, no interface touched, nothing started. The sections are in check_host.c and check_net.c.
 */
#define _GNU_SOURCE
#include "cli/check.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/json.h"

static const char *const level_name[] = {[LEVEL_OK] = "ok", [LEVEL_NOTE] = "note", [LEVEL_LACK] = "lack"};

void check_add(struct check *c, enum level level, const char *mend, const char *format, ...)
{
	va_list args;
	if (c->count == FINDINGS_MAX)
		return;
	struct finding *f = &c->list[c->count++];
	c->lacks += level == LEVEL_LACK;
	f->section = c->section;
	f->level = level;
	snprintf(f->mend, sizeof(f->mend), "%s", mend ? mend : "");
	va_start(args, format);
	vsnprintf(f->text, sizeof(f->text), format, args);
	va_end(args);
}

static void print_text(const struct check *c)
{
	const char *section = "";
	for (unsigned i = 0; i < c->count; i++) {
		const struct finding *f = &c->list[i];
		if (strcmp(section, f->section))
			puts(f->section);
		section = f->section;
		printf("  %-5s ", level_name[f->level]);
		for (const char *p = f->text; *p; p++)
			fputs(*p == '\n' ? "\n        " : (char[2]){*p}, stdout);
		printf(*f->mend ? "\n        mend: %s\n" : "\n", f->mend);
	}
	puts(c->lacks ? "\nThe network path will not work: see each \"lack\" above. Between programs on this machine "
			"nothing of it is needed."
		      : "\nThe network path will work.");
}

static void print_json(const struct check *c)
{
	json_open(NULL, '{');
	json_bool("network", !c->lacks);
	json_open("findings", '[');
	for (unsigned i = 0; i < c->count; i++) {
		json_open(NULL, '{');
		json_string("section", c->list[i].section);
		json_string("level", level_name[c->list[i].level]);
		json_string("text", c->list[i].text);
		if (*c->list[i].mend)
			json_string("mend", c->list[i].mend);
		json_close('}');
	}
	json_close(']');
	json_open("interfaces", '[');
	for (int i = 0; i < c->devs; i++) {
		const struct netdev *d = &c->dev[i];
		json_open(NULL, '{');
		json_string("name", d->name);
		json_string("kind", d->kind);
		json_string("driver", d->driver);
		json_number("mtu", d->mtu);
		json_number("queues", d->queues);
		json_bool("xdp_native", d->xdp & NETDEV_XDP_BASIC);
		json_bool("xdp_zerocopy", d->xdp & NETDEV_XDP_ZEROCOPY);
		json_bool("xdp_scatter", d->xdp & NETDEV_XDP_RX_SG);
		json_close('}');
	}
	json_close(']');
	json_close('}');
}

int cmd_check(int argc, char **argv)
{
	static struct check c;
	const char *rules = NULL;
	bool json = false;
	int o;
	while ((o = command_option(CMD_check, argc, argv, 0)) >= 0) {
		if (o == 'h')
			return cmd_help(2, (char *[]){"help", "check"});
		if (o == '?')
			return cli_usage("check");
		json |= o == 'j';
		if (o == 'r')
			rules = optarg;
	}
	if (optind < argc) {
		cli_error(EXIT_USAGE, "check takes no \"%s\"", argv[optind]);
		return cli_usage("check");
	}
	check_kernel(&c);
	check_user(&c);
	check_daemon(&c);
	check_driver(&c);
	check_limits(&c);
	check_interfaces(&c);
	check_rules(&c, rules);
	if (json)
		print_json(&c);
	else
		print_text(&c);
	return c.lacks ? EXIT_FAILED : EXIT_OK;
}
