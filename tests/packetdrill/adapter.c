/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The shared object for `packetdrill --so_filename`: Viaduct's engine behind packetdrill's table of calls, with a
 * virtual clock. Flags (--so_flags): mtu=BYTES of the device, 1500 without, and behind that ",listen": listeners listen
 * in the kernel, too. The stack's defaults are the sysctls of the network namespace that packetdrill runs in, read at
 * the script's first socket(), so scripts that set sysctls mean the engine too.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "calls.h"
#include "host/host.h"

static void call_free(void *u)
{
	calls_serve(NULL);
	machine_free(u);
}

static int fail(int err)
{
	errno = err;
	return -1;
}

static int call_socket(void *u, int domain, int type, int protocol)
{
	struct machine *m = u;
	struct machine_fd *f;

	if ((type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_STREAM || (protocol && protocol != IPPROTO_TCP))
		return fail(EPROTONOSUPPORT);
	pthread_mutex_lock(&m->mutex);
	machine_configure(m);
	int fd = machine_fd_new(m, FD_SOCK, domain == AF_INET6 ? 6 : 4, &f);
	if (fd >= 0) {
		struct sock *k = sock_alloc(&m->e, SOCK_TCP, domain == AF_INET6 ? 6 : 4);
		if (!k)
			abort();
		k->holders = 1;
		f->sock = sock_index(m->e.s, k);
		f->nonblock = (type & SOCK_NONBLOCK) != 0;
	}
	pthread_mutex_unlock(&m->mutex);
	return fd;
}

static struct sock *sock_of(struct machine *m, int fd, struct machine_fd **f)
{
	*f = machine_fd(m, fd, FD_SOCK);
	return *f ? sock_at(m->e.s, (*f)->sock) : NULL;
}

static int call_bind(void *u, int fd, const struct sockaddr *sa, socklen_t len)
{
	struct machine *m = u;
	struct machine_fd *f;
	int family, r = -1;

	pthread_mutex_lock(&m->mutex);
	struct sock *k = sock_of(m, fd, &f);
	if (k) {
		r = addr_from_sockaddr(sa, len, &k->local, &family);
		if (!r && !k->local.port)
			k->local.port = m->next_port++;
		r = r < 0 ? fail(-r) : 0;
	}
	pthread_mutex_unlock(&m->mutex);
	return r;
}

/* As under the preload library the kernel has a listener, too, which a script looks for in /proc/net/tcp. The addresses
 * of scripts are not the machine's: it listens on any, so only in a network namespace where nobody can reach it. */
static void listen_in_kernel(int fd, uint16_t port, int family, int backlog)
{
	struct sockaddr_in6 any6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons(port)};

	if (family == 6 ? bind(fd, (struct sockaddr *)&any6, sizeof(any6)) == 0
			: bind(fd, (struct sockaddr *)&any4, sizeof(any4)) == 0)
		(void)listen(fd, backlog);
}

static int call_listen(void *u, int fd, int backlog)
{
	struct machine *m = u;
	struct machine_fd *f;

	pthread_mutex_lock(&m->mutex);
	struct sock *k = sock_of(m, fd, &f);
	int r = k ? tcp_listen(&m->e, k, backlog) : -EBADF;
	if (!r && m->kernel_listens)
		listen_in_kernel(fd, k->local.port, k->family, backlog);
	pthread_mutex_unlock(&m->mutex);
	return r < 0 ? fail(-r) : 0;
}

static int call_accept(void *u, int fd, struct sockaddr *sa, socklen_t *len)
{
	struct machine *m = u;
	struct machine_fd *f, *nf;
	struct sockaddr_storage ss;
	int r = -EBADF, fd2 = -1;

	pthread_mutex_lock(&m->mutex);
	struct sock *k = sock_of(m, fd, &f);
	if (k)
		while ((r = tcp_accept(&m->e, k)) == -EAGAIN && !f->nonblock && machine_block(m))
			;
	if (r > 0)
		fd2 = machine_fd_new(m, FD_SOCK, sock_at(m->e.s, (uint32_t)r)->family, &nf);
	if (fd2 >= 0) {
		struct sock *child = sock_at(m->e.s, (uint32_t)r);
		child->holders = 1;
		nf->sock = (uint32_t)r;
		if (sa && len) {
			socklen_t n = addr_to_sockaddr(&child->remote, child->family, &ss);
			memcpy(sa, &ss, n < *len ? n : *len);
			*len = n;
		}
	}
	pthread_mutex_unlock(&m->mutex);
	return fd2 >= 0 ? fd2 : fail(r < 0 ? -r : EMFILE);
}

