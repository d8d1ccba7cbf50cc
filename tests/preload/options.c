/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every option of the table (src/socket/options.def), set and read with every kind of value and length on TCP and UDP
 * sockets of both families in every state: result, errno, length and value are the kernel's. Each option has a socket
 * of its own in each state, so that none sees what another did.
 */
#include <asm/socket.h>
#include <limits.h>
#include <linux/capability.h>
#include <sys/syscall.h>

#include "pair.h"

enum level { SOCKET, TCP, UDP, IP, IPV6, NONE };
static const int level_number[] = {SOL_SOCKET, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IP, IPPROTO_IPV6, 1234};

enum treatment { STACK, SWITCH, STORED, ROUTE, DATAGRAM, KERNEL, GROUP, REFUSED };
enum value { INT, FLAG, TIMEVAL, LINGER, NAME, STRUCT, LIVE };

struct option {
	enum level level;
	int number;
	enum value value;
	enum treatment treatment;
	const char *name;
};

static const struct option options[] = {
#define OPTION(level, name, number, value, treatment, sentence) {level, number, value, treatment, #name},
#include "socket/options.def"
#undef OPTION
    /* numbers that no option has */
    {SOCKET, 0, INT, REFUSED, "0"},   {SOCKET, 200, INT, REFUSED, "200"}, {SOCKET, -1, INT, REFUSED, "-1"},
    {TCP, 0, INT, REFUSED, "0"},      {TCP, 200, INT, REFUSED, "200"},    {UDP, 0, INT, REFUSED, "0"},
    {IP, 0, INT, REFUSED, "0"},       {IP, 200, INT, REFUSED, "200"},     {IPV6, 0, INT, REFUSED, "0"},
    {IPV6, 200, INT, REFUSED, "200"}, {NONE, 1, INT, REFUSED, "1"},
};
#define OPTIONS (sizeof options / sizeof options[0])

enum state { FRESH, BOUND, LISTENING, CONNECTED, ACCEPTED, HALF, CLOSED, STATES };
static const char *const state_name[] = {"fresh", "bound", "listening", "connected", "accepted", "half", "closed"};

static const struct option *now;
static bool quiet_value; /* two runs need not read the same */
static bool ours_refuse; /* a connection that is ours refuses what the kernel may take: EOPNOTSUPP */

/* --- sockets in a state, with the other process's help --- */

static struct sockaddr_storage name_of(int family, int port, socklen_t *len)
{
	struct sockaddr_storage ss = {.ss_family = (sa_family_t)family};

	if (family == AF_INET) {
		struct sockaddr_in *a = (struct sockaddr_in *)&ss;

		a->sin_port = htons((uint16_t)port);
		a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		*len = sizeof *a;
	} else {
		struct sockaddr_in6 *a = (struct sockaddr_in6 *)&ss;

		a->sin6_port = htons((uint16_t)port);
		a->sin6_addr = in6addr_loopback;
		*len = sizeof *a;
	}
	return ss;
}

static int must(const char *what, int r)
{
	if (r < 0) {
		perror(what);
		exit(5);
	}
	return r;
}

static int named(int family, int type, int port)
{
	int fd = must("socket", socket(family, type, 0)), one = 1;
	socklen_t len;
	struct sockaddr_storage ss = name_of(family, port, &len);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	must("bind", bind(fd, (struct sockaddr *)&ss, len));
	return fd;
}

/* -1 if it is refused. */
static int connected(int family, int type, int port)
{
	int fd = must("socket", socket(family, type, 0));
	socklen_t len;
	struct sockaddr_storage ss = name_of(family, port, &len);

	if (connect(fd, (struct sockaddr *)&ss, len) < 0) {
		close(fd);
		return -1;
	}
	if (type == SOCK_STREAM)
		recv(fd, (char[1]){0}, 1, MSG_DONTWAIT);
	return fd;
}

/* Whom the other process connects to: of the client at PORT, of the server at the next one. */
static int ours[2];

/* The other process's next word. Waited for together with a socket, so that whoever waits attends to sockets, too. */
static bool hear(char *word)
{
	struct pollfd p[2] = {{.fd = from_other, .events = POLLIN}, {.fd = ours[0], .events = POLLPRI}};

	poll(p, 2, -1);
	return read(from_other, word, 1) == 1;
}

