/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs a script of segments and calls against the engine in virtual time: script_test FILE. scripts/ has them;
 * README.md there tells the language. The engine sits behind the same table of calls as for packetdrill (adapter.c),
 * with fixed defaults instead of the machine's sysctls. Everything the engine sends must be in the script, in its order
 * and at its time; the first difference ends the run with status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Linux's header names one congestion state as our engine does. */
#define TCP_CA_CWR LINUX_TCP_CA_CWR
#include <linux/tcp.h>
#undef TCP_CA_CWR

#include "calls.h"
#include "wire.h"

#define OUR_ADDR 0xc0a80001u  /* 192.168.0.1 */
#define PEER_ADDR 0xc0000201u /* 192.0.2.1 */
#define OUR_PORT 8080
#define PEER_ISS 3000000000u
#define TOLERANCE_US 3000u
#define WORDS 24
#define PEERS 8

void packetdrill_interface_init(const char *flags, struct packetdrill_interface *ifc);

/* What the script's peer knows of one connection. */
struct peer {
	uint16_t port, our_port;
	uint32_t our_iss, ts_seen;
	bool knows_iss;
};

static struct packetdrill_interface api;
static struct machine *m;
static const char *file;
static int line_number, listener = -1, sock = -1;
static struct peer peers[PEERS], *peer = peers;
static uint64_t last_us; /* time of the last thing in the script */
static uint8_t last_packet[4096];
static size_t last_len;

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void fail(const char *format, ...)
{
	va_list ap;

	fprintf(stderr, "%s:%d: ", file, line_number);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	exit(1);
}

static uint32_t number(const char *text)
{
	char *end;
	unsigned long v = text ? strtoul(text, &end, 0) : 0;

	if (!text || *end)
		fail("a number is wanted, not '%s'", text ? text : "");
	return (uint32_t)v;
}

/* 200ms, 3s, 50us */
static uint64_t duration(const char *text)
{
	char *end;
	double v = strtod(text, &end);

	if (!strcmp(end, "us"))
		return (uint64_t)v;
	if (!strcmp(end, "ms"))
		return (uint64_t)(v * 1000);
	if (!strcmp(end, "s"))
		return (uint64_t)(v * 1000000);
	fail("not a time: '%s'", text);
}

/* --- segments --- */

/* FLAGS SEQ[+LEN] and what follows, into numbers relative to the two initial sequence numbers. */
static void read_segment(char **w, struct wire_segment *s)
{
	char *plus;

	*s = (struct wire_segment){.mss = -1, .wscale = -1, .win = 1000};
	snprintf(s->flags, sizeof(s->flags), "%s", w[0] ? w[0] : "");
	if (!w[0] || !w[1])
		fail("a segment needs flags and a sequence number");
	plus = strchr(w[1], '+');
	if (plus) {
		*plus = 0;
		s->len = number(plus + 1);
	}
	s->seq = number(w[1]);
	for (w += 2; *w; w++) {
		if (!strcmp(*w, "ack"))
			s->has_ack = true, s->ack = number(*++w);
		else if (!strcmp(*w, "win"))
			s->has_win = true, s->win = number(*++w);
		else if (!strcmp(*w, "urg"))
			s->urg = number(*++w);
		else if (!strcmp(*w, "mss"))
			s->mss = (int)number(*++w);
		else if (!strcmp(*w, "ws"))
			s->wscale = (int)number(*++w);
		else if (!strcmp(*w, "sackok"))
			s->sack_ok = true;
		else if (!strcmp(*w, "badsum"))
			s->bad_sum = true;
		else if (!strcmp(*w, "ts"))
			s->has_ts = true, s->ts_val = number(*++w), s->ts_ecr = UINT32_MAX;
		else if (!strcmp(*w, "ecr"))
			s->ts_ecr = number(*++w);
		else if (!strcmp(*w, "sack") && w[1] && (plus = strchr(w[1], '-')) && s->blocks < WIRE_BLOCKS) {
			*plus = 0;
			s->block[s->blocks][0] = number(*++w);
			s->block[s->blocks++][1] = number(plus + 1);
		} else
			fail("what is '%s'?", *w);
		if (!*w)
			fail("the line ends too early");
	}
}

static void inject(char **w)
{
	static uint8_t packet[70000];
	struct wire_segment s;

	read_segment(w, &s);
	s.sport = peer->port;
	s.dport = peer->our_port;
	s.seq += PEER_ISS;
	if (strchr(s.flags, 'A'))
		s.ack += peer->our_iss;
	for (int i = 0; i < s.blocks; i++) {
		s.block[i][0] += peer->our_iss;
		s.block[i][1] += peer->our_iss;
	}
	if (s.has_ts && s.ts_ecr == UINT32_MAX)
		s.ts_ecr = peer->ts_seen;
	api.netdev_send(m, packet, wire_build(&s, PEER_ADDR, OUR_ADDR, packet));
	last_us = m->now_us;
}

