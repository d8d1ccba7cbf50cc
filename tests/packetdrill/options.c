/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * getsockopt and setsockopt for packetdrill scripts. As in the preload library a kernel socket of the same kind checks
 * each value first and answers for the options that the engine does not know; what the engine knows it gets after that.
 *
 * packetdrill calls getsockopt (for TCP_INFO) and sendfile of the C library by itself, not through its table. `run`
 * preloads this library too, so that these two calls find the engine's sockets.
 */
#include <errno.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>

#include "calls.h"
#include "socket/sockopt.h"

/* The machine of this process: packetdrill makes one. */
static struct machine *the_machine;

void calls_serve(struct machine *m)
{
	the_machine = m;
}

static bool ours(int fd)
{
	return the_machine && fd >= 0 && fd < MACHINE_FDS && the_machine->fd[fd].use == FD_SOCK;
}

static int host_getsockopt(int fd, int level, int name, void *val, socklen_t *len)
{
	return (int)syscall(SYS_getsockopt, fd, level, name, val, len);
}

__attribute__((visibility("default"))) int getsockopt(int fd, int level, int name, void *val, socklen_t *len)
{
	return ours(fd) ? call_getsockopt(the_machine, fd, level, name, val, len)
			: host_getsockopt(fd, level, name, val, len);
}

__attribute__((visibility("default"))) ssize_t sendfile(int out, int in, off_t *offset, size_t n)
{
	char buf[65536];
	ssize_t got;

	if (!ours(out))
		return syscall(SYS_sendfile, out, in, offset, n);
	n = n < sizeof(buf) ? n : sizeof(buf);
	got = offset ? pread(in, buf, n, *offset) : read(in, buf, n);
	if (got <= 0)
		return got;
	ssize_t sent = call_write(the_machine, out, buf, (size_t)got);
	if (offset && sent > 0)
		*offset += sent;
	return sent;
}

static bool buffer_size(int fd, int level, int name, int *v)
{
	socklen_t len = sizeof(*v);
	bool rcv = name == SO_RCVBUF || name == SO_RCVBUFFORCE, snd = name == SO_SNDBUF || name == SO_SNDBUFFORCE;

	return level == SOL_SOCKET && (rcv || snd) &&
	       host_getsockopt(fd, SOL_SOCKET, rcv ? SO_RCVBUF : SO_SNDBUF, v, &len) == 0;
}

int call_setsockopt(void *u, int fd, int level, int name, const void *val, socklen_t len)
{
	struct machine *m = u;
	int r = -1, size;

	pthread_mutex_lock(&m->mutex);
	struct machine_fd *f = machine_fd(m, fd, FD_SOCK);
	if (f) {
		struct sock *k = sock_at(m->e.s, f->sock);
		r = setsockopt(fd, level, name, val, len);
		if (r == 0) {
			if (buffer_size(fd, level, name, &size)) {
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
		r = val && len && (int)*len >= 0 ? sockopt_get(&m->e, k, level, name, val, len, m->now_us)
						 : SOCKOPT_NOT_OURS;
		if (r == SOCKOPT_NOT_OURS) {
			r = host_getsockopt(fd, level, name, val, len);
		} else if (r < 0) {
			errno = -r;
			r = -1;
		}
	}
	pthread_mutex_unlock(&m->mutex);
	return r;
}
