/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viaduct-dump, which `viaduct dump` runs: frames of stacks to a pcapng file or to standard output.
 *
 * A program of its own because it links libpcap, which compiles and runs the filter (pcap_offline_filter) and writes
 * the old pcap format. Stacks are looked for four times a second, so those of programs that start later are captured
 * too, from a little after their start. It looks for frames every few milliseconds: no stack ever waits for it or wakes
 * it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <pcap/pcap.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "cli/commands.h"
#include "dump/pcapng.h"
#include "dump/source.h"

#define SOURCES_MAX 256u
#define PIDS_MAX 64u
#define LOOK_NS 2000000 /* between looks at rings that had nothing */
#define SCAN_US 250000  /* between looks for new stacks */

#define EXIT_FAILED 1
#define EXIT_USAGE 2

static struct {
	int pids[PIDS_MAX];
	unsigned pid_count;
	const char *file; /* NULL, "-": standard output */
	uint32_t snap;
	uint64_t limit; /* frames; 0: no limit */
	bool old;       /* pcap instead of pcapng */
	bool comments;  /* with each packet */
	bool quiet;
} opt;

static struct {
	struct source list[SOURCES_MAX];
	unsigned count;
	uint64_t busy[SOURCES_MAX]; /* inodes of stacks that can't be captured: told once */
	unsigned busy_count;
	uint64_t frames, lost; /* written; lost */
	uint32_t interfaces;
	int64_t real_offset_us;
	FILE *out;
	pcap_t *pcap;
	pcap_dumper_t *dumper;
	struct bpf_program filter;
	bool failed;
	int error; /* of the first write that failed */
} d;

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
	(void)sig;
	stop = 1;
}