static int family_index(int family)
{
	return family == AF_INET6;
}

/* Have the other process do something. False: it could not connect. */
static bool ask(char what)
{
	char c;

	if (write(to_other, &what, 1) != 1 || !hear(&c))
		exit(4);
	return c == 'x';
}

static int tcp_in(enum state state, int family)
{
	int fd;
	char c;

	switch (state) {
	case FRESH:
		return must("socket", socket(family, SOCK_STREAM, 0));
	case BOUND:
		return named(family, SOCK_STREAM, 0);
	case LISTENING:
		fd = named(family, SOCK_STREAM, 0);
		must("listen", listen(fd, 5));
		return fd;
	case ACCEPTED:
		ask(family == AF_INET6 ? 'C' : 'c');
		return must("accept", accept(ours[family_index(family)], NULL, NULL));
	default:
		fd = must("connect", connected(family, SOCK_STREAM, PORT + 1));
	}
	ask(family == AF_INET6 ? 'A' : 'a');
	if (state == CONNECTED)
		return fd;
	if (state == HALF) {
		shutdown(fd, SHUT_WR);
		return fd;
	}
	ask('x');
	if (read(fd, &c, 1) != -1 || errno != ECONNRESET)
		exit(6);
	return fd;
}

static int udp_in(enum state state, int family)
{
	if (state == FRESH)
		return must("socket", socket(family, SOCK_DGRAM, 0));
	if (state == BOUND)
		return named(family, SOCK_DGRAM, 0);
	return connected(family, SOCK_DGRAM, PORT + 2);
}

/* --- one call --- */

static void print_bytes(const unsigned char *p, size_t n)
{
	bool last = true;

	while (n > 8 && p[n - 1] == 0)
		n--; /* what is all zero at the end is not worth its space */
	for (size_t i = 0; i < n && i < 64 && last; i++)
		fprintf(said, "%02x", p[i]);
}

static void read_back(int fd, socklen_t ask_for)
{
	unsigned char value[1200];
	socklen_t len = ask_for;
	int r;

	memset(value, 0xee, sizeof value);
	r = getsockopt(fd, level_number[now->level], now->number, value, &len);
	if (r < 0) {
		fprintf(said, " %s", strerrorname_np(errno));
		if (len != ask_for)
			fprintf(said, "(%d)", (int)len);
		return;
	}
	fprintf(said, " %d:", (int)len);
	if (!quiet_value && (int)len >= 0 && len <= sizeof value)
		print_bytes(value, len);
	if (len < sizeof value && value[len] != 0xee && len >= ask_for)
		fprintf(said, " wrote beyond");
}

static void set(int fd, const void *value, socklen_t len)
{
	int r = setsockopt(fd, level_number[now->level], now->number, value, len);

	/* SO_TIMESTAMPING has a bit that the kernel's socket, which is no connection, finds wrong beforehand */
	if (ours_refuse &&
	    (r == 0 || errno == EOPNOTSUPP ||
	     (errno == EINVAL && (now->number == SO_TIMESTAMPING || now->number == SO_TIMESTAMPING_NEW))))
		fprintf(said, " 0 or EOPNOTSUPP");
	else
		fprintf(said, " %s", r < 0 ? strerrorname_np(errno) : "0");
}

/* --- all calls of an option on a socket --- */

static void reading(int fd)
{
	static const int lengths[] = {0, 1, 2, 3, 4, 5, 8, 12, 16, 17, 64, 300, 1024, -1, INT_MIN};
	char value[16];
	socklen_t len = 4;

	fprintf(said, " read");
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
		read_back(fd, (socklen_t)lengths[i]);
	fprintf(said, " / %s",
		getsockopt(fd, level_number[now->level], now->number, NULL, &len) < 0 ? strerrorname_np(errno) : "0");
	fprintf(said, " %s\n",
		getsockopt(fd, level_number[now->level], now->number, value, NULL) < 0 ? strerrorname_np(errno) : "0");
}