/* Where a connection to `remote` comes from: what was bound, else packetdrill's default local addresses. */
static void choose_local(struct machine *m, struct sock *k, const struct endpoint *remote, struct endpoint *local)
{
	static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	static const uint8_t any[16];
	bool v4 = !memcmp(remote->addr, mapped, 12);

	*local = k->local;
	if (!memcmp(local->addr, any, 16) || (v4 && !memcmp(local->addr + 12, any, 4))) {
		memcpy(local->addr, mapped, 12);
		if (v4)
			inet_pton(AF_INET, "192.168.0.1", local->addr + 12);
		else
			inet_pton(AF_INET6, "fd3d:a0b:17d6::1", local->addr);
	}
	if (!local->port)
		local->port = m->next_port++;
}

static int connect_state(struct machine *m, struct machine_fd *f, struct sock *k)
{
	while (k->tcp.state == TCP_SYN_SENT || k->tcp.state == TCP_SYN_RECEIVED) {
		if (f->nonblock)
			return -EINPROGRESS;
		if (!machine_block(m))
			return -ETIMEDOUT;
	}
	int err = k->so_error;
	k->so_error = 0;
	f->connecting = false;
	return -err;
}

static int call_connect(void *u, int fd, const struct sockaddr *sa, socklen_t len)
{
	struct machine *m = u;
	struct machine_fd *f;
	struct endpoint remote, local;
	int family, r = -EBADF;

	pthread_mutex_lock(&m->mutex);
	struct sock *k = sock_of(m, fd, &f);
	if (k && (r = addr_from_sockaddr(sa, len, &remote, &family)) == 0) {
		if (f->connecting) {
			r = connect_state(m, f, k);
			r = r == -EINPROGRESS ? -EALREADY : r;
		} else if (k->tcp.state != TCP_CLOSED) {
			r = -EISCONN;
		} else {
			choose_local(m, k, &remote, &local);
			r = tcp_connect(&m->e, k, m->vnic, &local, &remote, m->now_us);
			f->connecting = r == 0;
			if (r == 0)
				r = connect_state(m, f, k);
		}
		machine_moved(m);
	}
	pthread_mutex_unlock(&m->mutex);
	return r < 0 ? fail(-r) : 0;
}

static int call_fcntl(void *u, int fd, int cmd, ...)
{
	struct machine *m = u;
	struct machine_fd *f;
	va_list ap;
	int r = 0;

	va_start(ap, cmd);
	int arg = va_arg(ap, int);
	va_end(ap);
	pthread_mutex_lock(&m->mutex);
	if (!sock_of(m, fd, &f))
		r = -1;
	else if (cmd == F_GETFL)
		r = O_RDWR | (f->nonblock ? O_NONBLOCK : 0);
	else if (cmd == F_SETFL)
		f->nonblock = (arg & O_NONBLOCK) != 0;
	pthread_mutex_unlock(&m->mutex);
	return r;
}

static int call_ioctl(void *u, int fd, unsigned long request, ...)
{
	struct machine *m = u;
	struct machine_fd *f;
	va_list ap;
	int r = 0;

	va_start(ap, request);
	int *arg = va_arg(ap, int *);
	va_end(ap);
	pthread_mutex_lock(&m->mutex);
	struct sock *k = sock_of(m, fd, &f);
	if (!k)
		r = -1;
	else if (request == FIONREAD)
		*arg = (int)tcp_inq(&m->e, k);
	else if (request == SIOCOUTQ)
		*arg = (int)tcp_outq(&m->e, k);
	else if (request == FIONBIO)
		f->nonblock = *arg != 0;
	else if (request == SIOCATMARK)
		*arg = tcp_atmark(&m->e, k);
	else
		r = fail(ENOTTY);
	pthread_mutex_unlock(&m->mutex);
	return r;
}

static int call_close(void *u, int fd)
{
	struct machine *m = u;
	int r = 0;

	pthread_mutex_lock(&m->mutex);
	if (fd < 0 || fd >= MACHINE_FDS || m->fd[fd].use == FD_FREE) {
		r = fail(EBADF);
	} else if (m->fd[fd].use == FD_SOCK) {
		struct sock *k = sock_at(m->e.s, m->fd[fd].sock);
		sets_forget(m, fd);
		k->holders = 0;
		k->flags |= SOCKF_ORPHAN;
		m->fd[fd].use = FD_FREE;
		close(fd);
		tcp_close(&m->e, k, m->now_us);
		machine_moved(m);
	} else {
		sets_clear(&m->fd[fd]);
		m->fd[fd].use = FD_FREE;
		close(fd);
	}
	pthread_mutex_unlock(&m->mutex);
	return r;
}

