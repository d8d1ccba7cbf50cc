/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Accelerated sockets passed to another process (SCM_RIGHTS, unix(7)).
 *
 * A message to a process under viaduct carries, behind the program's own descriptors, what its library needs to go on
 * with the sockets (socket/handover.h), and last the memfd that says what is what; the receiving library takes these
 * out before the program sees the message. All is in the message itself, so the sender may close and end before it is
 * read.
 *
 * The receiver is known by the other end of the Unix socket (SO_PEERCRED). Where that does not run under viaduct as the
 * same user, or the socket can't go over (viaductd knows the stack): a listener, a UDP socket or one that is not
 * connected becomes the kernel's, under the sender's descriptors too, and is passed as such. A connection can't:
 * sendmsg fails with EOPNOTSUPP, and `explain` says why.
 *
 * Messages that a program receives with recvmmsg are not looked into.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "calls.h"
#include "fdtable.h"
#include "heirs.h"
#include "host/host.h"
#include "rights.h"
#include "thread.h"

#define RIGHTS_MAX 253 /* descriptors in a message: SCM_MAX_FD */
#define EXTRA_ROOM CMSG_SPACE(RIGHTS_MAX * sizeof(int))
#define CONTROL_MAX 65536 /* of a program's control buffer: larger ones the kernel refuses, or never fills */

static bool carries(const struct cmsghdr *c)
{
	return c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len >= CMSG_LEN(sizeof(int));
}

static size_t count_of(const struct cmsghdr *c)
{
	return (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
}

static int fd_at(const struct cmsghdr *c, size_t i)
{
	int fd;

	memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
	return fd;
}

/* The next descriptor of ours in the message from the n-th of all on; -1: none. */
static int next_ours(const struct msghdr *m, size_t *n)
{
	size_t seen = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR((struct msghdr *)m, c)) {
		for (size_t i = 0; carries(c) && i < count_of(c); i++) {
			if (seen++ < *n || fd_vsock(fd_at(c, i)) == VS_NONE)
				continue;
			*n = seen;
			return fd_at(c, i);
		}
	}
	return -1;
}

bool rights_ours(const struct msghdr *m)
{
	size_t n = 0;

	return fd_limit && rights_expected(m) && !bad_pointer(m->msg_control) && next_ours(m, &n) >= 0;
}

/* --- sending --- */

struct sending {
	struct handover *h;
	int memfd;
	int fds[RIGHTS_MAX]; /* what travels along */
	uint32_t n;
	bool full;
	int alive[VS_STACKS_MAX]; /* of each stack; they travel, ours are closed */
	uint32_t stacks;
};

/* Does whoever reads from the other end run under viaduct, as this user? Where the kernel knows only ourselves (a
 * socketpair, before fork) it is a process of our tree. */
static bool peer_takes_over(int fd)
{
	struct ucred peer = {0};
	socklen_t len = sizeof(peer);
	int loaded;

	if (real.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.pid <= 0)
		return false;
	if (peer.pid == getpid())
		return true;
	loaded = proc_accelerated(peer.pid);
	return peer.uid == geteuid() && (loaded == 1 || loaded == -ENOENT);
}

static void put_place(int *fd, void *arg)
{
	struct sending *s = arg;

	if (s->n >= RIGHTS_MAX - 1) {
		s->full = true;
		return;
	}
	s->fds[s->n] = *fd;
	*fd = (int)s->n++;
}

/* Everything that the receiver needs for the sockets in the message. False: they can't go over. What is in the memfd is
 * the receiver's when the message has gone. */
static bool pack(struct sending *s, const struct msghdr *m)
{
	bool all = true;
	size_t n = 0;
	int fd;

	s->h = handover_new(HEIR_FAR, &s->memfd);
	if (!s->h)
		return false;
	while (all && (fd = next_ours(m, &n)) >= 0)
		all = handover_add(s->h, fd_vsock(fd), fd, false) == 0;
	for (; s->stacks < s->h->stacks; s->stacks++)
		s->alive[s->stacks] = s->h->stack[s->stacks].alive_fd;
	handover_each_fd(s->h, put_place, s);
	s->h->places = s->n;
	s->fds[s->n++] = s->memfd;
	return all && !s->full;
}

/* The message's own control messages, and one more. */
static ssize_t send_packed(const struct sending *s, int fd, const struct msghdr *m, int flags)
{
	char *control = malloc(m->msg_controllen + EXTRA_ROOM + CMSG_ALIGN(1));
	struct msghdr copy = *m;
	struct cmsghdr *c;
	size_t at = CMSG_ALIGN(m->msg_controllen);
	ssize_t r;

	if (!control)
		return (ssize_t)posix_result(-ENOMEM);
	memset(control, 0, at);
	memcpy(control, m->msg_control, m->msg_controllen);
	c = (struct cmsghdr *)(void *)(control + at);
	*c = (struct cmsghdr){
	    .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(s->n * sizeof(int))};
	memcpy(CMSG_DATA(c), s->fds, s->n * sizeof(int));
	copy.msg_control = control;
	copy.msg_controllen = at + CMSG_SPACE(s->n * sizeof(int));
	r = real.sendmsg(fd, &copy, flags);
	free(control);
	return r;
}

