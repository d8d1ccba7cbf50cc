/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rules of this process: read once, before main, from the file that knob RULES names, without allocation. A file
 * that is missing is an error only if it was asked for; one that is wrong always is, as a wrong knob: nothing is
 * accelerated then, because nobody knows what was meant. See rules.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host/host.h"
#include "host/knobs.h"
#include "host/rules.h"

const char rules_builtin[] = "kernel port=53 # DNS: one datagram each way, often to a resolver on this machine\n";

static struct rules ours;
static char file[128]; /* for tools: a longer path is cut */

struct first_error {
	struct rules_error error;
	bool any;
};

static void keep_first(void *arg, const struct rules_error *error)
{
	struct first_error *f = arg;

	if (!f->any)
		f->error = *error;
	f->any = true;
}

int rules_read(const char *path, char *text, size_t room)
{
	size_t len = 0;
	ssize_t n = 1;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	while (len < room && n > 0) {
		n = host_sys.read(fd, text + len, room - len);
		if (n > 0)
			len += (size_t)n;
		else if (n < 0 && errno == EINTR)
			n = 1;
	}
	if (n < 0)
		n = -errno;
	else if (n > 0)
		n = -EFBIG;
	host_sys.close(fd);
	return n < 0 ? (int)n : (int)len;
}

static int load_text(const char *path, const char *text, size_t len, char *err, size_t err_len)
{
	struct first_error first = {.any = false};
	char exe[256];
	ssize_t n;

	if (rules_parse(&ours, text, len, keep_first, &first)) {
		ours.count = 0;
		rules_explain(path, text, len, &first.error, err, err_len);
		return -EINVAL;
	}
	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	exe[n > 0 ? n : 0] = 0;
	rules_keep(&ours, exe, program_invocation_short_name);
	return 0;
}

int rules_load(char *err, size_t err_len)
{
	const char *path = (const char *)(uintptr_t)knob[K_RULES];
	bool asked = path != NULL;
	char text[RULES_TEXT_MAX];
	int n;

	if (!asked)
		path = RULES_FILE_DEFAULT;
	n = rules_read(path, text, sizeof(text));
	if (n < 0 && (asked || n != -ENOENT)) {
		snprintf(err, err_len, "can't read the rules in %s: %s", path, strerror(-n));
		return n;
	}
	if (n < 0)
		return load_text("built-in rules", rules_builtin, strlen(rules_builtin), err, err_len);
	snprintf(file, sizeof(file), "%.127s", path);
	return load_text(path, text, (size_t)n, err, err_len);
}

const char *rules_file(void)
{
	return file;
}

uint32_t rules_refuse(enum sock_proto proto, enum rule_role role, const struct endpoint *server)
{
	const struct rule *r = rules_match(&ours, proto, role, server);

	return r && r->action == RULE_KERNEL ? r->line : 0;
}
