/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the socket layer give each other, beside the door (process.h). */
#ifndef VD_SOCKETS_H
#define VD_SOCKETS_H

#include <netinet/in.h>

#include "host/host.h"
#include "host/knobs.h"
#include "host/rules.h"
#include "socket/helper.h"
#include "socket/process.h"
#include "socket/wire.h"

/* What is on this machine comes by the loopback interface, so a socket bound to another one does not hear it. */
#define LOOPBACK_IFINDEX 1u

/* --- socket.c --- */
/* This process gives up its hold; the last one closes. With the lock. */
void sock_let_go(struct attached *a, struct sock *k, uint64_t now_us);
/* The kernel takes the descriptor over: end our half without a word to anybody. Returns VS_KERNEL. */
int sock_to_kernel(vsock_t v, enum reason why, enum reason *reason);
/* Does a rule leave it to the kernel? Address and port are those of the server (host/rules.h). *why: the reason. */
bool sock_rule(enum sock_proto proto, enum rule_role role, const struct sockaddr *server, socklen_t len,
	       enum reason *why);
/* Read fd's bound address into *ep. 0 or -errno; a port of 0: not bound. */
int sock_kernel_name(int fd, struct endpoint *ep);
/* Of the backing socket, for tools: a forked child's listeners and UDP sockets are found by it. Connections come and go
 * without this call; they are found by the table of descriptors. 0: not to be had. */
uint64_t sock_inode(int fd);
/* sockaddr out: at most *len bytes, *len becomes the true size (as getsockname(2)). */
void sock_name_out(const struct endpoint *ep, int family, struct sockaddr *sa, socklen_t *len);
/* A time that was read so few counts ago is the time still: less than a microsecond. */
#define SAME_TIME_CYCLES 1024

/* Read the clock for a call into the engine, and fire what is due. With the lock. */
static inline uint64_t stack_now(struct attached *a)
{
	uint64_t cycles = clock_counter();

	if (cycles - a->now_cycles >= SAME_TIME_CYCLES) {
		a->now_cycles = cycles;
		a->now_us = clock_us();
		if (__builtin_expect(a->s->wheel.pending && a->now_us >> 10 > a->s->wheel.now_ms, 0))
			engine_tick(&a->e, a->now_us);
	}
	/* another process of the tree may have read it later: time does not go back */
	return a->now_us > a->s->now_us ? a->now_us : a->s->now_us;
}

/* With the lock: what has arrived is taken in before a call says how its socket stands. */
static inline void stack_take_in(struct attached *a)
{
	if (stack_pending(a))
		stack_poll(a, stack_now(a));
}

/* --- connect.c --- */
/* What a refused nonblocking connect may still do: nothing; the kernel's connect; a new rendezvous first, because it
 * went over a wire that was known; a thread is at it. */
enum retry { RETRY_NOT, RETRY_KERNEL, RETRY_WIRE, RETRY_BUSY };
/* True, with the lock: k was refused and may try again. */
static inline bool connect_refused(const struct sock *k)
{
	return __builtin_expect(k->connect_retry, 0) && k->tcp.state == TCP_CLOSED && k->so_error == ECONNREFUSED;
}
/* Try it. True: it is under way again, or the kernel's from now on. With no lock held. */
bool connect_again(vsock_t v);

/* It was bound: an IPv6 address of its own makes it IPv6 only, as in the kernel. */
void sock_v6only(struct sock *k);

/* --- listen.c: which rendezvous descriptor listens for a socket, and listeners taken over after fork --- */
vsock_t listener_clone(vsock_t v); /* what this process accepts from in its own stack instead of v; VS_NONE: nothing */
/* Interfaces have come: this process's listeners in stack a that no network knows try again. */
void listeners_look_again(struct attached *a);
void listener_drop(vsock_t v); /* v is closed here: its clone too */
int rendezvous_open(vsock_t v, enum sock_proto proto, int family, const struct endpoint *local, bool v6only);
void rendezvous_close(vsock_t v);
int rendezvous_fd(vsock_t v); /* -1: none */
/* It came from whom v came from (handover.c). 0: the descriptor is ours from here on; -errno. */
int rendezvous_adopt(vsock_t v, int fd, enum sock_proto proto);
void listener_after_fork(void);

/* --- options.c --- */
/* True, with the lock: the program has set options that the backing socket alone has. Then it serves nobody else. */
bool options_kept(struct sock *k);
/* A connection's backing socket gets those of its listener's. With no lock held. */
void options_inherit(int listener, int fd, const uint32_t kept[SOCK_OPTION_WORDS]);

/* --- udp_socket.c --- */
int udp_bind(vsock_t v, int fd, const struct sockaddr *sa, socklen_t len);
int udp_connect(vsock_t v, int fd, const struct sockaddr *sa, socklen_t len);
ssize_t udp_transmit(vsock_t v, int fd, const struct iovec *iov, int iovcnt, int flags, const struct sockaddr *to,
		     socklen_t tolen, const void *control, size_t controllen, bool wait);
/* An option has been set that only the kernel follows: it has the socket's datagrams from here on. */
void udp_leave_to_kernel(vsock_t v);
void udp_forget(void);

/* --- udp_recv.c --- */
ssize_t udp_receive(vsock_t v, int fd, const struct iovec *iov, int iovcnt, int flags, struct sockaddr *from,
		    socklen_t *fromlen, void *control, size_t *controllen, int *msg_flags, bool wait);

/* --- errqueue.c: recvmsg(MSG_ERRQUEUE) on any socket --- */
ssize_t vs_recv_error(vsock_t v, int fd, const struct iovec *iov, int iovcnt, int flags, struct sockaddr *from,
		      socklen_t *fromlen, void *control, size_t *controllen, int *msg_flags);

#endif