static void tell_list(const char *format, va_list args)
{
	fputs("viaduct dump: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

static void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void tell(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	tell_list(format, args);
	va_end(args);
}

static int fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int fail(int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	tell_list(format, args);
	va_end(args);
	return status;
}

static uint64_t now_us(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* --- stacks --- */

static bool known(uint64_t inode)
{
	for (unsigned i = 0; i < d.count; i++)
		if (d.list[i].inode == inode)
			return true;
	for (unsigned i = 0; i < d.busy_count; i++)
		if (d.busy[i] == inode)
			return true;
	return false;
}

static void take(const struct view *w)
{
	uint32_t other = 0;
	int rc;

	if (known(w->inode) || d.count == SOURCES_MAX)
		return;
	rc = source_open(&d.list[d.count], w, opt.snap, &other);
	if (rc == 0) {
		if (!opt.quiet)
			tell("capturing the stack of %s (process %u)", d.list[d.count].program, d.list[d.count].pid);
		d.count++;
		return;
	}
	if (d.busy_count < SOURCES_MAX)
		d.busy[d.busy_count++] = w->inode;
	if (rc == -EBUSY)
		tell("process %u captures the stack of process %u already: it is left out", other, w->s->creator_pid);
	else
		tell("the stack of process %u can't be captured: %s", w->s->creator_pid, strerror(-rc));
}

/* --- writing --- */

static void wrote(bool ok)
{
	if (!ok && !d.failed) {
		d.error = errno;
		d.failed = true;
	}
}

/* What the vNIC is, in words. */
static void describe(const struct source *r, uint32_t vnic, char *out, size_t len)
{
	struct vnic_state st = r->vnics[vnic]; /* a copy: others write it */
	const struct view w = {.s = r->s};
	char end[64];

	vnic_text(&w, &st, end, sizeof(end));
	snprintf(out, len, "stack of %s (process %u), vNIC %u: %s, to %s", r->program, r->pid, vnic,
		 provider_text(st.provider), end);
}

/* The number of the interface that stands for the vNIC; written when it is met for the first time. */
static uint32_t interface_of(struct source *r, const struct capture_record *record)
{
	char name[96], comment[256];
	uint32_t i = record->vnic;

	if (r->interface[i].number != NO_INTERFACE && r->interface[i].gen == record->gen)
		return r->interface[i].number;
	describe(r, i, comment, sizeof(comment));
	snprintf(name, sizeof(name), "%.40s.%u.vnic%u", r->program, r->pid, i);
	wrote(pcapng_interface(d.out, CAPTURE_SNAP_MAX, name, comment));
	r->interface[i].gen = record->gen;
	r->interface[i].number = d.interfaces++;
	r->interface[i].frames = 0;
	return r->interface[i].number;
}

static void write_packet(struct source *r, const struct capture_record *record, const uint8_t *frame, uint64_t us)
{
	char comment[128];

	snprintf(comment, sizeof(comment), "stack of %.64s (process %u), vNIC %u", r->program, r->pid, record->vnic);
	wrote(pcapng_packet(d.out, interface_of(r, record), us, frame, record->caplen, record->len, record->sent,
			    opt.comments ? comment : NULL));
}

static void write_frame(struct source *r, const struct capture_record *record, const uint8_t *frame)
{
	uint64_t us = record->us + (uint64_t)d.real_offset_us;
	struct pcap_pkthdr h = {.ts = {.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)},
				.caplen = record->caplen,
				.len = record->len};

	if (!pcap_offline_filter(&d.filter, &h, frame))
		return;
	if (d.dumper)
		pcap_dump((u_char *)d.dumper, &h, frame);
	else
		write_packet(r, record, frame, us);
	r->interface[record->vnic].frames++;
	d.frames++;
}

static bool full(void)
{
	return d.failed || (opt.limit && d.frames >= opt.limit);
}

static unsigned drain_one(struct source *r)
{
	static uint8_t frame[CAPTURE_SNAP_MAX];
	struct capture_record record;
	unsigned n = 0;

	for (; !full() && source_next(r, &record, frame); n++)
		write_frame(r, &record, frame);
	return n;
}

/* All that waits, from all stacks. How many frames. */
static unsigned drain(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d.count; i++)
		n += drain_one(&d.list[i]);
	if (n)
		wrote(fflush(d.out) == 0);
	return n;
}

/* One stack is at its end, or the capture is: what it still has, and its statistics. Its place is free then. */
static void end_source(unsigned i)
{
	uint64_t now = now_us(CLOCK_REALTIME);
	struct source *r = &d.list[i];

	source_stop(r);
	drain_one(r);
	for (uint32_t v = 0; !d.dumper && !d.failed && v < VNIC_MAX; v++)
		if (r->interface[v].number != NO_INTERFACE)
			wrote(pcapng_statistics(d.out, r->interface[v].number, now, r->interface[v].frames,
						source_dropped(r)));
	d.lost += source_dropped(r);
	source_close(r);
	d.list[i] = d.list[--d.count];
}

/* Nobody has the stack open any more. */
static bool gone(const struct source *r, const struct views *v)
{
	for (unsigned i = 0; i < v->count; i++)
		if (v->list[i].inode == r->inode)
			return false;
	return true;
}

/* Find new stacks, let go of those that are gone, and renew the wish for frames. -errno of a process that was asked
 * for. */
static int look_for_stacks(void)
{
	struct views v = {0};
	int rc = 0;

	for (unsigned i = 0; i < opt.pid_count; i++) {
		int one = views_of_process(&v, opt.pids[i]);

		rc = one < 0 ? one : rc;
	}
	if (!opt.pid_count)
		views_of_all(&v);
	for (unsigned i = 0; i < v.count; i++)
		take(&v.list[i]);
	for (unsigned i = d.count; i-- > 0;)
		if (gone(&d.list[i], &v))
			end_source(i);
		else
			source_renew(&d.list[i]);
	views_free(&v);
	d.real_offset_us = (int64_t)(now_us(CLOCK_REALTIME) - now_us(CLOCK_MONOTONIC));
	return rc;
}

/* Until it is time to look again. Whoever reads us may have gone, which no write tells while there are no frames. */
static void rest(void)
{
	const struct timespec pause = {.tv_nsec = LOOK_NS};
	struct pollfd reader = {.fd = fileno(d.out)};

	if (ppoll(&reader, 1, &pause, NULL) == 1) {
		errno = EPIPE;
		wrote(false);
	}
}

static void run(void)
{
	uint64_t next = 0;

	while (!stop && !full()) {
		uint64_t now = now_us(CLOCK_MONOTONIC);

		if (now >= next) {
			(void)look_for_stacks();
			next = now + SCAN_US;
		}
		if (!drain())
			rest();
	}
}

static void finish(void)
{
	while (d.count)
		end_source(d.count - 1);
	wrote(fflush(d.out) == 0);
	if (!opt.quiet)
		fprintf(stderr, "%llu frames written, %llu lost\n", (unsigned long long)d.frames,
			(unsigned long long)d.lost);
}

/* --- start --- */

static int open_output(void)
{
	struct utsname u;
	char os[160], comment[160];

	if (!opt.file || !strcmp(opt.file, "-")) {
		if (isatty(STDOUT_FILENO))
			return fail(EXIT_USAGE,
				    "a capture is not for the terminal; write \"-w FILE\", or \"-w - | tcpdump -r -\"");
		d.out = stdout;
	} else if (!(d.out = fopen(opt.file, "we"))) {
		return fail(EXIT_FAILED, "can't write %s: %s", opt.file, strerror(errno));
	}
	if (opt.old) {
		d.dumper = pcap_dump_fopen(d.pcap, d.out);
		return d.dumper ? 0 : fail(EXIT_FAILED, "%s", pcap_geterr(d.pcap));
	}
	uname(&u);
	snprintf(os, sizeof(os), "%.60s %.60s", u.sysname, u.release);
	snprintf(comment, sizeof(comment),
		 "frames of viaduct's stacks on %.60s; checksums of local wires are not filled in", u.nodename);
	return pcapng_section(d.out, u.machine, os, "viaduct dump " VIADUCT_VERSION, comment) && fflush(d.out) == 0
		   ? 0
		   : fail(EXIT_FAILED, "can't write: %s", strerror(errno));
}

/* The rest of the command line is one expression, as tcpdump has it. */
static int compile(char *const *words)
{
	char text[4096] = "";
	size_t len = 0;

	for (; *words; words++) {
		int n = snprintf(text + len, sizeof(text) - len, "%s%s", len ? " " : "", *words);

		if (n < 0 || (size_t)n >= sizeof(text) - len)
			return fail(EXIT_USAGE, "the filter is too long");
		len += (size_t)n;
	}
	d.pcap = pcap_open_dead(DLT_EN10MB, CAPTURE_SNAP_MAX);
	if (!d.pcap)
		return fail(EXIT_FAILED, "no memory");
	if (pcap_compile(d.pcap, &d.filter, text, 1, PCAP_NETMASK_UNKNOWN) < 0)
		return fail(EXIT_USAGE, "filter \"%s\": %s (the syntax is pcap-filter(7))", text, pcap_geterr(d.pcap));
	return 0;
}

static bool number(const char *text, uint64_t max, uint64_t *out)
{
	char *rest;

	errno = 0;
	*out = strtoull(text, &rest, 10);
	return *text >= '0' && *text <= '9' && !*rest && !errno && *out <= max;
}

static int parse(int argc, char **argv)
{
	uint64_t n;
	int c;

	while ((c = command_option(CMD_dump, argc, argv, 1)) >= 0) {
		if (c == 'w') {
			opt.file = optarg;
		} else if (c == 'o') {
			opt.old = true;
		} else if (c == 'm') {
			opt.comments = true;
		} else if (c == 'q') {
			opt.quiet = true;
		} else if (c == '?' || c == 'h') {
			return fail(EXIT_USAGE, "see \"viaduct help dump\"");
		} else if (!number(optarg, c == 'p' ? 1 << 30 : c == 's' ? CAPTURE_SNAP_MAX : UINT64_MAX, &n)) {
			return fail(EXIT_USAGE, "\"%s\" is no number for -%c", optarg, c);
		} else if (c == 's') {
			opt.snap = (uint32_t)n;
		} else if (c == 'c') {
			opt.limit = n;
		} else if (opt.pid_count < PIDS_MAX) {
			opt.pids[opt.pid_count++] = (int)n;
		}
	}
	return compile(argv + optind);
}

/* What was asked for by number must be there now; else programs may come later. */
static int first_look(void)
{
	int rc = look_for_stacks();

	if (d.count)
		return 0;
	if (opt.pid_count && rc < 0)
		return fail(EXIT_FAILED, "process %d: %s", opt.pids[0], strerror(-rc));
	if (!opt.quiet)
		tell("no stack yet that you may look at; waiting for one");
	return 0;
}

int main(int argc, char **argv)
{
	struct sigaction end = {.sa_handler = on_signal};
	int rc = parse(argc, argv);

	sigaction(SIGINT, &end, NULL);
	sigaction(SIGTERM, &end, NULL);
	sigaction(SIGHUP, &end, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (rc == 0)
		rc = open_output();
	if (rc == 0)
		rc = first_look();
	if (rc)
		return rc;
	run();
	finish();
	/* who reads us may have enough: tcpdump -c */
	return d.failed && d.error != EPIPE ? fail(EXIT_FAILED, "can't write: %s", strerror(d.error)) : 0;
}
