/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Receiving datagrams, from both halves of a socket (udp_socket.c), and the errors that MSG_ERRQUEUE reads.
 *
 * The engine's queue first; the kernel's when that is empty, and every KERNEL_TURN datagrams. A blocking call that
 * comes soon after another (knob POLL_KERNEL_US) leaves the kernel's half to wait_for, so a ping-pong makes no system
 * call per message. A nonblocking call always looks: the program may have been told of a kernel's datagram. What the
 * kernel would tell beside a datagram's bytes (ip(7), ipv6(7)) is made of what came with it (cmsg.c).
 */
#define _GNU_SOURCE
#include "engine/bytes.h"
#include "engine/route.h"
#include "socket/cmsg.h"
#include "socket/sockets.h"

#define KERNEL_TURN 64u

struct receiving {
	vsock_t v;
	int fd;
	const struct iovec *iov;
	int iovcnt, flags;
	struct sockaddr *from;
	socklen_t *fromlen;
	void *control;
	size_t *controllen;
	int msg_flags;
	bool patient; /* blocking: the kernel's half may wait a little */
	bool nonblock;
	bool shut; /* for reading */
	uint64_t timeout_us;
	ssize_t result;
};

/* When this thread last looked at the kernel's half of which socket. */
static _Thread_local struct {
	vsock_t v;
	uint64_t us;
	uint32_t turns;
} kernel_looked;

