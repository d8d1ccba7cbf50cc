/* SPDX-License-Identifier: BSD-2-Clause */
/* See policy.h. */
#include "daemon/policy.h"

#include <errno.h>
#include <pwd.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum kind { FLAG, NUMBER, USER, INTERFACE, FILE_NAME, HELP };

struct setting {
	const char *name;
	enum kind kind;
	size_t at;       /* in struct policy: the value, or the list */
	size_t count_at; /* of a list: how many */
	uint32_t low, high;
	const char *argument, *help;
};

#define AT(field) offsetof(struct policy, field)

static const struct setting settings[] = {
    {"interface", INTERFACE, AT(interface), AT(interfaces), 0, 0, "NAME",
     "an interface that programs may use; once or more; without it all"},
    {"user", USER, AT(user), AT(users), 0, 0, "NAME", "a user who may use the network; once or more; without it all"},
    {"direct", USER, AT(direct), AT(directs), 0, 0, "NAME",
     "a user who, as root, gets the interface's own queues and may send whatever frames he likes"},
    {"veth-only", FLAG, AT(veth_only), 0, 0, 0, NULL, "nobody gets the interface's own queues, root neither"},
    {"own-queues", INTERFACE, AT(own_queues), AT(own_queues_count), 0, 0, "NAME",
     "an interface whose receive queues that its RSS leaves out are for one process each; flow rules to them are ours"},
    {"share", FLAG, AT(share), 0, 0, 0, NULL, "attach by libxdp's dispatcher, so that other XDP programs fit in"},
    {"native", FLAG, AT(native), 0, 0, 0, NULL, "XDP in the driver also on a veth, where generic XDP is faster"},
    {"stacks", NUMBER, AT(stacks), 0, 1, 1024, "N", "processes (with what they fork) of one user at once, 64"},
    {"filters", NUMBER, AT(filters), 0, 1, 65535, "N", "ports and flows of one process at once, 16384"},
    {"transient", FLAG, AT(transient), 0, 0, 0, NULL, "leave when nobody uses the network any more"},
    {"config", FILE_NAME, 0, 0, 0, 0, "FILE",
     "lines of `name value` with the names above, # begins a comment; " POLICY_FILE " if it exists"},
    {"help", HELP, 0, 0, 0, 0, NULL, "this text"},
};
#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

void policy_defaults(struct policy *p)
{
	*p = (struct policy){.stacks = 64, .filters = 16384};
}

static void help(void)
{
	puts("usage: viaductd [OPTION]...\n\n"
	     "Lets programs that run under viaduct send and receive on this network namespace's interfaces.\n");
	for (size_t i = 0; i < SETTINGS; i++) {
		char option[40];

		snprintf(option, sizeof(option), "--%s%s%s", settings[i].name, settings[i].argument ? " " : "",
			 settings[i].argument ? settings[i].argument : "");
		printf("  %-18s %s\n", option, settings[i].help);
	}
}

static const struct setting *find(const char *name)
{
	for (size_t i = 0; i < SETTINGS; i++)
		if (!strcmp(settings[i].name, name))
			return &settings[i];
	return NULL;
}

static const char *set_number(const char *value, uint32_t low, uint32_t high, uint32_t *out)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	if (!*value || *value == '-' || *end || n < low || n > high)
		return "is no number within bounds";
	*out = (uint32_t)n;
	return NULL;
}

static const char *add_user(const char *value, uint32_t *list, uint32_t *count)
{
	const struct passwd *pw;

	if (*count == POLICY_NAMES)
		return "is one too many";
	if (!set_number(value, 0, UINT32_MAX - 1, &list[*count])) {
		++*count;
		return NULL;
	}
	pw = getpwnam(value);
	if (!pw)
		return "is no user here";
	list[(*count)++] = pw->pw_uid;
	return NULL;
}

static const char *add_interface(const char *value, char (*list)[16], uint32_t *count)
{
	if (*count == POLICY_NAMES)
		return "is one too many";
	if (!*value || strlen(value) >= sizeof(list[0]))
		return "can't be an interface's name";
	memcpy(list[(*count)++], value, strlen(value) + 1);
	return NULL;
}

