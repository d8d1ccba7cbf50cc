/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sockets for the preload library: everything about accelerated sockets but descriptors and POSIX dressing.
 *
 * A vsock_t names a socket: attached stack (8 bits), socket index (24), generation (32). 0 is none. Fewer than 64
 * stacks are attached at once, so the two highest bits are 0: the descriptor table keeps its kind there.
 * Calls return 0 or more, a negative errno, or VS_KERNEL: «the kernel serves this one from now on»; the
 * reason is then in *reason (reason.h) and the caller uses the real call on the same descriptor.
 * `fd` is always the backing kernel socket. Any thread may call; locking is inside.
 * Blocking: calls with `wait` true wait (spin, then sleep) as the socket's flags and timeouts ask for;
 * -EINTR, -EAGAIN, -EINPROGRESS as the kernel has them.
 */
#ifndef VD_VSOCK_H
#define VD_VSOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "engine/sock.h"
#include "socket/reason.h"

typedef uint64_t vsock_t;
#define VS_NONE ((vsock_t)0)
#define VS_STACKS_MAX 64u

static inline uint32_t vs_stack_of(vsock_t v)
{
	return (uint32_t)(v >> 56);
}

static inline uint32_t vs_index_of(vsock_t v)
{
	return (uint32_t)(v >> 32) & 0xffffffu;
}

#define VS_KERNEL (-4096) /* below every errno */

/* --- making and ending --- */
/* An accelerated socket behind fd, or VS_KERNEL (family, type or protocol not ours; no stack to be had). */
int vs_socket(int domain, int type, int protocol, int fd, vsock_t *out, enum reason *reason);
/* socket() as a whole: a descriptor, perhaps one whose backing socket was used before, and *out, or VS_NONE with
 * *reason: the kernel's. Descriptor or -errno. */
int vs_open(int domain, int type, int protocol, vsock_t *out, enum reason *reason);
/* This process's last descriptor for it is closed (the caller closes fd itself, after this). */
void vs_close(vsock_t v, bool wait_linger);
/* The same; fd, its last descriptor, is still open, so the backing socket can be kept for another. */
void vs_close_fd(vsock_t v, int fd, bool wait_linger);
/* The kernel's half of it can go on alone (a listener, a UDP socket, one that is not connected): then it does, and our
 * half has ended: VS_KERNEL's place. False: it is a connection, or one that waits for its connect. */
bool vs_leave(vsock_t v);
/* Something was done to the backing socket that the engine does not know of: it will not be used again. */
void vs_spoil(vsock_t v);
/* First of all, with no lock of the epoll sets: frames that are held back go. */
void vs_fork_begin(void);
/* After fork, in the child: the child's process slot is added to the holders of these sockets. Called by the
 * fork interposer with all of the process's sockets, in the parent before fork (prepare), then in both. */
void vs_fork_prepare(const vsock_t *all, size_t n);
void vs_fork_parent(int child_pid); /* 0: not known (fork inside libc); -1: fork failed */
void vs_fork_child(void);
/* exit(): every socket this process holds is closed as the kernel does at exit. */
void vs_exit(const vsock_t *all, size_t n);

/* --- addresses and connections --- */
int vs_bind(vsock_t v, int fd, const struct sockaddr *sa, socklen_t len, enum reason *reason);
int vs_listen(vsock_t v, int fd, int backlog, enum reason *reason);
int vs_connect(vsock_t v, int fd, const struct sockaddr *sa, socklen_t len, bool wait, enum reason *reason);
/* The next connection, from the engine or from the kernel. Returns the new descriptor; *child is its socket,
 * or VS_NONE if the kernel serves it (then *reason). flags: SOCK_NONBLOCK, SOCK_CLOEXEC. sa/len may be NULL. */
int vs_accept(vsock_t v, int fd, struct sockaddr *sa, socklen_t *len, int flags, bool wait, vsock_t *child,
	      enum reason *reason);
/* Set by the preload library: call the kernel's connect on this process's descriptor of v, and if that succeeds or is
 * under way, let the kernel serve the descriptor from now on. */
extern bool (*vs_connect_in_kernel)(vsock_t v, const struct sockaddr *sa, socklen_t len, enum reason reason);
int vs_shutdown(vsock_t v, int fd, int how);
int vs_getsockname(vsock_t v, int fd, struct sockaddr *sa, socklen_t *len);
int vs_getpeername(vsock_t v, int fd, struct sockaddr *sa, socklen_t *len);

/* --- data. flags: MSG_*; a UDP or listening socket's kernel half is looked at too. --- */
ssize_t vs_send(vsock_t v, int fd, const struct iovec *iov, int iovcnt, int flags, const struct sockaddr *to,
		socklen_t tolen, const void *control, size_t controllen, bool wait);
/* The same for the usual call: one buffer, to nobody in particular. */
ssize_t vs_write(vsock_t v, int fd, const void *buf, size_t len, int flags);
ssize_t vs_recv(vsock_t v, int fd, const struct iovec *iov, int iovcnt, int flags, struct sockaddr *from,
		socklen_t *fromlen, void *control, size_t *controllen, int *msg_flags, bool wait);

/* For tools: what descriptor fd of this process is now. FD_OTHER clears the entry. */
void vs_publish_fd(int fd, enum fd_kind kind, vsock_t v, enum reason reason);

/* --- options --- */
int vs_setsockopt(vsock_t v, int fd, int level, int name, const void *val, socklen_t len);
int vs_getsockopt(vsock_t v, int fd, int level, int name, void *val, socklen_t *len);
/* The program wants of it what only the kernel does. VS_KERNEL: the kernel's from now on; 0: it is ours, but its
 * datagrams are the kernel's; -EOPNOTSUPP: a connection that is ours already. */
int vs_leave_to_kernel(vsock_t v);
int vs_set_nonblock(vsock_t v, bool on); /* fcntl(O_NONBLOCK), FIONBIO; the caller sets it on fd as well */
bool vs_nonblock(vsock_t v);
int vs_inq(vsock_t v, int fd); /* FIONREAD */
int vs_outq(vsock_t v);        /* SIOCOUTQ */
int vs_atmark(vsock_t v);      /* SIOCATMARK */

/* --- readiness (wait.h has the waiting itself) --- */
/* Level readiness, EV_*. Does not look at the kernel half. */
uint32_t vs_poll(vsock_t v);
/* True if the backing socket can become readable by itself (listener, UDP): then it must be watched too. */
bool vs_has_kernel_half(vsock_t v);
/* The program shows that it will accept here (accept, poll, select, epoll): in a forked child the listener
 * is taken over into the child's own stack. */
void vs_listener_interest(vsock_t v, int fd);
/* False: the name is stale, the socket is gone. */
bool vs_alive(vsock_t v);

#endif