static void setting_numbers(int fd)
{
	static const int values[] = {1,     0,     2,     -1,     3,       4,       5,       6,    15,
				     63,    64,    127,   128,    255,     256,     511,     1000, 32767,
				     32768, 65535, 65536, 100000, 1000000, INT_MAX, INT_MIN, 1};

	fprintf(said, "  numbers");
	for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
		set(fd, &values[i], sizeof values[i]);
		read_back(fd, 16);
	}
	fputc('\n', said);
}

static void setting_lengths(int fd)
{
	static const int lengths[] = {0, 1, 2, 3, 4, 5, 7, 8, 12, 16, 20, 40, 136, 264, 1024, -1, INT_MIN};
	unsigned char value[1200] = {1};

	fprintf(said, "  lengths");
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		set(fd, value, (socklen_t)lengths[i]);
		read_back(fd, 16);
	}
	set(fd, NULL, 4);
	set(fd, NULL, 0);
	set(fd, (void *)16, 4);
	fputc('\n', said);
}

static void setting_times(int fd)
{
	static const struct timeval values[] = {{1, 0},  {0, 1},         {0, 999999},   {0, 1000000}, {0, -1},
						{-1, 0}, {100000000, 5}, {LONG_MAX, 0}, {0, 0},       {3, 500000}};
	static const int lengths[] = {8, 15, 16, 17, 32};

	fprintf(said, "  times");
	for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
		set(fd, &values[i], sizeof values[i]);
		read_back(fd, 16);
	}
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		struct timeval wide[2] = {{2, 250000}};

		set(fd, wide, (socklen_t)lengths[i]);
		read_back(fd, (socklen_t)lengths[i]);
	}
	fputc('\n', said);
}

static void setting_linger(int fd)
{
	static const struct linger values[] = {{1, 0}, {1, 5}, {0, 7}, {5, 3}, {1, -1}, {-1, INT_MAX}, {0, 0}};

	fprintf(said, "  linger");
	for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
		set(fd, &values[i], sizeof values[i]);
		read_back(fd, 16);
	}
	fputc('\n', said);
}

static void setting_names(int fd)
{
	static const char *const values[] = {
	    "reno", "cubic", "lo", "newreno", "nosuch", "", "a-name-that-is-too-long-for-any"};

	fprintf(said, "  names");
	for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
		for (socklen_t cut = 0; cut < 2 && strlen(values[i]) >= cut; cut++) {
			set(fd, values[i], (socklen_t)strlen(values[i]) + 1 - cut);
			read_back(fd, 40);
		}
	fputc('\n', said);
}

/* What the path allows, what a connection was tuned to, and what its SYN came with, is each stack's own. */
static bool quiet_at(enum state state)
{
	if (now->value == LIVE || ours_refuse)
		return true;
	if (state >= CONNECTED && now->level == TCP)
		return now->number == TCP_MAXSEG || now->number == TCP_WINDOW_CLAMP;
	if (state == ACCEPTED && now->level == IP)
		return now->number == IP_MULTICAST_TTL;
	return state == ACCEPTED && now->level == IPV6 &&
	       (now->number == IPV6_MULTICAST_IF || now->number == IPV6_MULTICAST_HOPS);
}

static void all_of(const char *kind, int fd, enum state state)
{
	bool buffer = now->level == SOCKET && (now->number == SO_SNDBUF || now->number == SO_RCVBUF);

	ours_refuse = now->treatment == KERNEL && state >= CONNECTED && kind[0] == 't';
	quiet_value = quiet_at(state) || buffer;
	fprintf(said, "%s %s %d:%s", kind, state_name[state], level_number[now->level], now->name);
	reading(fd);
	quiet_value = quiet_at(state) || (buffer && state >= CONNECTED);
	setting_numbers(fd);
	setting_lengths(fd);
	if (now->value == TIMEVAL)
		setting_times(fd);
	if (now->value == LINGER)
		setting_linger(fd);
	if (now->value == NAME)
		setting_names(fd);
	close(fd);
}

static void in_state(enum state state)
{
	for (size_t i = 0; i < OPTIONS; i++) {
		now = &options[i];
		all_of("tcp", tcp_in(state, AF_INET), state);
		all_of("tcp6", tcp_in(state, AF_INET6), state);
		if (state > BOUND && state != CONNECTED)
			continue;
		all_of("udp", udp_in(state, AF_INET), state);
		all_of("udp6", udp_in(state, AF_INET6), state);
	}
}

