/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An actor: a process that makes the calls that it is told, each on the descriptor in a slot, and answers with
 * everything that the program could see of them: results, errno, addresses, values. Ports are written @N; the conductor
 * names them, because those that the kernel chose differ from run to run.
 *
 * A call that would wait is not made (would_wait): nobody else would take a step meanwhile.
 */
#include "play.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile sig_atomic_t broken_pipes;

static void note_signal(int number)
{
	if (number == SIGPIPE)
		broken_pipes++;
}

void answer(struct actor *me, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(me->text + me->length, sizeof me->text - me->length, format, args);
	va_end(args);
	if (n > 0 && me->length + (size_t)n < sizeof me->text)
		me->length += (size_t)n;
}

void answer_result(struct actor *me, long r)
{
	if (r < 0)
		answer(me, " = %s", strerrorname_np(errno));
	else
		answer(me, " = %ld", r);
}

int descriptor(const struct actor *me, int slot)
{
	return slot >= 0 && slot < SLOTS ? me->fd[slot] : -1;
}

void put_descriptor(struct actor *me, int slot, int fd)
{
	if (fd < 0 || slot < 0 || slot >= SLOTS)
		return;
	if (me->fd[slot] >= 0 && me->fd[slot] != fd)
		close(me->fd[slot]);
	me->fd[slot] = fd;
}

bool would_wait(struct actor *me, int fd, int flags, short events)
{
	struct pollfd p = {fd, events, 0};
	int r = fcntl(fd, F_GETFL);

	if (r < 0 || (r & O_NONBLOCK) || (flags & MSG_DONTWAIT) || poll(&p, 1, 0) != 0)
		return false;
	answer(me, " would wait");
	return true;
}

unsigned make_address(const struct actor *me, int code, struct sockaddr_storage *sa)
{
	struct sockaddr_in *in = (struct sockaddr_in *)sa;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)sa;
	int kind = code / 10, port = code % 10;

	memset(sa, 0, sizeof *sa);
	port = port < PORTS ? me->ports + port : port == 8 ? 0 : 7;
	if (kind == AT_V6 || kind == AT_MAPPED || kind == AT_ANY6) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		if (kind == AT_V6)
			in6->sin6_addr = in6addr_loopback;
		else if (kind == AT_MAPPED)
			inet_pton(AF_INET6, "::ffff:127.0.0.1", &in6->sin6_addr);
		return sizeof *in6;
	}
	in->sin_family = kind == AT_UNSPEC ? AF_UNSPEC : kind == AT_BAD_FAMILY ? 99 : AF_INET;
	in->sin_port = htons((uint16_t)port);
	in->sin_addr.s_addr = htonl(kind == AT_ANY4 ? INADDR_ANY : kind == AT_OTHER4 ? 0x7f000002 : INADDR_LOOPBACK);
	return kind == AT_SHORT ? 7 : sizeof *in;
}

void answer_address(struct actor *me, const struct sockaddr_storage *sa, unsigned length)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sa;
	char text[INET6_ADDRSTRLEN] = "?";

	answer(me, " [%u]", length);
	if (length < sizeof *in || (sa->ss_family != AF_INET && sa->ss_family != AF_INET6))
		return;
	if (sa->ss_family == AF_INET) {
		inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
		answer(me, " %s @%u", text, ntohs(in->sin_port));
	} else if (length >= sizeof *in6) {
		inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text);
		answer(me, " %s @%u %u %u", text, ntohs(in6->sin6_port), in6->sin6_flowinfo, in6->sin6_scope_id);
	}
}

static void act_socket(struct actor *me, const int *a)
{
	int family = a[1] == 4 ? AF_INET : a[1] == 6 ? AF_INET6 : a[1];
	int fd = socket(family, a[2] | a[3], a[4]);

	answer_result(me, fd);
	put_descriptor(me, a[0], fd);
}

static void act_accept(struct actor *me, int fd, const int *a)
{
	struct sockaddr_storage sa;
	socklen_t length = (socklen_t)a[3];
	int r;

	if (would_wait(me, fd, 0, POLLIN))
		return;
	memset(&sa, 0, sizeof sa);
	r = a[3] < 0 ? accept4(fd, NULL, NULL, a[2]) : accept4(fd, (struct sockaddr *)&sa, &length, a[2]);
	answer_result(me, r);
	if (r >= 0 && a[3] >= 0)
		answer_address(me, &sa, length);
	put_descriptor(me, a[1], r);
}

static void act_names(struct actor *me, const struct step *s, int fd)
{
	struct sockaddr_storage sa = {0};
	socklen_t length = (socklen_t)s->a[1];
	int r = s->op == OP_sockname ? getsockname(fd, (struct sockaddr *)&sa, &length)
				     : getpeername(fd, (struct sockaddr *)&sa, &length);

	answer_result(me, r);
	if (r >= 0)
		answer_address(me, &sa, length);
}

