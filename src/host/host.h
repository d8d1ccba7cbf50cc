/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's view: real system calls, the clock, rendezvous of two processes for a wire, who owns a port.
 *
 * The preload library interposes libc's socket calls, so nothing in this project may reach a kernel socket
 * through them: every system call on a descriptor goes through host_sys (filled by the preload library with
 * dlsym(RTLD_NEXT), by default libc's own).
 */
#ifndef VD_HOST_H
#define VD_HOST_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "engine/sock.h"

#undef sigmask /* the C library has an old macro of that name; here it is a member */

/* --- clock (clock.c): TSC where it is invariant, calibrated against CLOCK_MONOTONIC, else clock_gettime --- */
void clock_init(void);
uint64_t clock_us(void);     /* same epoch as CLOCK_MONOTONIC, so processes of a tree agree */
uint64_t clock_cycles(void); /* cheapest counter, for short spans */
/* The counter itself, where it costs less than the clock does; it says nothing of the time. */
static inline uint64_t clock_counter(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	return clock_cycles();
#endif
}
uint64_t clock_cycles_per_us(void);
/* Follow CLOCK_MONOTONIC's rate and take out what we are off, never going backwards. The helper calls it when it
 * wakes; it costs a clock_gettime at most every 10 ms, and does nothing in between. One thread at a time works. */
void clock_recalibrate(void);

/* --- descriptors of our own (fds.c): close-on-exec, moved above the program's usual numbers --- */
int host_fd_high(int fd);     /* dup to a high number, close the low one; -errno leaves fd as it was */
int host_fd_own(int fd);      /* the same for one just made, or for -1 (errno says why): if it fails, fd is closed */
int host_fd_dup_high(int fd); /* a duplicate of ours; fd stays as it is. -errno: no number free up there */
bool host_fd_is_ours(int fd); /* the program must not close it */
void host_fd_close(int fd);
bool host_fd_plenty(void); /* so many are allowed that those we could do without may stay */
/* Have a message carry these descriptors (SCM_RIGHTS); control is aligned for a struct cmsghdr and has room for
 * CMSG_SPACE(count * sizeof(int)) bytes. count 0: it carries none. */
void host_fds_attach(struct msghdr *msg, void *control, const int *fds, uint32_t count);
int host_fd_next(int from); /* our first descriptor at or above from, -1 none: for close_range, closefrom */

/* Names of our memfds in /proc/PID/fd: "/memfd:<name> (deleted)". */
#define STACK_MEMFD_NAME "viaduct:stack"
#define WIRE_MEMFD_NAME "viaduct:wire"

/* --- other processes (proc.c) --- */
int proc_accelerated(pid_t pid); /* has the library mapped: 1 yes, 0 no, -errno */

/* --- rendezvous (rendezvous.c): abstract Unix sockets named after the listening address --- */
/* Name: "\0viaduct1/<tcp|udp>/<address>/<port>"; address as inet_ntop prints it (IPv4 where mapped); for any
 * address "*4", "*6" (serves IPv4 too) or "*6only". `family` is 4 or 6 (AF_INET and AF_INET6 are understood).
 * Accepted and listening ends carry that name, connecting ends "\0viaduct1/wire/<nonce>", so tools know them. */
#define RDV_PREFIX "viaduct1/"
/* Listen for wires to this endpoint. Returns a nonblocking descriptor, -EADDRINUSE (squatted or shared). */
int rdv_listen(enum sock_proto proto, int family, const struct endpoint *local, bool v6only);

/* A wire as both its ends name it, and who is at the other end. */
struct rdv_link {
	uint8_t nonce[16];
	uint8_t stack[16]; /* identity of the stack at the other end */
	uint32_t pid, uid;
};

/* What a process says of itself, and what it knows. */
struct rdv_self {
	uint8_t stack[16]; /* identity of the stack that the wire is for */
	int doorbell[2];   /* our own two */
	bool any_user;     /* knob PEERS */
	/* Do we have a live wire to this stack, pid and uid? exact: the one of this nonce; else any, whose nonce is
	 * stored. NULL: we have none. */
	bool (*find)(void *arg, struct rdv_link *link, bool exact);
	void *arg;
};

struct rdv_wire {
	int memfd;       /* the wire's region, mapped by the caller */
	int doorbell[2]; /* the peer's: [0] thread, [1] helper; -1: ring with rdv_ring */
	int life_fd;     /* hangs up when the peer is gone */
	int end;         /* which end of the wire is ours */
	struct rdv_link link;
};
#define RDV_KNOWN 1 /* a wire that both sides have already: out->link.nonce names it, nothing else was made */
/* Connect to whoever listens at remote (exact address, then *4 / *6), check with sock_diag that its user owns
 * that port, then agree on a wire that both have, or make one and swap descriptors. 0, RDV_KNOWN, -ECONNREFUSED
 * (nobody), -EPERM (other user or squatted: *squatted tells), -EPROTO (version), -ETIMEDOUT. Blocks up to timeout_ms.
 */
int rdv_connect(enum sock_proto proto, int family, const struct endpoint *remote, const struct rdv_self *self,
		int timeout_ms, struct rdv_wire *out, bool *squatted);
/* The accepting side, called when the listening descriptor is readable. -EAGAIN none waits, or it needs none;
 * -EPROTO, -EPERM: that one was refused, try the next. -EMFILE and other errors: as from accept4. */
int rdv_accept(int listen_fd, const struct rdv_self *self, int timeout_ms, struct rdv_wire *out);
/* The same in steps, for who must not wait. A descriptor that is allowed to ask for a wire, or as rdv_accept. */
int rdv_accept_begin(int listen_fd, bool any_user);
/* When it is readable: 0; -EAGAIN: more must come; else as rdv_accept. Unless -EAGAIN, fd is closed or out's. */
int rdv_accept_step(int fd, const struct rdv_self *self, struct rdv_wire *out);
/* May what this user made be written to, and what we write to be given to it? Else it could make our writes block. */
bool rdv_trusted(uint32_t uid);
/* Ring the other end of a wire by its connection: `kind` is what it armed. Never blocks, whatever the other does. */
void rdv_ring(int life_fd, uint8_t kind);
/* Take in what was rung: bits 1 << kind. Reads a bounded number of rings. */
uint32_t rdv_rung(int life_fd);
/* Don't wait for it any longer. status: -EPERM, -EUSERS (we have no socket for it) or -EPROTO. */
void rdv_accept_refuse(int fd, int status);

/* --- who owns a port (diag.c) --- */
/* The user who owns the kernel's listening TCP (bound UDP) socket at this endpoint: 0, or -ENOENT. */
int diag_port_owner(enum sock_proto proto, int family, const struct endpoint *local, uint32_t *uid, uint64_t *inode);

/* The inodes of all sockets that listen (are bound) at this port, at any address: with SO_REUSEPORT there are
 * several. Returns how many were stored, at most max. */
int diag_port_inodes(enum sock_proto proto, uint16_t port, uint64_t *inodes, int max);

/* --- addresses (addr.c) --- */
bool addr_is_local(const uint8_t addr[16]); /* loopback or an address of an interface here; cached 1 s */
/* The interface that has this address, as of a second ago; 0: none. Loopback's is 1. */
uint32_t addr_ifindex(const uint8_t addr[16]);
/* *family: 4 or 6. -EINVAL too short, -EAFNOSUPPORT neither IPv4 nor IPv6. A scope id is not kept. */
int addr_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct endpoint *ep, int *family);
socklen_t addr_to_sockaddr(const struct endpoint *ep, int family, struct sockaddr_storage *ss);

