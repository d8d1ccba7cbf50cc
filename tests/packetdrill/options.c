/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * getsockopt and setsockopt for packetdrill scripts. As in the preload library a kernel socket of the same kind checks
 * each value first and answers for the options that the engine does not know; what the engine knows it gets after that.
 */
#include <string.h>

#include "calls.h"
#include "socket/sockopt.h"

/* The kernel socket that stands behind a socket of the engine: made when the first option is set or read. */
static int backing(struct machine_fd *f, const struct sock *k)
{
	if (f->kernel_fd < 0)
		f->kernel_fd = socket(k->family == 6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return f->kernel_fd;
}

static bool buffer_size(int fd, int level, int name, int *v)
{
	socklen_t len = sizeof(*v);
	bool rcv = name == SO_RCVBUF || name == SO_RCVBUFFORCE, snd = name == SO_SNDBUF || name == SO_SNDBUFFORCE;

	return level == SOL_SOCKET && (rcv || snd) &&
	       getsockopt(fd, SOL_SOCKET, rcv ? SO_RCVBUF : SO_SNDBUF, v, &len) == 0;
}

int call_setsockopt(void *u, int fd, int level, int name, const void *val, socklen_t len)
{
	struct machine *m = u;
	int r = -1, size;

	pthread_mutex_lock(&m->mutex);
	struct machine_fd *f = machine_fd(m, fd, FD_SOCK);
	if (f) {
		struct sock *k = sock_at(m->e.s, f->sock);
		int kernel = backing(f, k);
		r = setsockopt(kernel, level, name, val, len);
		if (r == 0) {
			if (buffer_size(kernel, level, name, &size)) {
				val = &size;
				len = sizeof(size);
			}
			int err = sockopt_set(&m->e, k, level, name, val, len, m->now_us);
			if (err < 0) {
				errno = -err;
				r = -1;
			}
			machine_moved(m);
		}
	}
	pthread_mutex_unlock(&m->mutex);
	return r;
}

int call_getsockopt(void *u, int fd, int level, int name, void *val, socklen_t *len)
{
	struct machine *m = u;
	int r = -1;

	pthread_mutex_lock(&m->mutex);
	struct machine_fd *f = machine_fd(m, fd, FD_SOCK);
	if (f) {
		struct sock *k = sock_at(m->e.s, f->sock);
		r = val && len && (int)*len >= 0 ? sockopt_get(&m->e, k, level, name, val, len) : SOCKOPT_NOT_OURS;
		if (r == SOCKOPT_NOT_OURS) {
			r = getsockopt(backing(f, k), level, name, val, len);
		} else if (r < 0) {
			errno = -r;
			r = -1;
		}
	}
	pthread_mutex_unlock(&m->mutex);
	return r;
}
