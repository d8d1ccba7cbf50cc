/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * play FIRST COUNT, play -f FILE: plays programs of socket calls and prints what came of each step, a line for each:
 *   STEP: OUTCOME | what is ready, actor 0 | actor 1
 * play --show SEED prints a program, play --ops what steps there are.
 *
 * With --expect FILE, another's transcript of the same programs, each step waits until what is ready is what the other
 * saw (--patience at most, in ms): time is the only tolerance. The first step of a program that comes out otherwise
 * ends it, with a line "differs". So steps begin in the same state on both stacks, and no outcome depends on how fast a
 * frame is.
 *
 * The actors are two processes (act.c), on one core with the conductor. A step takes effect before the next is told.
 */
#include "play.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FIRST_PORT 2000
#define LAST_PORT 32000  /* the kernel gives out those above */
#define HELD_BACK_MS 260 /* for which the kernel holds data back at most */
#define CALL_MS 4000
#define LINE_MAX_ (3 * TEXT_MAX)

static struct {
	int to, from;
	pid_t pid;
} actors[ACTORS];
static FILE *expected;
static struct program current; /* the step that is under way */
static int patience_ms = 1500;
static int first_port; /* of the program's ports */

static void start_actors(void)
{
	int down[2], up[2];

	for (int i = 0; i < ACTORS; i++) {
		if (pipe(down) < 0 || pipe(up) < 0)
			exit(2);
		/* out of the way of the descriptors whose numbers are compared */
		actors[i].pid = fork();
		if (!actors[i].pid) {
			int from = dup2(down[0], 300), to = dup2(up[1], 301);

			for (int fd = 3; fd < 100; fd++)
				close(fd);
			act(from, to);
		}
		close(down[0]);
		close(up[1]);
		actors[i].to = down[1];
		actors[i].from = up[0];
	}
}

/* An answer's text, without the newline. A call that does not return is interrupted, then given up. */
static void hear(int i, char *text)
{
	struct pollfd p = {actors[i].from, POLLIN, 0};
	size_t n = 0;
	ssize_t r;

	for (int tries = 0; poll(&p, 1, CALL_MS) == 0; tries++) {
		if (tries == 2) {
			printf("actor %d is stuck in\n", i);
			program_write(stdout, &current);
			exit(3);
		}
		kill(actors[i].pid, SIGALRM);
	}
	do {
		r = read(actors[i].from, text + n, TEXT_MAX - n);
		if (r <= 0) {
			printf("actor %d died\n", i);
			exit(3);
		}
		n += (size_t)r;
	} while (text[n - 1] != '\n');
	text[n - 1] = 0;
}

static void tell(int i, const struct step *s, char *text)
{
	if (s->op < OPS)
		current = (struct program){1, {*s}};
	if (write(actors[i].to, s, sizeof *s) != sizeof *s)
		exit(3);
	hear(i, text);
}

/* Which port the kernel chooses varies. */
static void name_port(int port, FILE *out)
{
	if (port >= first_port && port < first_port + PORTS) {
		fprintf(out, "p%d", port - first_port);
		return;
	}
	if (port < LAST_PORT) {
		fprintf(out, "%d", port);
		return;
	}
	fprintf(out, "e");
}

static void copy_named(const char *text, FILE *out)
{
	const char *at;

	for (; (at = strchr(text, '@')); text = at + 1 + strspn(at + 1, "0123456789")) {
		fwrite(text, 1, (size_t)(at - text), out);
		name_port(atoi(at + 1), out);
	}
	fputs(text, out);
}

/* All do the step, and what each has seen. */
static void all_tell(const struct step *s, char all[LINE_MAX_])
{
	static char text[TEXT_MAX];
	int at = 0;

	*all = 0;
	for (int i = 0; i < ACTORS; i++) {
		tell(i, s, text);
		at += snprintf(all + at, (size_t)(LINE_MAX_ - at), " |%s", text);
	}
}

