/* SPDX-License-Identifier: BSD-2-Clause */
/* The written form of programs. Used by play.c; tests/differential/differential.py removes lines from it. */
#include "play.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

static const struct {
	const char *name, *arguments;
	int n;
} ops[] = {
#define OP(name, n, what) {#name, what, n},
#include "ops.def"
#undef OP
};

const struct option options[] = {
#define OPTION(level, name) {level, name, #name},
#include "options.def"
#undef OPTION
};
const int n_options = sizeof options / sizeof *options;

static bool read_step(const char *line, struct step *s)
{
	char name[16];
	int used, n;

	if (sscanf(line, "%d %15s%n", &s->actor, name, &used) != 2 || s->actor < 0 || s->actor >= ACTORS)
		return false;
	for (s->op = 0; s->op < OPS && strcmp(ops[s->op].name, name) != 0; s->op++)
		;
	if (s->op == OPS)
		return false;
	for (int i = 0; i < ops[s->op].n; i++, line += n) {
		line += i ? 0 : used;
		if (sscanf(line, "%d%n", &s->a[i], &n) != 1)
			return false;
	}
	return true;
}

bool program_read(FILE *in, struct program *p)
{
	char line[200];

	memset(p, 0, sizeof *p);
	while (fgets(line, sizeof line, in)) {
		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (p->n == STEPS_MAX || !read_step(line, &p->step[p->n++])) {
			fprintf(stderr, "not a step: %s", line);
			return false;
		}
	}
	return true;
}

void program_write(FILE *out, const struct program *p)
{
	for (int i = 0; i < p->n; i++) {
		const struct step *s = &p->step[i];

		fprintf(out, "%d %s", s->actor, ops[s->op].name);
		for (int j = 0; j < ops[s->op].n; j++)
			fprintf(out, " %d", s->a[j]);
		fputc('\n', out);
	}
}

void program_list_ops(FILE *out)
{
	for (int i = 0; i < OPS; i++)
		fprintf(out, "%-10s %s\n", ops[i].name, ops[i].arguments);
	fprintf(out, "\noptions:");
	for (int i = 0; i < n_options; i++)
		fprintf(out, " %d %s,", i, options[i].text);
	fputc('\n', out);
}