static void act_address(struct actor *me, const struct step *s, int fd)
{
	struct sockaddr_storage sa;
	socklen_t length = make_address(me, s->a[1], &sa);

	answer_result(me, s->op == OP_bind ? bind(fd, (struct sockaddr *)&sa, length)
					   : connect(fd, (struct sockaddr *)&sa, length));
}

/* The number stays in the slot after close: later steps so use one that is closed, or was taken by another. */
static void act_dup(struct actor *me, const struct step *s, int fd)
{
	int r = -1, over = descriptor(me, s->a[1]);

	switch (s->op) {
	case OP_dup:
		r = dup(fd);
		break;
	case OP_dup2:
		r = dup2(fd, over);
		break;
	case OP_dupfd:
		r = fcntl(fd, F_DUPFD_CLOEXEC, s->a[2]);
		break;
	}
	answer_result(me, r);
	put_descriptor(me, s->a[1], r);
}

static void act_option(struct actor *me, const struct step *s, int fd)
{
	const struct option *o = &options[(unsigned)s->a[1] % (unsigned)n_options];
	unsigned char value[64];
	socklen_t length = (socklen_t)s->a[2];
	int words[2], r;

	answer(me, " %s", o->text);
	memset(value, 0xee, sizeof value);
	if (s->op == OP_setopt) {
		words[0] = s->a[2];
		words[1] = s->a[2] == 1 ? 0 : 3;
		memcpy(value, words, sizeof words);
		answer_result(me, setsockopt(fd, o->level, o->name, value, (socklen_t)s->a[3]));
		return;
	}
	r = getsockopt(fd, o->level, o->name, value, &length);
	answer_result(me, r);
	answer(me, " [%d]", (int)length);
	if (r >= 0 && length <= sizeof value)
		for (socklen_t i = 0; i < length; i++)
			answer(me, "%02x", value[i]);
}

static void act_ioctl(struct actor *me, const struct step *s, int fd)
{
	int value = s->op == OP_nonblock ? s->a[1] : -77, r;

	if (s->op == OP_nonblock && !s->a[2])
		r = fcntl(fd, F_SETFL, value ? O_NONBLOCK : 0);
	else
		r = ioctl(fd, s->op == OP_nonblock ? FIONBIO : s->op == OP_inq ? (int)FIONREAD : SIOCATMARK, &value);
	answer_result(me, r);
	if (s->op != OP_nonblock)
		answer(me, " %d", value);
}

static void act_step(struct actor *me, const struct step *s)
{
	int fd = descriptor(me, s->a[0]);

	answer(me, " %d", fd);
	switch (s->op) {
	case OP_socket:
		act_socket(me, s->a);
		break;
	case OP_bind:
	case OP_connect:
		act_address(me, s, fd);
		break;
	case OP_listen:
		answer_result(me, listen(fd, s->a[1]));
		break;
	case OP_accept:
		act_accept(me, fd, s->a);
		break;
	case OP_shutdown:
		answer_result(me, shutdown(fd, s->a[1]));
		break;
	case OP_close:
		answer_result(me, close(fd));
		break;
	case OP_dup:
	case OP_dup2:
	case OP_dupfd:
		act_dup(me, s, fd);
		break;
	case OP_getfl:
		answer_result(me, fcntl(fd, F_GETFL));
		answer_result(me, fcntl(fd, F_GETFD));
		break;
	case OP_nonblock:
	case OP_inq:
	case OP_atmark:
		act_ioctl(me, s, fd);
		break;
	case OP_getopt:
	case OP_setopt:
		act_option(me, s, fd);
		break;
	case OP_sockname:
	case OP_peername:
		act_names(me, s, fd);
		break;
	default:
		act_data(me, s);
		act_sets(me, s);
	}
}

static void act_end(struct actor *me)
{
	int left = 0;

	for (int i = 0; i < SLOTS; i++)
		if (me->fd[i] >= 0)
			close(me->fd[i]);
	for (int fd = 3; fd < 100; fd++)
		left += fcntl(fd, F_GETFD) >= 0;
	answer(me, " %d left", left);
	for (int fd = 3; left && fd < 100; fd++)
		close(fd);
}

void act(int from, int to)
{
	static struct actor me;
	struct sigaction sa = {.sa_handler = note_signal};
	struct step s;

	sigaction(SIGPIPE, &sa, NULL);
	sigaction(SIGALRM, &sa, NULL);
	while (read(from, &s, sizeof s) == sizeof s) {
		broken_pipes = 0;
		me.length = 0;
		if (s.op == OP_begin) {
			memset(me.fd, -1, sizeof me.fd);
			me.ports = s.a[0];
			me.sent = 0;
		} else if (s.op == OP_look) {
			look(&me, s.a[0] != 0);
		} else if (s.op == OP_end) {
			act_end(&me);
		} else {
			act_step(&me, &s);
		}
		if (broken_pipes)
			answer(&me, " SIGPIPE");
		answer(&me, "\n");
		if (write(to, me.text, me.length) != (ssize_t)me.length)
			break;
	}
	exit(0);
}
