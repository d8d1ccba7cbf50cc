/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The simulation: many worlds, each from its seed (world.h says what a world is).
 *
 *   sim_test [--first SEED] [--connections N] [--seconds S]   worlds from SEED on, until N connections or S seconds
 *   sim_test --seed SEED [--verbose]                          one world; --verbose prints every segment
 */
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "world.h"

static volatile uint64_t running_seed;

/* An assertion failed: say in which world. */
static void on_abort(int signal_number)
{
	char text[64] = "aborted in seed ", *end = text + sizeof(text);
	uint64_t n = running_seed;

	(void)signal_number;
	*--end = '\n';
	do
		*--end = (char)('0' + n % 10);
	while (n /= 10);
	if (write(2, text, 16) < 0 || write(2, end, (size_t)(text + sizeof(text) - end)) < 0)
		_exit(3);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct totals {
	uint64_t worlds, failed, connections, bytes, retrans, datagrams, marked;
	double virtual_seconds;
};

static void add(struct totals *t, const struct world *w, bool passed)
{
	t->worlds++;
	t->failed += !passed;
	t->connections += w->conns;
	t->bytes += w->bytes;
	t->retrans += w->retrans;
	t->datagrams += w->delivered;
	t->marked += w->marked;
	t->virtual_seconds += (double)w->now / 1e6 - 1000;
}

static void report(const struct totals *t, double took)
{
	printf(
	    "%lu worlds, %lu connections, %.1f MB and %lu datagrams delivered, %lu segments sent again, %lu congestion "
	    "marks, %.0f s of virtual time in %.1f s: %lu failed\n",
	    (unsigned long)t->worlds, (unsigned long)t->connections, (double)t->bytes / 1e6,
	    (unsigned long)t->datagrams, (unsigned long)t->retrans, (unsigned long)t->marked, t->virtual_seconds, took,
	    (unsigned long)t->failed);
}

static int usage(const char *name)
{
	fprintf(stderr,
		"usage: %s [--first SEED] [--connections N] [--seconds S] [--max-failures N] | --seed SEED "
		"[--verbose]\n",
		name);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"first", 1, NULL, 'f'},   {"connections", 1, NULL, 'c'},
	    {"seconds", 1, NULL, 't'}, {"max-failures", 1, NULL, 'm'},
	    {"seed", 1, NULL, 's'},    {"verbose", 0, NULL, 'v'},
	    {NULL, 0, NULL, 0},
	};
	uint64_t seed = 1, connections = 1000, max_failures = 5;
	double limit = 1e9, start = seconds();
	bool single = false, verbose = false;
	struct totals t = {0};
	struct world *w = calloc(1, sizeof(*w));

	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
		switch (c) {
		case 'f':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'c':
			connections = strtoull(optarg, NULL, 0);
			break;
		case 't':
			limit = strtod(optarg, NULL);
			break;
		case 'm':
			max_failures = strtoull(optarg, NULL, 0);
			break;
		case 's':
			seed = strtoull(optarg, NULL, 0);
			single = true;
			break;
		case 'v':
			verbose = true;
			break;
		default:
			free(w);
			return usage(argv[0]);
		}
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGABRT, on_abort);
	do {
		running_seed = seed++;
		add(&t, w, world_run(w, running_seed, verbose));
	} while (!single && t.connections < connections && t.failed < max_failures && seconds() - start < limit);
	report(&t, seconds() - start);
	free(w);
	return t.failed ? 1 : 0;
}