static void look_around(char line[LINE_MAX_])
{
	all_tell(&(struct step){.op = OP_look, .a = {!expected}}, line);
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* What is ready, when it is what is expected, or at last; on the kernel, when all that was sent
 * has arrived and nothing changes any more: softirqs may be late. */
static void settle(char *line, const char *wanted)
{
	static char before[LINE_MAX_];
	double end = now_ms() + (wanted ? patience_ms : HELD_BACK_MS);
	bool settled;

	look_around(line);
	settled = wanted && strcmp(line, wanted) == 0;
	while (!settled && now_ms() < end) {
		if (wanted || strstr(line, UNSENT))
			usleep(300);
		memcpy(before, line, sizeof before);
		look_around(line);
		settled = wanted ? strcmp(line, wanted) == 0 : !strstr(line, UNSENT) && strcmp(line, before) == 0;
	}
}

static const char *expect_line(void)
{
	static char line[LINE_MAX_];

	if (!fgets(line, sizeof line, expected))
		return "";
	line[strcspn(line, "\n")] = 0;
	return line;
}

/* One step; false if it came out otherwise than expected. */
static bool take_step(const struct step *s, FILE *out)
{
	static char text[TEXT_MAX], around[LINE_MAX_];
	const char *wanted = expected ? expect_line() : NULL, *ready = wanted ? strchr(wanted, '|') : NULL;
	struct program one = {1, {*s}};
	char *line = NULL;
	size_t size = 0;
	FILE *made = open_memstream(&line, &size);
	bool same;

	program_write(made, &one);
	fseek(made, -1, SEEK_CUR);
	tell(s->actor, s, text);
	fputc(':', made);
	copy_named(text, made);
	settle(around, ready ? ready - 1 : NULL);
	fputs(around, made);
	fclose(made);
	fprintf(out, "%s\n", line);
	same = !wanted || strcmp(line, wanted) == 0;
	if (!same)
		fprintf(out, "differs: %s\n", wanted);
	free(line);
	return same;
}

static void everyone(int op, int argument, char all[LINE_MAX_])
{
	all_tell(&(struct step){.op = op, .a = {argument}}, all);
}

static void skip_to_end(void)
{
	while (*expect_line() != 'e' && !feof(expected))
		;
}

/* The transcript is flushed for each program, so that it shows which one was never finished. */
static bool play(const struct program *p, const char *name, FILE *out)
{
	static char text[LINE_MAX_];
	bool same = true;

	fprintf(out, "program %s\n", name);
	if (expected)
		expect_line();
	fflush(out);
	everyone(OP_begin, first_port, text);
	for (int i = 0; i < p->n && same; i++)
		same = take_step(&p->step[i], out);
	everyone(OP_end, 0, text);
	fprintf(out, "end%s\n", text);
	if (expected && !same)
		skip_to_end();
	else if (expected && strncmp(expect_line() + 3, text, strlen(text)) != 0)
		fprintf(out, "differs: end\n");
	first_port += PORTS;
	if (first_port + PORTS > LAST_PORT)
		first_port = FIRST_PORT;
	return same;
}

static int usage(void)
{
	fputs("play [--patience MS] [--expect TRANSCRIPT] {FIRST-SEED COUNT | -f PROGRAM} | --show SEED | --ops\n",
	      stderr);
	return 2;
}

static int play_file(const char *name)
{
	struct program p;
	FILE *in = fopen(name, "r");

	if (!in || !program_read(in, &p))
		return 2;
	fclose(in);
	return play(&p, "written", stdout) ? 0 : 1;
}

static int play_seeds(uint64_t first, int count)
{
	struct program p;
	char name[32];
	int differ = 0;

	for (uint64_t seed = first; seed < first + (uint64_t)count; seed++) {
		generate(seed, &p);
		snprintf(name, sizeof name, "%llu", (unsigned long long)seed);
		differ += !play(&p, name, stdout);
	}
	return differ ? 1 : 0;
}

static int end_actors(int status)
{
	for (int i = 0; i < ACTORS; i++) {
		close(actors[i].to);
		waitpid(actors[i].pid, NULL, 0);
	}
	return status;
}

int main(int argc, char **argv)
{
	struct program p;

	if (argc == 2 && strcmp(argv[1], "--ops") == 0) {
		program_list_ops(stdout);
		return 0;
	}
	if (argc == 3 && strcmp(argv[1], "--show") == 0) {
		generate(strtoull(argv[2], NULL, 0), &p);
		program_write(stdout, &p);
		return 0;
	}
	if (argc > 2 && strcmp(argv[1], "--patience") == 0) {
		patience_ms = atoi(argv[2]);
		argc -= 2, argv += 2;
	}
	if (argc > 2 && strcmp(argv[1], "--expect") == 0) {
		expected = fopen(argv[2], "r");
		if (!expected)
			return 2;
		argc -= 2, argv += 2;
	}
	if (argc != 3)
		return usage();
	first_port = FIRST_PORT;
	signal(SIGPIPE, SIG_IGN);
	start_actors();
	if (strcmp(argv[1], "-f") == 0)
		return end_actors(play_file(argv[2]));
	return end_actors(play_seeds(strtoull(argv[1], NULL, 0), atoi(argv[2])));
}