static const char *apply(struct policy *p, const struct setting *s, const char *value)
{
	char *base = (char *)p;

	if (!value && s->kind != FLAG)
		return "needs a value";
	switch (s->kind) {
	case FLAG:
		*(bool *)(base + s->at) = true;
		return NULL;
	case NUMBER:
		return set_number(value, s->low, s->high, (uint32_t *)(base + s->at));
	case USER:
		return add_user(value, (uint32_t *)(base + s->at), (uint32_t *)(base + s->count_at));
	case INTERFACE:
		return add_interface(value, (char(*)[16])(base + s->at), (uint32_t *)(base + s->count_at));
	default:
		return "is for the command line";
	}
}

const char *policy_line(struct policy *p, char *line)
{
	char *rest, *name, *value;
	const struct setting *s;

	line[strcspn(line, "#\n")] = 0;
	name = strtok_r(line, " \t\r", &rest);
	if (!name)
		return NULL;
	value = strtok_r(NULL, " \t\r", &rest);
	s = find(name);
	if (!s || s->kind == HELP || s->kind == FILE_NAME)
		return "no such setting";
	if (value && !s->argument)
		return "takes no value";
	if (strtok_r(NULL, " \t\r", &rest))
		return "one value only";
	return apply(p, s, value);
}

static int read_file(struct policy *p, const char *path, bool must_exist)
{
	FILE *file = fopen(path, "re");
	char line[256];
	int number = 0;
	const char *wrong = NULL;

	if (!file) {
		if (!must_exist && errno == ENOENT)
			return 0;
		fprintf(stderr, "viaductd: %s: %s\n", path, strerror(errno));
		return -EINVAL;
	}
	while (!wrong && fgets(line, sizeof(line), file)) {
		number++;
		wrong = policy_line(p, line);
	}
	fclose(file);
	if (wrong)
		fprintf(stderr, "viaductd: %s:%d: %s\n", path, number, wrong);
	return wrong ? -EINVAL : 0;
}

/* The setting that an argument names, and its value: after = or the next argument. */
static const struct setting *option(char **argv, int *i, const char **value)
{
	char name[32];
	const char *text = argv[*i], *equals = strchr(text, '=');
	size_t len = equals ? (size_t)(equals - text) : strlen(text);
	const struct setting *s;

	*value = NULL;
	if (len < 3 || len - 2 >= sizeof(name) || strncmp(text, "--", 2) != 0)
		return NULL;
	memcpy(name, text + 2, len - 2);
	name[len - 2] = 0;
	s = find(name);
	if (!s || !s->argument != !equals) {
		if (!s || equals || !argv[*i + 1])
			return NULL;
		*value = argv[++*i];
	} else if (equals) {
		*value = equals + 1;
	}
	return s;
}

int policy_read(struct policy *p, int argc, char **argv)
{
	const char *file = NULL;

	policy_defaults(p);
	for (int i = 1; i < argc; i++) {
		int at = i;
		const char *value, *wrong = "unknown option, or its value is missing (viaductd --help)";
		const struct setting *s = option(argv, &i, &value);

		if (s && s->kind == HELP) {
			help();
			return 1;
		}
		if (s && s->kind == FILE_NAME) {
			file = value;
			continue;
		}
		if (s)
			wrong = apply(p, s, value);
		if (wrong) {
			fprintf(stderr, "viaductd: %s: %s\n", argv[at], wrong);
			return -EINVAL;
		}
	}
	return read_file(p, file ? file : POLICY_FILE, file != NULL);
}

static bool named(const char (*list)[16], uint32_t count, const char *name)
{
	for (uint32_t i = 0; i < count; i++)
		if (!strcmp(list[i], name))
			return true;
	return false;
}

bool policy_interface(const struct policy *p, const char *name)
{
	return !p->interfaces || named(p->interface, p->interfaces, name);
}

bool policy_own_queues(const struct policy *p, const char *name)
{
	return named(p->own_queues, p->own_queues_count, name);
}

static bool listed(const uint32_t *list, uint32_t count, uint32_t uid)
{
	for (uint32_t i = 0; i < count; i++)
		if (list[i] == uid)
			return true;
	return false;
}

bool policy_user(const struct policy *p, uint32_t uid)
{
	return uid == 0 || !p->users || listed(p->user, p->users, uid) || listed(p->direct, p->directs, uid);
}

bool policy_direct(const struct policy *p, uint32_t uid, bool licence)
{
	return !p->veth_only && (uid == 0 || licence || listed(p->direct, p->directs, uid));
}