static const char *show(const struct wire_segment *s)
{
	static char text[256];
	int n = snprintf(text, sizeof(text), "%s %u+%u ack %u win %u", s->flags, s->seq, s->len, s->ack, s->win);

	if (s->mss >= 0)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " mss %d", s->mss);
	if (s->wscale >= 0)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " ws %d", s->wscale);
	if (s->sack_ok)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " sackok");
	if (s->has_ts)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " ts ecr %u", s->ts_ecr);
	for (int i = 0; i < s->blocks; i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " sack %u-%u", s->block[i][0], s->block[i][1]);
	return text;
}

/* The next segment that the engine sent, relative, for the right connection. Time passes until there is one. */
static void next_sent(struct wire_segment *s, uint64_t until)
{
	while (m->out_head == m->out_tail && m->now_us < until)
		machine_run_until(m, m->now_us + 500 < until ? m->now_us + 500 : until);
	if (m->out_head == m->out_tail)
		fail("nothing was sent");
	struct out_frame *o = &m->out[m->out_head++ % MACHINE_OUT];
	if (o->len < 14 || !wire_parse(o->bytes + 14, o->len - 14, s))
		fail("what was sent is no sound TCP segment");
	last_len = o->len - 14 < sizeof(last_packet) ? o->len - 14 : sizeof(last_packet);
	memcpy(last_packet, o->bytes + 14, last_len);
	last_us = o->us;
	free(o->bytes);
	if (s->dport != peer->port)
		fail("a segment for port %u: %s", s->dport, show(s));
	if (strchr(s->flags, 'S')) {
		peer->our_port = s->sport;
		peer->our_iss = s->seq;
		peer->knows_iss = true;
	}
	if (peer->knows_iss)
		s->seq -= peer->our_iss;
	if (strchr(s->flags, 'A'))
		s->ack -= PEER_ISS;
	for (int i = 0; i < s->blocks; i++) {
		s->block[i][0] -= PEER_ISS;
		s->block[i][1] -= PEER_ISS;
	}
	if (s->has_ts)
		peer->ts_seen = s->ts_val;
}

static void expect(char **w, uint64_t due, bool timed)
{
	struct wire_segment want, got;
	bool same;

	read_segment(w, &want);
	next_sent(&got, timed ? due + TOLERANCE_US : m->now_us);
	same = !strcmp(want.flags, got.flags) && want.seq == got.seq && want.len == got.len && want.urg == got.urg &&
	       want.blocks == got.blocks && !memcmp(want.block, got.block, sizeof(want.block));
	same = same && (!want.has_ack || want.ack == got.ack) && (!want.has_win || want.win == got.win);
	same = same && (want.mss < 0 || want.mss == got.mss) && (want.wscale < 0 || want.wscale == got.wscale);
	same = same && (!want.sack_ok || got.sack_ok) && (!want.has_ts || (got.has_ts && want.ts_val == got.ts_ecr));
	if (!same)
		fail("was sent: %s", show(&got));
	if (timed && last_us + TOLERANCE_US < due)
		fail("was sent %llu us too early", (unsigned long long)(due - last_us));
}

static void expect_nothing(void)
{
	struct wire_segment got;

	if (m->out_head == m->out_tail)
		return;
	next_sent(&got, m->now_us);
	fail("was sent, unexpectedly: %s", show(&got));
}

/* --- calls --- */

static const struct {
	const char *name;
	int value;
} errors[] = {{"EAGAIN", EAGAIN},           {"ECONNRESET", ECONNRESET}, {"ECONNREFUSED", ECONNREFUSED},
	      {"ETIMEDOUT", ETIMEDOUT},     {"EPIPE", EPIPE},           {"ENOTCONN", ENOTCONN},
	      {"EINPROGRESS", EINPROGRESS}, {"EINVAL", EINVAL},         {"EHOSTUNREACH", EHOSTUNREACH}};

/* `= 5`, `= EAGAIN`; by default the whole `all`. */
static void check_result(char **w, ssize_t r, ssize_t all)
{
	int err = errno;

	if (!w[0] || strcmp(w[0], "=")) {
		if (r != all)
			fail("returned %zd (%s)", r, r < 0 ? strerror(err) : "no error");
		return;
	}
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (!strcmp(w[1], errors[i].name)) {
			if (r != -1 || err != errors[i].value)
				fail("returned %zd (%s)", r, r < 0 ? strerror(err) : "no error");
			return;
		}
	if (r != (ssize_t)number(w[1]))
		fail("returned %zd (%s)", r, r < 0 ? strerror(err) : "no error");
}

