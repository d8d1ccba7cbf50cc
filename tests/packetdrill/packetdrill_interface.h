/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of calls that packetdrill hands to the shared object named by --so_filename, in packetdrill's order.
 * Every call gets `userdata` back as its first argument; results and errno are those of the system call of the
 * same name. The device's end: netdev_send is an IP packet that reaches the stack, netdev_receive the next one
 * that left it, usleep and gettimeofday the clock.
 */
#ifndef PACKETDRILL_INTERFACE_H
#define PACKETDRILL_INTERFACE_H

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

typedef struct sockaddr pd_addr;
typedef socklen_t pd_len;

struct packetdrill_interface {
	void *userdata;
	void (*free)(void *u);
	int (*socket)(void *u, int domain, int type, int protocol);
	int (*bind)(void *u, int fd, const pd_addr *sa, pd_len len);
	int (*listen)(void *u, int fd, int backlog);
	int (*accept)(void *u, int fd, pd_addr *sa, pd_len *len);
	int (*connect)(void *u, int fd, const pd_addr *sa, pd_len len);
	ssize_t (*read)(void *u, int fd, void *to, size_t n);
	ssize_t (*readv)(void *u, int fd, const struct iovec *iov, int n);
	ssize_t (*recv)(void *u, int fd, void *to, size_t n, int flags);
	ssize_t (*recvfrom)(void *u, int fd, void *to, size_t n, int flags, pd_addr *from, pd_len *len);
	ssize_t (*recvmsg)(void *u, int fd, struct msghdr *m, int flags);
	ssize_t (*write)(void *u, int fd, const void *from, size_t n);
	ssize_t (*writev)(void *u, int fd, const struct iovec *iov, int n);
	ssize_t (*send)(void *u, int fd, const void *from, size_t n, int flags);
	ssize_t (*sendto)(void *u, int fd, const void *from, size_t n, int flags, const pd_addr *to, pd_len len);
	ssize_t (*sendmsg)(void *u, int fd, const struct msghdr *m, int flags);
	int (*fcntl)(void *u, int fd, int cmd, ...);
	int (*ioctl)(void *u, int fd, unsigned long request, ...);
	int (*close)(void *u, int fd);
	int (*shutdown)(void *u, int fd, int how);
	int (*getsockopt)(void *u, int fd, int level, int name, void *val, pd_len *len);
	int (*setsockopt)(void *u, int fd, int level, int name, const void *val, pd_len len);
	int (*poll)(void *u, struct pollfd *fds, nfds_t n, int timeout_ms);
	int (*netdev_send)(void *u, const void *packet, size_t len);
	int (*netdev_receive)(void *u, void *packet, size_t *len, long long *time_us);
	int (*usleep)(void *u, useconds_t us);
	int (*gettimeofday)(void *u, struct timeval *tv, struct timezone *tz);
	int (*epoll_create)(void *u, int size);
	int (*epoll_ctl)(void *u, int epfd, int op, int fd, struct epoll_event *ev);
	int (*epoll_wait)(void *u, int epfd, struct epoll_event *ev, int max, int timeout_ms);
	int (*pipe)(void *u, int fds[2]);
	int (*splice)(void *u, int in, loff_t *in_off, int out, loff_t *out_off, size_t n, unsigned int flags);
};

#endif