static size_t room(const struct iovec *iov, int n)
{
	size_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

/* Enter its stack and take in what there is; the next datagram is such as this process can read, if need be after it
 * has mapped the wire that a relative got it by. */
static struct sock *enter_readable(vsock_t v, struct attached **ap)
{
	struct sock *k = vs_enter(v, ap);
	uint32_t vnic;

	if (k && stack_pending(*ap))
		stack_poll(*ap, stack_now(*ap));
	vnic = k ? udp_first_elsewhere(&(*ap)->e, k) : VNIC_NONE;
	if (__builtin_expect(vnic == VNIC_NONE, 1))
		return k;
	stack_leave(*ap);
	wire_map(*ap, vnic);
	return vs_enter(v, ap);
}

/* What is told of the datagram. With the lock. */
static void learn(struct attached *a, const struct sock *k, const struct udp_meta *meta, struct cmsg_datagram *d)
{
	const struct vnic_state *st = meta->vnic < VNIC_MAX ? stack_vnic(a->s, meta->vnic) : NULL;
	struct route r;

	if (!k->udp.cmsgs) {
		d->cmsgs = 0;
		d->family = k->family;
		d->meta.from = meta->from;
		return;
	}
	*d = (struct cmsg_datagram){.cmsgs = k->udp.cmsgs, .family = k->family, .meta = *meta};
	d->ifindex = st ? st->ifindex : 0;
	memcpy(d->ours, meta->to.addr, sizeof(d->ours));
	if (!udp_is_group(meta->to.addr))
		return;
	/* which of our addresses an answer would come from */
	(void)route_lookup(a->e.view, meta->from.addr, (const uint8_t[16]){0}, 0, 0, &r);
	memcpy(d->ours, r.from, sizeof(d->ours));
}

/* Everything but the bytes, to the program. */
static void tell(struct receiving *c, struct cmsg_datagram *d)
{
	struct cmsg_room room = {.at = c->control, .left = c->control && c->controllen ? *c->controllen : 0};

	if (d->meta.from.port)
		sock_name_out(&d->meta.from, d->family, c->from, c->fromlen);
	if (!c->controllen)
		return;
	if (d->cmsgs & (UDP_CMSG_PKTINFO | UDP_CMSG_PKTINFO6) && !d->ifindex)
		d->ifindex = addr_ifindex(d->meta.to.addr); /* over a wire */
	cmsg_datagram(&room, d);
	*c->controllen = room.used;
	c->msg_flags |= room.flags;
}

/* The engine's half. */
static ssize_t receive_engine(struct receiving *c)
{
	struct attached *a;
	struct sock *k = enter_readable(c->v, &a);
	struct udp_meta meta = {0};
	struct cmsg_datagram d;
	ssize_t n;

	if (!k)
		return -EBADF;
	c->nonblock = k->flags & SOCKF_NONBLOCK;
	c->timeout_us = k->rcvtimeo_us;
	n = udp_recv(&a->e, k, c->iov, c->iovcnt, c->flags & MSG_PEEK, &meta);
	if (n >= 0)
		learn(a, k, &meta, &d);
	c->shut = k->flags & SOCKF_SHUT_RD;
	stack_leave(a);
	if (n < 0)
		return n;
	c->msg_flags = meta.size > room(c->iov, c->iovcnt) ? MSG_TRUNC : 0;
	tell(c, &d);
	return c->flags & MSG_TRUNC ? (ssize_t)meta.size : n;
}

static ssize_t receive_kernel(struct receiving *c)
{
	struct msghdr m = {.msg_name = c->from,
			   .msg_namelen = c->fromlen ? *c->fromlen : 0,
			   .msg_iov = (struct iovec *)(uintptr_t)c->iov,
			   .msg_iovlen = (size_t)c->iovcnt,
			   .msg_control = c->control,
			   .msg_controllen = c->control && c->controllen ? *c->controllen : 0};
	ssize_t n = host_sys.recvmsg(c->fd, &m, c->flags | MSG_DONTWAIT);

	if (n < 0)
		return -errno;
	if (c->fromlen)
		*c->fromlen = m.msg_namelen;
	if (c->controllen)
		*c->controllen = m.msg_controllen;
	c->msg_flags = m.msg_flags;
	return n;
}

/* Is it the kernel's turn? */
static bool kernel_due(const struct receiving *c)
{
	uint64_t now;

	if (!c->patient)
		return true;
	now = clock_us();
	if (kernel_looked.v == c->v && now - kernel_looked.us < knob[K_POLL_KERNEL_US])
		return false;
	kernel_looked.v = c->v;
	kernel_looked.us = now;
	return true;
}

/* Shut down for reading: nothing is an end for who would wait; who would not hears EAGAIN. */
static ssize_t receive_end(struct receiving *c)
{
	if (c->controllen)
		*c->controllen = 0;
	if (c->fromlen)
		*c->fromlen = 0;
	return 0;
}

static bool receive_step(void *arg)
{
	struct receiving *c = arg;

	c->result = -EAGAIN;
	if (++kernel_looked.turns % KERNEL_TURN == 0)
		c->result = receive_kernel(c);
	if (c->result == -EAGAIN)
		c->result = receive_engine(c);
	if (c->result == -EAGAIN && (c->shut || kernel_due(c)))
		c->result = receive_kernel(c);
	if (c->result == -EAGAIN && c->shut && c->patient)
		c->result = receive_end(c);
	return c->result != -EAGAIN;
}

ssize_t udp_receive(vsock_t v, int fd, const struct iovec *iov, int iovcnt, int flags, struct sockaddr *from,
		    socklen_t *fromlen, void *control, size_t *controllen, int *msg_flags, bool wait)
{
	struct receiving c = {.v = v,
			      .fd = fd,
			      .iov = iov,
			      .iovcnt = iovcnt,
			      .flags = flags,
			      .from = from,
			      .fromlen = fromlen,
			      .control = control,
			      .controllen = controllen};
	struct wait w = {.ready = receive_step, .arg = &c, .timeout_us = -1, .kernel_fd = -1, .restart = true};
	int ret = 0;

	c.patient = wait && !(flags & MSG_DONTWAIT) && !vs_nonblock(v);
	if (flags & MSG_ERRQUEUE) {
		return vs_recv_error(v, fd, iov, iovcnt, flags, from, fromlen, control, controllen, msg_flags);
	} else if (!receive_step(&c) && c.patient) {
		if (c.timeout_us) {
			w.timeout_us = (int64_t)c.timeout_us;
			w.restart = false;
		}
		w.sock = v;
		w.watch_fd = fd;
		w.watch_events = POLLIN;
		ret = wait_for(&w);
	}
	if (msg_flags)
		*msg_flags = c.msg_flags;
	if (ret < 0 && c.result < 0)
		return ret == -ETIMEDOUT ? -EAGAIN : ret;
	return c.result;
}