static int new_socket(void)
{
	int fd = api.socket(m, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (fd < 0)
		fail("no socket");
	return fd;
}

static void do_listen(char **w)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(OUR_PORT)};

	if (listener < 0)
		listener = new_socket();
	api.bind(m, listener, (struct sockaddr *)&sa, sizeof(sa));
	if (api.listen(m, listener, w[0] ? (int)number(w[0]) : 8))
		fail("listen: %s", strerror(errno));
}

static void do_connect(char **w)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(peer->port), .sin_addr = {htonl(PEER_ADDR)}};

	if (sock < 0)
		sock = new_socket();
	if (w[0]) {
		check_result(w, api.connect(m, sock, (struct sockaddr *)&sa, sizeof(sa)), 0);
		return;
	}
	if (api.connect(m, sock, (struct sockaddr *)&sa, sizeof(sa)) != -1 || errno != EINPROGRESS)
		fail("connect: %s", strerror(errno));
}

static void do_accept(char **w)
{
	int fd = api.accept(m, listener, NULL, NULL);

	if (w[0]) {
		check_result(w, fd < 0 ? -1 : 0, 0);
		return;
	}
	if (fd < 0)
		fail("accept: %s", strerror(errno));
	api.fcntl(m, fd, F_SETFL, O_NONBLOCK);
	sock = fd;
}

static void do_write(char **w)
{
	static char bytes[1 << 20];
	size_t n = number(w[0]);
	int flags = 0;

	for (w++; *w && strcmp(*w, "="); w++)
		flags |= !strcmp(*w, "oob")    ? MSG_OOB
			 : !strcmp(*w, "more") ? MSG_MORE
			 : !strcmp(*w, "eor")  ? MSG_EOR
					       : 0;
	check_result(w, api.send(m, sock, bytes, n < sizeof(bytes) ? n : sizeof(bytes), flags), (ssize_t)n);
}

/* Reads, and checks that the bytes are those that the peer sent at that place of the stream. */
static void do_read(char **w)
{
	static uint8_t bytes[1 << 20];
	static uint32_t at = 1;
	size_t n = number(w[0]);
	bool oob = w[1] && !strcmp(w[1], "oob");
	ssize_t r = api.recv(m, sock, bytes, n < sizeof(bytes) ? n : sizeof(bytes), oob ? MSG_OOB : 0);

	for (ssize_t i = 0; i < r && !oob && peer == peers; i++, at++)
		while (bytes[i] != (uint8_t)(PEER_ISS + at))
			if (i || ++at > 1u << 24) /* an urgent byte in between was left out */
				fail("byte %u of the stream is wrong", at);
	check_result(w + 1 + oob, r, (ssize_t)n);
}

static const struct {
	const char *name;
	int level, option;
} options[] = {{"nodelay", IPPROTO_TCP, TCP_NODELAY},         {"cork", IPPROTO_TCP, TCP_CORK},
	       {"quickack", IPPROTO_TCP, TCP_QUICKACK},       {"keepidle", IPPROTO_TCP, TCP_KEEPIDLE},
	       {"keepintvl", IPPROTO_TCP, TCP_KEEPINTVL},     {"keepcnt", IPPROTO_TCP, TCP_KEEPCNT},
	       {"keepalive", SOL_SOCKET, SO_KEEPALIVE},       {"usertimeout", IPPROTO_TCP, TCP_USER_TIMEOUT},
	       {"maxseg", IPPROTO_TCP, TCP_MAXSEG},           {"rcvbuf", SOL_SOCKET, SO_RCVBUF},
	       {"linger2", IPPROTO_TCP, TCP_LINGER2},         {"oobinline", SOL_SOCKET, SO_OOBINLINE},
	       {"deferaccept", IPPROTO_TCP, TCP_DEFER_ACCEPT}};

static void do_set(char **w)
{
	int fd = sock >= 0 ? sock : listener, value = (int)number(w[1]);

	if (fd < 0)
		fd = sock = new_socket();
	if (!strcmp(w[0], "linger")) {
		struct linger l = {1, value};
		if (api.setsockopt(m, fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l)))
			fail("setsockopt: %s", strerror(errno));
		return;
	}
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (!strcmp(w[0], options[i].name)) {
			if (api.setsockopt(m, fd, options[i].level, options[i].option, &value, sizeof(value)))
				fail("setsockopt: %s", strerror(errno));
			return;
		}
	fail("no option '%s'", w[0]);
}

static void do_close(char **w)
{
	int *fd = w[0] && !strcmp(w[0], "listener") ? &listener : &sock;

	if (api.close(m, *fd))
		fail("close: %s", strerror(errno));
	*fd = -1;
}