/* Sockets that the kernel can go on with do so. False: one is a connection. */
static bool leave_to_kernel(const struct msghdr *m)
{
	bool all = true;
	size_t n = 0;
	int fd;

	while ((fd = next_ours(m, &n)) >= 0) {
		vsock_t v = fd_vsock(fd);

		if (vs_leave(v)) {
			fd_to_kernel(fd, v, REASON_PASSED);
			continue;
		}
		vs_publish_fd(fd, FD_ACCELERATED, v, REASON_NOT_PASSED);
		all = false;
	}
	return all;
}

ssize_t rights_send(int fd, const struct msghdr *m, int flags)
{
	struct sending s = {.memfd = -1};
	bool packed = m->msg_controllen <= CONTROL_MAX && peer_takes_over(fd) && pack(&s, m);
	ssize_t r = 0;
	int error;

	if (packed)
		r = send_packed(&s, fd, m, flags);
	error = errno;
	for (uint32_t i = 0; i < s.stacks; i++)
		host_fd_close(s.alive[i]); /* unless a copy travels, the helper frees the entry */
	if (s.h)
		handover_free(s.h, s.memfd);
	errno = error;
	if (packed)
		return r;
	return leave_to_kernel(m) ? real.sendmsg(fd, m, flags) : (ssize_t)posix_result(-EOPNOTSUPP);
}

/* --- receiving --- */

struct receiving {
	int fds[RIGHTS_MAX]; /* the program's, then what travelled along, then the memfd */
	size_t n, own;       /* all; the program's */
	struct handover *h;
};

/* Take out what is not the program's. */
static void unpack(struct receiving *x, const struct msghdr *got)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(got); c; c = CMSG_NXTHDR((struct msghdr *)got, c))
		for (size_t i = 0; carries(c) && i < count_of(c) && x->n < RIGHTS_MAX; i++)
			x->fds[x->n++] = fd_at(c, i);
	x->own = x->n;
	x->h = x->n > 1 ? heirs_read(x->fds[x->n - 1]) : NULL;
	if (x->h && x->h->places < x->n - 1)
		x->own = x->n - 1 - x->h->places;
	else if (x->h)
		x->own = x->n - 1;
}

/* Write the program's part of it as the kernel would: as much as there is room for. */
static void give_program(struct receiving *x, const struct msghdr *got, struct msghdr *m)
{
	size_t room = m->msg_controllen, used = 0, seen = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(got); c; c = CMSG_NXTHDR((struct msghdr *)got, c)) {
		struct cmsghdr *to = (struct cmsghdr *)(void *)((char *)m->msg_control + used);
		size_t len = c->cmsg_len - CMSG_LEN(0), space;

		if (carries(c)) {
			size_t n = count_of(c), fits;

			n = seen + n > x->own ? (x->own > seen ? x->own - seen : 0) : n;
			fits = room - used < CMSG_LEN(sizeof(int)) ? 0 : (room - used - CMSG_LEN(0)) / sizeof(int);
			for (size_t i = fits; i < n; i++) {
				real.close(x->fds[seen + i]);
				x->fds[seen + i] = -1;
			}
			m->msg_flags |= fits < n ? MSG_CTRUNC : 0;
			seen += n;
			len = (fits < n ? fits : n) * sizeof(int);
			if (!len)
				continue;
		} else if (room - used < CMSG_LEN(len)) {
			m->msg_flags |= MSG_CTRUNC;
			if (room - used < CMSG_LEN(0))
				continue;
			len = room - used - CMSG_LEN(0);
		}
		memcpy(to, c, CMSG_LEN(len));
		to->cmsg_len = CMSG_LEN(len);
		space = CMSG_SPACE(len);
		used += space < room - used ? space : room - used;
	}
	m->msg_controllen = used;
}

static void adopt(struct receiving *x, bool peek)
{
	for (size_t i = 0; i < x->own; i++)
		if (x->fds[i] >= 0)
			fd_set_other(x->fds[i]); /* its number is new */
	if (!x->h)
		return;
	real.close(x->fds[x->n - 1]);
	x->h->heir = HEIR_FAR;
	if (peek) { /* they will come again */
		for (size_t i = x->own; i + 1 < x->n; i++)
			real.close(x->fds[i]);
	} else if (handover_place(x->h, x->fds + x->own, (uint32_t)(x->n - 1 - x->own)) && handover_adopt(x->h) == 0) {
		for (size_t i = 0; i < x->own; i++)
			if (x->fds[i] >= 0)
				heirs_claim(x->h, x->fds[i]);
		heirs_claimed(x->h);
	}
	handover_free(x->h, -1);
}

ssize_t rights_receive(int fd, struct msghdr *m, int flags)
{
	struct receiving x = {0};
	struct msghdr got;
	char *control;
	ssize_t r;
	int error;

	if (bad_pointer(m->msg_control) || m->msg_controllen > CONTROL_MAX)
		return real.recvmsg(fd, m, flags);
	control = malloc(m->msg_controllen + EXTRA_ROOM);
	if (!control)
		return real.recvmsg(fd, m, flags);
	got = *m;
	got.msg_control = control;
	got.msg_controllen = m->msg_controllen + EXTRA_ROOM;
	r = real.recvmsg(fd, &got, flags);
	error = errno;
	if (r >= 0) {
		m->msg_namelen = got.msg_namelen;
		m->msg_flags = got.msg_flags;
		unpack(&x, &got);
		give_program(&x, &got, m);
		adopt(&x, flags & MSG_PEEK);
	}
	free(control);
	errno = error;
	return r;
}
