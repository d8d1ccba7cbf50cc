/* SPDX-License-Identifier: BSD-2-Clause */
/* An actor's calls that carry data. What is sent follows from how much was sent before; what was received is shown by a
 * hash. */
#include "play.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define DATA_MAX 65536
#define PIECES_MAX 6
static unsigned char data[DATA_MAX + 64];

static size_t bounded(int n)
{
	return n < 0 ? 0 : n > DATA_MAX ? DATA_MAX : (size_t)n;
}

/* Pieces of unequal size; the second is empty. */
static int cut(struct iovec *iov, size_t n, int pieces)
{
	size_t at = 0, part;

	pieces = pieces > PIECES_MAX ? PIECES_MAX : pieces;
	for (int i = 0; i < pieces; i++) {
		part = i == pieces - 1 ? n - at : i == 1 ? 0 : (n - at) / 3;
		iov[i] = (struct iovec){data + at, part};
		at += part;
	}
	return pieces;
}

static void fill(const struct actor *me, size_t n)
{
	for (size_t i = 0; i < n; i++)
		data[i] = (unsigned char)((me->sent + i) * 167 >> 3);
}

static void answer_data(struct actor *me, long r, size_t room)
{
	unsigned hash = 2166136261u;
	size_t n = r < 0 ? 0 : (size_t)r < room ? (size_t)r : room;

	for (size_t i = 0; i < n; i++)
		hash = (hash ^ data[i]) * 16777619u;
	if (n)
		answer(me, " data %08x", hash);
	for (size_t i = room; i < room + 16; i++)
		if (data[i] != 0xdd) {
			answer(me, " wrote behind the buffer");
			break;
		}
}

static void act_send(struct actor *me, const struct step *s, int fd)
{
	struct sockaddr_storage sa;
	struct iovec iov[PIECES_MAX];
	struct msghdr m = {.msg_iov = iov};
	bool to = s->op != OP_write && s->a[s->op == OP_send ? 3 : 4] >= 0;
	int flags = s->op == OP_send ? s->a[2] : s->op == OP_sendmsg ? s->a[3] : 0;
	socklen_t length = to ? make_address(me, s->a[s->op == OP_send ? 3 : 4], &sa) : 0;
	size_t n = bounded(s->a[1]);
	ssize_t r;

	if (would_wait(me, fd, flags, POLLOUT))
		return;
	fill(me, n);
	m.msg_iovlen = s->op == OP_send ? 0 : (size_t)cut(iov, n, s->a[2]);
	m.msg_name = to ? &sa : NULL;
	m.msg_namelen = length;
	if (s->op == OP_send)
		r = to ? sendto(fd, data, n, flags, (struct sockaddr *)&sa, length) : send(fd, data, n, flags);
	else if (s->op == OP_write)
		r = s->a[2] ? writev(fd, iov, (int)m.msg_iovlen) : write(fd, data, n);
	else
		r = sendmsg(fd, &m, flags);
	answer_result(me, r);
	me->sent += r > 0 ? (unsigned)r : 0;
}

/* MSG_WAITALL waits for all. */
static bool would_wait_for_all(struct actor *me, int fd, int flags, size_t n)
{
	struct pollfd p = {fd, POLLRDHUP, 0};
	int there = 0;

	if (!(flags & MSG_WAITALL) || (flags & MSG_DONTWAIT) || poll(&p, 1, 0) != 0 ||
	    ioctl(fd, FIONREAD, &there) < 0 || (size_t)there >= n)
		return false;
	answer(me, " would wait for all");
	return true;
}

static ssize_t receive(const struct step *s, int fd, size_t n, int flags, struct msghdr *m)
{
	if (s->op == OP_read)
		return s->a[2] ? readv(fd, m->msg_iov, (int)m->msg_iovlen) : read(fd, data, n);
	if (s->op == OP_recvmsg)
		return recvmsg(fd, m, flags);
	return s->a[3] ? recvfrom(fd, data, n, flags, m->msg_name, &m->msg_namelen) : recv(fd, data, n, flags);
}

static void act_recv(struct actor *me, const struct step *s, int fd)
{
	struct sockaddr_storage sa = {0};
	struct iovec iov[PIECES_MAX];
	char control[256];
	struct msghdr m = {&sa, sizeof sa, iov, 0, control, sizeof control, 0};
	int flags = s->op == OP_recv ? s->a[2] : s->op == OP_recvmsg ? s->a[3] : 0;
	size_t n = bounded(s->a[1]);
	ssize_t r;

	if (would_wait(me, fd, flags, flags & MSG_OOB ? POLLIN | POLLPRI : POLLIN) ||
	    would_wait_for_all(me, fd, flags, n))
		return;
	memset(data, 0xdd, n + 64);
	m.msg_iovlen = (size_t)cut(iov, n, s->op == OP_recv ? 1 : s->a[2]);
	r = receive(s, fd, n, flags, &m);
	answer_result(me, r);
	answer_data(me, r, n);
	if (r < 0 || s->op == OP_read || (s->op == OP_recv && !s->a[3]))
		return;
	answer_address(me, &sa, m.msg_namelen);
	if (s->op == OP_recvmsg)
		answer(me, " flags %x control %zu", (unsigned)m.msg_flags, m.msg_controllen);
}

void act_data(struct actor *me, const struct step *s)
{
	int fd = descriptor(me, s->a[0]);

	if (s->op == OP_send || s->op == OP_write || s->op == OP_sendmsg)
		act_send(me, s, fd);
	else if (s->op == OP_recv || s->op == OP_read || s->op == OP_recvmsg)
		act_recv(me, s, fd);
}