static void do_shutdown(char **w)
{
	int how = !strcmp(w[0], "read") ? SHUT_RD : !strcmp(w[0], "write") ? SHUT_WR : SHUT_RDWR;

	check_result(w + 1, api.shutdown(m, sock, how), 0);
}

static void do_state(char **w)
{
	struct machine_fd *f = machine_fd(m, sock, FD_SOCK);
	struct sock *k = f ? sock_at(m->e.s, f->sock) : NULL;

	if (!k || strcmp(tcp_state_name[k->tcp.state], w[0]))
		fail("the state is %s", k ? tcp_state_name[k->tcp.state] : "none");
}

/* The error that the socket has to report. */
static void do_error(char **w)
{
	int err = 0;
	socklen_t len = sizeof(err);

	api.getsockopt(m, sock, SOL_SOCKET, SO_ERROR, &err, &len);
	errno = err;
	char *as_result[] = {"=", w[0], NULL};
	check_result(as_result, err ? -1 : 0, 0);
}

static void do_poll(char **w)
{
	static const struct {
		const char *name;
		int bit;
	} bits[] = {{"in", POLLIN},   {"out", POLLOUT}, {"pri", POLLPRI},
		    {"err", POLLERR}, {"hup", POLLHUP}, {"rdhup", POLLRDHUP}};
	struct pollfd p = {.fd = sock, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP};
	int want = 0;

	for (; *w; w++)
		for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
			want |= strcmp(*w, bits[i].name) ? 0 : bits[i].bit;
	api.poll(m, &p, 1, 0);
	if (p.revents != want)
		fail("poll says %#x, not %#x", (unsigned)p.revents, (unsigned)want);
}

static void do_peer(char **w)
{
	uint16_t port = (uint16_t)number(w[0]);

	for (peer = peers; peer < peers + PEERS; peer++)
		if (peer->port == port || !peer->port) {
			peer->port = port;
			peer->our_port = peer->our_port ? peer->our_port : OUR_PORT;
			return;
		}
	fail("too many peers");
}

/* icmp TYPE CODE [MTU]: about what was sent last */
static void do_icmp(char **w)
{
	uint8_t packet[128];
	size_t n = wire_icmp(PEER_ADDR, OUR_ADDR, (int)number(w[0]), (int)number(w[1]), w[2] ? number(w[2]) : 0,
			     last_packet, last_len, packet);

	api.netdev_send(m, packet, n);
}

static void do_nothing(char **w)
{
	if (w[0])
		machine_run_until(m, m->now_us + duration(w[0]));
	expect_nothing();
}

static const struct {
	const char *name;
	void (*run)(char **words);
	int words; /* at least */
} commands[] = {{"listen", do_listen, 0}, {"connect", do_connect, 0},   {"accept", do_accept, 0},
		{"write", do_write, 1},   {"read", do_read, 1},         {"set", do_set, 2},
		{"close", do_close, 0},   {"shutdown", do_shutdown, 1}, {"state", do_state, 1},
		{"error", do_error, 1},   {"poll", do_poll, 0},         {"peer", do_peer, 1},
		{"icmp", do_icmp, 2},     {"nothing", do_nothing, 0},   {"<", inject, 2}};

static void run_line(char *line)
{
	char *w[WORDS + 1] = {NULL}, **c = w, *save;
	uint64_t due = 0;
	int n = 0;

	for (char *word = strtok_r(line, " \t\n", &save); word && *word != '#' && n < WORDS;
	     word = strtok_r(NULL, " \t\n", &save))
		w[n++] = word;
	if (!n)
		return;
	if (w[0][0] == '+') {
		due = last_us + duration(w[0] + 1);
		c++;
		n--;
	}
	if (!n)
		fail("and then?");
	if (!strcmp(c[0], ">")) {
		expect(c + 1, due, due != 0);
		return;
	}
	if (due) {
		machine_run_until(m, due);
		last_us = m->now_us;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(c[0], commands[i].name) && n > commands[i].words) {
			commands[i].run(c + 1);
			return;
		}
	fail("what is '%s'?", c[0]);
}

int main(int argc, char **argv)
{
	char line[512];
	FILE *f = argc == 2 ? fopen(argv[1], "r") : NULL;

	if (!f) {
		fprintf(stderr, "usage: script_test FILE\n");
		return 2;
	}
	file = argv[1];
	packetdrill_interface_init("", &api);
	m = api.userdata;
	machine_configure(m);
	m->e.s->cfg.defaults = test_config().defaults;
	last_us = m->now_us;
	peer->port = 40000;
	peer->our_port = OUR_PORT;
	while (fgets(line, sizeof(line), f)) {
		line_number++;
		run_line(line);
	}
	expect_nothing();
	fclose(f);
	return 0;
}