/* --- the real calls --- */
struct msghdr;
struct host_sys {
	int (*socket)(int, int, int);
	int (*bind)(int, const struct sockaddr *, socklen_t);
	int (*listen)(int, int);
	int (*accept4)(int, struct sockaddr *, socklen_t *, int);
	int (*connect)(int, const struct sockaddr *, socklen_t);
	int (*close)(int);
	int (*getsockname)(int, struct sockaddr *, socklen_t *);
	int (*getpeername)(int, struct sockaddr *, socklen_t *);
	int (*getsockopt)(int, int, int, void *, socklen_t *);
	int (*setsockopt)(int, int, int, const void *, socklen_t);
	int (*shutdown)(int, int);
	ssize_t (*sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
	ssize_t (*sendmsg)(int, const struct msghdr *, int);
	ssize_t (*recvmsg)(int, struct msghdr *, int);
	ssize_t (*read)(int, void *, size_t);
	ssize_t (*write)(int, const void *, size_t);
	int (*poll)(struct pollfd *, unsigned long, int);
	int (*fcntl)(int, int, ...);
	int (*epoll_create1)(int);
	int (*epoll_ctl)(int, int, int, struct epoll_event *);
	int (*epoll_pwait)(int, struct epoll_event *, int, int, const sigset_t *);
	int (*sigmask)(int, const sigset_t *, sigset_t *);
};
extern struct host_sys host_sys;

#endif