static int listener(int family, int port)
{
	int fd = named(family, SOCK_STREAM, port);

	must("listen", listen(fd, 64));
	return fd;
}

/* Both stacks have this one. */
static void use_reno(void)
{
	int fd = open("/proc/sys/net/ipv4/tcp_congestion_control", O_WRONLY);

	if (fd < 0 || write(fd, "reno", 4) != 4)
		perror("tcp_congestion_control");
	close(fd);
}

/* Set whatever can be, so that it differs from what it was. */
static void set_any(int fd)
{
	static const int numbers[] = {1, 2, 64};

	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		set(fd, &numbers[i], sizeof numbers[i]);
	if (now->value == TIMEVAL)
		set(fd, &(struct timeval){3, 500000}, sizeof(struct timeval));
	if (now->value == LINGER)
		set(fd, &(struct linger){1, 5}, sizeof(struct linger));
	if (now->value == NAME)
		set(fd, "cubic", 5);
}

/* A connection has its listener's options; what was set on one is not seen on the next. */
static void inherited(int family)
{
	int l = listener(family, PORT + 3), fd;

	ours_refuse = false;
	quiet_value = quiet_at(ACCEPTED) || (now->level == SOCKET && now->number == SO_SNDBUF);
	fprintf(said, "%s inherited %d:%s", family == AF_INET ? "tcp" : "tcp6", level_number[now->level], now->name);
	set_any(l);
	if (ask(family == AF_INET6 ? 'D' : 'd')) {
		fd = must("accept", accept(l, NULL, NULL));
		read_back(fd, 16);
		close(fd);
	} else {
		fprintf(said, " not connected");
	}
	close(l);
	fprintf(said, " next");
	fd = tcp_in(ACCEPTED, family);
	ours_refuse = now->treatment == KERNEL;
	set_any(fd);
	close(fd);
	fd = tcp_in(ACCEPTED, family);
	read_back(fd, 16);
	close(fd);
	fputc('\n', said);
}

/* What needs a privilege is refused without it. */
static void drop_privileges(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {0};

	must("capset", (int)syscall(SYS_capset, &header, none));
	fprintf(said, "without privileges\n");
}

static void client(void)
{
	ours[0] = listener(AF_INET, PORT);
	ours[1] = listener(AF_INET6, PORT);
	tell();
	await();
	for (enum state s = FRESH; s < STATES; s++)
		in_state(s);
	for (size_t i = 0; i < OPTIONS; i++) {
		now = &options[i];
		inherited(AF_INET);
		inherited(AF_INET6);
	}
	drop_privileges();
	in_state(FRESH);
	in_state(CONNECTED);
	close(to_other);
}

/* The other process: connects, accepts and closes as it is told to. */
static void server(void)
{
	int last = -1;
	char what;

	ours[0] = listener(AF_INET, PORT + 1);
	ours[1] = listener(AF_INET6, PORT + 1);
	named(AF_INET, SOCK_DGRAM, PORT + 2);
	named(AF_INET6, SOCK_DGRAM, PORT + 2);
	await();
	tell();
	while (hear(&what)) {
		if (what == 'x')
			setsockopt(last, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
		if (last >= 0)
			close(last);
		last = -1;
		if (what == 'c' || what == 'C')
			last = connected(what == 'C' ? AF_INET6 : AF_INET, SOCK_STREAM, PORT);
		if (what == 'd' || what == 'D')
			last = connected(what == 'D' ? AF_INET6 : AF_INET, SOCK_STREAM, PORT + 3);
		if (what == 'd' || what == 'D')
			send(last, "x", 1, MSG_NOSIGNAL); /* TCP_DEFER_ACCEPT */
		if (what == 'a' || what == 'A')
			last = accept(ours[what == 'A'], NULL, NULL);
		if (write(to_other, what == 'x' || last >= 0 ? "x" : "-", 1) != 1)
			exit(3);
	}
}

int main(void)
{
	use_reno();
	return roles(server, client);
}
