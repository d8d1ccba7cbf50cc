/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sending and receiving on TCP sockets. The first try is the fast path: one hold of the lock, in which frames that wait
 * on the socket's own vNIC are taken in first. If that was not enough and the call blocks, wait_for runs the same
 * step again whenever something has arrived.
 */
#include "socket/busy.h"
#include "socket/raw.h"
#include "socket/sockopt.h"
#include "socket/sockets.h"
#include "socket/unlocked.h"

/* A call under way. */
struct io {
	vsock_t v;
	const struct iovec *iov;
	int iovcnt;
	int flags; /* TCP_F_* */
	bool send;
	bool everything; /* look at all vNICs of the stack, not only at the socket's */
	size_t total;    /* bytes asked for */
	size_t target;   /* receiving: enough once this much is there */
	size_t done;
	ssize_t result;      /* of the last step: > 0 went on, 0 end of stream, negative errno */
	uint64_t timeout_us; /* of the socket, 0 none */
	bool nonblock;
};

static size_t iov_total(const struct iovec *iov, int n)
{
	size_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

static inline bool own_pending(struct attached *a, const struct sock *k)
{
	const struct vnic *v = k->vnic < VNIC_MAX ? &a->e.vnic[k->vnic] : NULL;

	return v && v->ops && (v->evq ? ring_full(v->evq, v->st->evq_cons, WIRE_RING) : vnic_pending(v));
}

static inline size_t low_water(const struct io *io, const struct sock *k)
{
	if (io->target)
		return io->target; /* MSG_WAITALL */
	return k->rcvlowat > 1 ? (k->rcvlowat < io->total ? k->rcvlowat : io->total) : 1;
}

/* One try. True: the call is over, or (nonblocking) this is all that can be done now. */
static inline bool io_step(struct io *io)
{
	struct attached *a;
	struct sock *k = vs_enter(io->v, &a);
	uint64_t now;
	ssize_t n;
	bool over;

	if (__builtin_expect(!k, 0)) {
		io->result = -EBADF;
		return true;
	}
	now = stack_now(a);
	if (io->everything ? stack_pending(a) : own_pending(a, k))
		stack_poll(a, now);
	if (io->send)
		n = tcp_send(&a->e, k, io->iov, io->iovcnt, io->done, io->flags, now);
	else
		n = tcp_recv(&a->e, k, io->iov, io->iovcnt, io->done, io->flags, now);
	io->result = n;
	if (n > 0)
		io->done += (size_t)n;
	else if (n < 0 && n != -EAGAIN && n != -EPIPE && n != -EFAULT && io->done)
		k->so_error = (int32_t)-n; /* what was moved is reported now, the error at the next call */
	over = io->send ? io->done >= io->total || (n < 0 && n != -EAGAIN)
			: (n != -EAGAIN &&
			   (n <= 0 || io->flags & TCP_F_PEEK || io->done >= low_water(io, k) || tcp_atmark(&a->e, k)));
	if (!over) {
		io->timeout_us = io->send ? k->sndtimeo_us : k->rcvtimeo_us;
		io->nonblock = k->flags & SOCKF_NONBLOCK;
	}
	stack_leave(a);
	return over;
}

static bool io_ready(void *arg)
{
	return io_step(arg);
}

static ssize_t io_result(const struct io *io)
{
	return io->done ? (ssize_t)io->done : io->result;
}

/* The kernel closes the sockets of a process that ends when its threads are gone; we do it before. A thread that would
 * see the end of the stream by that waits for its own. */
static void end_with_process(void)
{
	while (busy_ending())
		raw_call(SYS_ppoll, 0, 0, 0, 0, 0, 0);
}

static __attribute__((noinline)) ssize_t io_wait(struct io *io)
{
	struct wait w = {
	    .ready = io_ready,
	    .arg = io,
	    .timeout_us = io->timeout_us ? (int64_t)io->timeout_us : -1,
	    .kernel_fd = -1,
	    .restart = !io->timeout_us,
	    .sock = io->v,
	    .takes_in = true,
	};
	int ret;

	io->everything = true;
	busy_begin(io->v);
	ret = wait_for(&w);
	busy_end(io->v);
	if (ret == 0 && !io->done && io->result <= 0)
		end_with_process();
	if (ret < 0 && !io->done)
		return ret == -ETIMEDOUT ? -EAGAIN : ret;
	return io_result(io);
}

static inline bool tcp_name(vsock_t v)
{
	struct attached *a;
	const struct sock *k = unlocked_sock(v, &a);

	return !k || unlocked_u8(&k->proto) == SOCK_TCP;
}

#define SHORT_SPINS 128

/* A blocking receive that finds nothing: watch the socket's own ring for a moment before anything else, without the
 * lock. */
static inline void short_spin(struct attached *a, const struct sock *k)
{
	uint32_t vnic = unlocked_u32(&k->vnic);
	const struct vnic_state *st;
	struct vnic_desc *evq;

	if (vnic >= VNIC_MAX || !unlocked_awaits(k) || !knob[K_SPIN_US] || wait_same_core || wait_sleepy)
		return;
	st = stack_vnic(a->s, vnic);
	evq = unlocked_evq(&a->e.vnic[vnic]);
	for (int i = 0; evq && i < SHORT_SPINS; i++) {
		if (vnic_evq_waits(evq, st, WIRE_RING))
			return;
		if (i == IDLE_SPINS)
			process_idle();
		wait_relax();
	}
}

/* Take in what waits on the socket's own vNIC; of all vNICs once a millisecond, so that none is forgotten: the other
 * end may be ours, too. */
static inline void take_in_own(struct attached *a, const struct sock *k, uint64_t now)
{
	if (__builtin_expect(a->polled_tick != now >> 10, 0)) {
		a->polled_tick = now >> 10;
		stack_poll(a, now);
	} else if (own_pending(a, k)) {
		engine_poll_vnic(&a->e, k->vnic, now, POLL_BUDGET);
	}
}

/* By the clock, and with what has arrived. */
static inline __attribute__((always_inline)) ssize_t quick_at(struct attached *a, struct sock *k,
							      const struct iovec *iov, bool send)
{
	uint64_t now = stack_now(a);
	ssize_t n;

	take_in_own(a, k, now);
	n = send ? tcp_fast_send(&a->e, k, iov->iov_base, iov->iov_len, now)
		 : tcp_fast_recv(&a->e, k, iov->iov_base, iov->iov_len, now);
	if (__builtin_expect(!n, 0))
		n = send ? tcp_send(&a->e, k, iov, 1, 0, 0, now) : tcp_recv(&a->e, k, iov, 1, 0, 0, now);
	return n;
}

/*
 * The usual call, one buffer and no flags, in one hold of the lock and as little else as can be. -EAGAIN: nothing was
 * done, and the other way must be gone (which may mean to wait).
 */
static inline __attribute__((always_inline)) ssize_t quick(vsock_t v, const struct iovec *iov, bool send, bool spin)
{
	struct attached *a;
	struct sock *k = unlocked_sock(v, &a);
	ssize_t n = -EAGAIN;

	if (!k || unlocked_u8(&k->proto) != SOCK_TCP)
		return -EAGAIN;
	if (spin)
		short_spin(a, k);
	stack_enter(a);
	if (__builtin_expect(k->proto == SOCK_TCP && k->gen == (uint32_t)v && k->rcvlowat <= 1, 1)) {
		if (send && k->tcp.send_head && !own_pending(a, k) &&
		    (n = tcp_fast_gather(&a->e, k, iov->iov_base, iov->iov_len)) > 0) {
			lock_release_plain(a->s);
			return n;
		}
		n = quick_at(a, k, iov, send);
	}
	stack_leave(a);
	return n;
}

static __attribute__((noinline)) ssize_t send_any(vsock_t v, const struct iovec *iov, int iovcnt, int flags, bool wait,
						  size_t done)
{
	struct io io = {.v = v, .iov = iov, .iovcnt = iovcnt, .send = true, .done = done};

	io.flags =
	    (flags & MSG_OOB ? TCP_F_OOB : 0) | (flags & MSG_MORE ? TCP_F_MORE : 0) | (flags & MSG_EOR ? TCP_F_EOR : 0);
	io.total = iov_total(iov, iovcnt);
	if (io_step(&io) || !wait || flags & MSG_DONTWAIT || io.nonblock)
		return io_result(&io);
	return io_wait(&io);
}

/* What can go in one hold of the lock, or -EAGAIN. */
static inline __attribute__((always_inline)) ssize_t quick_send(vsock_t v, const struct iovec *iov, int flags)
{
	return flags & ~(MSG_NOSIGNAL | MSG_DONTWAIT) ? -EAGAIN : quick(v, iov, true, false);
}

/* n came of it: is the call over? */
static inline bool quick_was_all(ssize_t n, size_t len)
{
	return n >= 0 ? (size_t)n == len : n != -EAGAIN;
}

ssize_t vs_send(vsock_t v, int fd, const struct iovec *iov, int iovcnt, int flags, const struct sockaddr *to,
		socklen_t tolen, const void *control, size_t controllen, bool wait)
{
	ssize_t n = iovcnt == 1 ? quick_send(v, iov, flags) : -EAGAIN;

	if (iovcnt == 1 && quick_was_all(n, iov->iov_len))
		return n;
	if (!tcp_name(v))
		return udp_transmit(v, fd, iov, iovcnt, flags, to, tolen, control, controllen, wait);
	return send_any(v, iov, iovcnt, flags, wait, n > 0 ? (size_t)n : 0);
}

static __attribute__((noinline)) ssize_t write_rest(vsock_t v, int fd, struct iovec iov, int flags, ssize_t n)
{
	bool wait = !(flags & MSG_DONTWAIT);

	if (!tcp_name(v))
		return udp_transmit(v, fd, &iov, 1, flags, NULL, 0, NULL, 0, wait);
	return send_any(v, &iov, 1, flags, wait, n > 0 ? (size_t)n : 0);
}

ssize_t vs_write(vsock_t v, int fd, const void *buf, size_t len, int flags)
{
	struct iovec iov = {(void *)buf, len};
	ssize_t n = quick_send(v, &iov, flags);

	return quick_was_all(n, len) ? n : write_rest(v, fd, iov, flags, n);
}

static __attribute__((noinline)) ssize_t recv_any(vsock_t v, const struct iovec *iov, int iovcnt, int flags, bool wait)
{
	struct io io = {.v = v, .iov = iov, .iovcnt = iovcnt};

	io.flags = (flags & MSG_OOB ? TCP_F_OOB : 0) | (flags & MSG_PEEK ? TCP_F_PEEK : 0) |
		   (flags & MSG_TRUNC ? TCP_F_TRUNC : 0);
	io.total = iov_total(iov, iovcnt);
	io.target = flags & MSG_WAITALL ? io.total : 0;
	if (io_step(&io))
		return io_result(&io);
	if (wait && !io.nonblock)
		return io_wait(&io);
	process_idle();
	return io_result(&io);
}

static size_t inq_control(vsock_t v, void *control, size_t room)
{
	struct attached *a;
	struct sock *k = room ? vs_enter(v, &a) : NULL;
	size_t n = k ? sockopt_inq_control(&a->e, k, control, room) : 0;

	if (k)
		stack_leave(a);
	return n;
}

ssize_t vs_recv(vsock_t v, int fd, const struct iovec *iov, int iovcnt, int flags, struct sockaddr *from,
		socklen_t *fromlen, void *control, size_t *controllen, int *msg_flags, bool wait)
{
	ssize_t n;

	if (iovcnt == 1 && !(flags & ~MSG_DONTWAIT) && !fromlen && !controllen && !msg_flags) {
		n = quick(v, iov, false, wait && !flags);
		if (n != -EAGAIN)
			return n;
	}
	if (!tcp_name(v))
		return udp_receive(v, fd, iov, iovcnt, flags, from, fromlen, control, controllen, msg_flags, wait);
	if (flags & MSG_ERRQUEUE)
		return vs_recv_error(v, fd, iov, iovcnt, flags, from, fromlen, control, controllen, msg_flags);
	if (fromlen)
		*fromlen = 0;
	if (msg_flags)
		*msg_flags = flags & MSG_OOB;
	wait = wait && !(flags & MSG_DONTWAIT);
	n = recv_any(v, iov, iovcnt, flags, wait);
	if (msg_flags && flags & MSG_OOB && !n && !iov_total(iov, iovcnt))
		*msg_flags |= MSG_TRUNC;
	if (controllen)
		*controllen = n >= 0 ? inq_control(v, control, *controllen) : 0;
	return n;
}