static int call_shutdown(void *u, int fd, int how)
{
	struct machine *m = u;
	struct machine_fd *f;

	pthread_mutex_lock(&m->mutex);
	struct sock *k = sock_of(m, fd, &f);
	int r = k ? tcp_shutdown(&m->e, k, how, m->now_us) : -EBADF;
	machine_moved(m);
	pthread_mutex_unlock(&m->mutex);
	return r < 0 ? fail(-r) : 0;
}

static int call_netdev_send(void *u, const void *packet, size_t len)
{
	struct machine *m = u;

	pthread_mutex_lock(&m->mutex);
	machine_input(m, packet, len);
	pthread_mutex_unlock(&m->mutex);
	return 0;
}

static int call_netdev_receive(void *u, void *packet, size_t *len, long long *time_us)
{
	struct machine *m = u;

	pthread_mutex_lock(&m->mutex);
	if (machine_run_for_frame(m)) {
		struct out_frame *o = &m->out[m->out_head++ % MACHINE_OUT];
		size_t n = o->len - 14 < *len ? o->len - 14 : *len;
		memcpy(packet, o->bytes + 14, n);
		*len = n;
		*time_us = (long long)o->us;
		free(o->bytes);
	} else {
		*len = 0; /* nothing will ever leave: packetdrill reports the missing packet */
		*time_us = (long long)m->now_us;
	}
	pthread_mutex_unlock(&m->mutex);
	return 0;
}

static int call_usleep(void *u, useconds_t us)
{
	struct machine *m = u;

	pthread_mutex_lock(&m->mutex);
	machine_run_until(m, m->now_us + us);
	pthread_mutex_unlock(&m->mutex);
	return 0;
}

static int call_gettimeofday(void *u, struct timeval *tv, struct timezone *tz)
{
	struct machine *m = u;

	(void)tz;
	pthread_mutex_lock(&m->mutex);
	machine_run_until(m, m->now_us + 1);
	tv->tv_sec = (time_t)(m->now_us / 1000000);
	tv->tv_usec = (suseconds_t)(m->now_us % 1000000);
	pthread_mutex_unlock(&m->mutex);
	return 0;
}

__attribute__((visibility("default"))) void packetdrill_interface_init(const char *flags,
								       struct packetdrill_interface *ifc);

void packetdrill_interface_init(const char *flags, struct packetdrill_interface *ifc)
{
	unsigned mtu;

	*ifc = (struct packetdrill_interface){
	    .userdata = machine_new(),
	    .free = call_free,
	    .socket = call_socket,
	    .bind = call_bind,
	    .listen = call_listen,
	    .accept = call_accept,
	    .connect = call_connect,
	    .read = call_read,
	    .readv = call_readv,
	    .recv = call_recv,
	    .recvfrom = call_recvfrom,
	    .recvmsg = call_recvmsg,
	    .write = call_write,
	    .writev = call_writev,
	    .send = call_send,
	    .sendto = call_sendto,
	    .sendmsg = call_sendmsg,
	    .fcntl = call_fcntl,
	    .ioctl = call_ioctl,
	    .close = call_close,
	    .shutdown = call_shutdown,
	    .getsockopt = call_getsockopt,
	    .setsockopt = call_setsockopt,
	    .poll = call_poll,
	    .netdev_send = call_netdev_send,
	    .netdev_receive = call_netdev_receive,
	    .usleep = call_usleep,
	    .gettimeofday = call_gettimeofday,
	    .epoll_create = call_epoll_create,
	    .epoll_ctl = call_epoll_ctl,
	    .epoll_wait = call_epoll_wait,
	    .pipe = call_pipe,
	    .splice = call_splice,
	};
	if (!ifc->userdata)
		abort();
	((struct machine *)ifc->userdata)->kernel_listens = flags && strstr(flags, "listen");
	if (flags && sscanf(flags, "mtu=%u", &mtu) == 1 && mtu >= 1280 && mtu <= 1800)
		((struct machine *)ifc->userdata)->mtu = mtu;
	calls_serve(ifc->userdata);
}
