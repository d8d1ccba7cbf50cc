/* SPDX-License-Identifier: BSD-2-Clause */
/* The system calls that packetdrill makes, over the machine. Each locks machine.mutex itself. */
#ifndef CALLS_H
#define CALLS_H

#include "machine.h"
#include "packetdrill_interface.h"

int call_epoll_create(void *u, int size);
int call_epoll_ctl(void *u, int epfd, int op, int fd, struct epoll_event *ev);
int call_epoll_wait(void *u, int epfd, struct epoll_event *ev, int max, int timeout_ms);
int call_poll(void *u, struct pollfd *fds, nfds_t n, int timeout_ms);

ssize_t call_read(void *u, int fd, void *to, size_t n);
ssize_t call_readv(void *u, int fd, const struct iovec *iov, int n);
ssize_t call_recv(void *u, int fd, void *to, size_t n, int flags);
ssize_t call_recvfrom(void *u, int fd, void *to, size_t n, int flags, struct sockaddr *from, socklen_t *len);
ssize_t call_recvmsg(void *u, int fd, struct msghdr *msg, int flags);
ssize_t call_write(void *u, int fd, const void *from, size_t n);
ssize_t call_writev(void *u, int fd, const struct iovec *iov, int n);
ssize_t call_send(void *u, int fd, const void *from, size_t n, int flags);
ssize_t call_sendto(void *u, int fd, const void *from, size_t n, int flags, const struct sockaddr *to, socklen_t len);
ssize_t call_sendmsg(void *u, int fd, const struct msghdr *msg, int flags);

/* Pipes are the kernel's; one end of a splice is a socket of the machine. */
int call_pipe(void *u, int fds[2]);
int call_splice(void *u, int in, loff_t *in_off, int out, loff_t *out_off, size_t n, unsigned int flags);

int call_getsockopt(void *u, int fd, int level, int name, void *val, socklen_t *len);
int call_setsockopt(void *u, int fd, int level, int name, const void *val, socklen_t len);

/* The C library's getsockopt and sendfile know the sockets of this machine from now on (NULL: of none). */
void calls_serve(struct machine *m);

#endif
