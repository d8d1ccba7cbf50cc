/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A connection with one end in Linux and one in the engine. Byte i of what a side sends follows from the side and from
 * i, so each byte is compared as it is read: a lost, doubled or moved one is noticed where it happens.
 */
#define _GNU_SOURCE
#include "tap_world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCK 65536u

enum stream { FROM_KERNEL = 0x5a5a5a5a, FROM_ENGINE = 0x13579bdf };

static uint8_t scratch[BLOCK];

static uint8_t byte_at(enum stream s, uint64_t i)
{
	return (uint8_t)(((uint32_t)i ^ (uint32_t)s) * 0x9e3779b1u >> 24);
}

static void fill(enum stream s, uint64_t at, size_t n)
{
	for (size_t i = 0; i < n; i++)
		scratch[i] = byte_at(s, at + i);
}

static void compare(enum stream s, uint64_t at, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (scratch[i] != byte_at(s, at + i)) {
			fprintf(stderr, "byte %lu of the stream is wrong\n", (unsigned long)(at + i));
			abort();
		}
	}
}

static socklen_t kernel_address(int family, const char *v4, const char *v6, uint16_t port, struct sockaddr_storage *ss)
{
	struct sockaddr_in *in = (void *)ss;
	struct sockaddr_in6 *in6 = (void *)ss;

	memset(ss, 0, sizeof(*ss));
	if (family == 4) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		inet_pton(AF_INET, v4, &in->sin_addr);
		return sizeof(*in);
	}
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	inet_pton(AF_INET6, v6, &in6->sin6_addr);
	return sizeof(*in6);
}

static struct endpoint endpoint(int family, const char *v4, const char *v6, uint16_t port)
{
	struct endpoint ep = {.port = port};

	if (family == 4) {
		ep.addr[10] = ep.addr[11] = 0xff;
		inet_pton(AF_INET, v4, ep.addr + 12);
	} else {
		inet_pton(AF_INET6, v6, ep.addr);
	}
	return ep;
}

struct endpoint engine_endpoint(int family, uint16_t port)
{
	return endpoint(family, ENGINE_ADDR4, ENGINE_ADDR6, port);
}

struct endpoint kernel_endpoint(int family, uint16_t port)
{
	return endpoint(family, KERNEL_ADDR4, KERNEL_ADDR6, port);
}

struct sock *conn_sock(const struct conn *c)
{
	return sock_at(c->w->e->s, c->sock);
}

int kernel_socket(int family, int type, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t len = kernel_address(family, KERNEL_ADDR4, KERNEL_ADDR6, port, &ss);
	int one = 1, fd = socket(family == 4 ? AF_INET : AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(fd, (struct sockaddr *)&ss, len) < 0) {
		perror("kernel socket");
		abort();
	}
	return fd;
}

int kernel_listen(int family, uint16_t port)
{
	int fd = kernel_socket(family, SOCK_STREAM, port);

	if (listen(fd, 16) < 0)
		abort();
	return fd;
}

void kernel_connect_socket(int fd, int family, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t len = kernel_address(family, ENGINE_ADDR4, ENGINE_ADDR6, port, &ss);

	if (connect(fd, (struct sockaddr *)&ss, len) < 0 && errno != EINPROGRESS) {
		perror("connect");
		abort();
	}
}

int kernel_connect(int family, uint16_t local_port, uint16_t port)
{
	int fd = kernel_socket(family, SOCK_STREAM, local_port);

	kernel_connect_socket(fd, family, port);
	return fd;
}

static struct sock *engine_socket(struct tap_world *w, int family)
{
	struct sock *k = sock_alloc(w->e, SOCK_TCP, family);

	if (!k)
		abort();
	k->holders = 1;
	return k;
}

struct sock *engine_listen(struct tap_world *w, int family, uint16_t port)
{
	struct sock *k = engine_socket(w, family);

	k->local = engine_endpoint(family, port);
	sock_hash(w->e->s, k);
	if (tcp_listen(w->e, k, 16) != 0)
		abort();
	return k;
}

struct sock *engine_connect(struct tap_world *w, int family, uint16_t local_port, uint16_t port)
{
	struct sock *k = engine_socket(w, family);
	struct endpoint local = engine_endpoint(family, local_port);
	struct endpoint remote = kernel_endpoint(family, port);

	if (tcp_connect(w->e, k, w->vnic, &local, &remote, tap_now_us()) != 0)
		abort();
	return k;
}

static struct conn *conn_new(struct tap_world *w, int family)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		abort();
	c->w = w;
	c->family = family;
	c->fd = -1;
	return c;
}

static bool kernel_writable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	return poll(&p, 1, 0) == 1;
}

struct pending {
	struct conn *c;
	int listener;
	struct sock *engine_listener;
};

static bool established(void *arg)
{
	struct pending *p = arg;
	struct conn *c = p->c;

	if (p->engine_listener && !c->sock) {
		int child = tcp_accept(c->w->e, p->engine_listener);

		if (child > 0) {
			c->sock = (uint32_t)child;
			conn_sock(c)->holders = 1;
		}
	}
	if (p->listener >= 0 && c->fd < 0)
		c->fd = accept4(p->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	return c->sock && c->fd >= 0 && conn_sock(c)->tcp.state == TCP_ESTABLISHED && kernel_writable(c->fd);
}

struct conn *conn_by_kernel(struct tap_world *w, int family, uint16_t port)
{
	struct pending p = {.c = conn_new(w, family), .listener = -1};

	p.engine_listener = engine_listen(w, family, port);
	p.c->fd = kernel_connect(family, 0, port);
	bool done = tap_until(w, established, &p, 5000);

	p.engine_listener->holders = 0;
	tcp_close(w->e, p.engine_listener, tap_now_us());
	if (done)
		return p.c;
	conn_free(p.c);
	return NULL;
}

struct conn *conn_by_engine(struct tap_world *w, int family, uint16_t port)
{
	struct pending p = {.c = conn_new(w, family)};

	static uint16_t local_port = 15000; /* a new one each time: the last may be in TIME-WAIT */

	p.listener = kernel_listen(family, port);
	p.c->sock = sock_index(w->e->s, engine_connect(w, family, ++local_port, port));
	bool done = tap_until(w, established, &p, 5000);

	close(p.listener);
	if (done)
		return p.c;
	conn_free(p.c);
	return NULL;
}

void conn_free(struct conn *c)
{
	if (c->fd >= 0)
		close(c->fd);
	if (c->sock) {
		conn_sock(c)->holders = 0;
		tcp_close(c->w->e, conn_sock(c), tap_now_us());
	}
	free(c);
}

static size_t next_write(const struct side *s)
{
	uint64_t left = s->to_send - s->sent;

	return left < BLOCK ? (size_t)left : BLOCK;
}

static void step_kernel(struct conn *c)
{
	struct side *s = &c->kernel;
	ssize_t n;

	while (!s->err && s->sent < s->to_send) {
		fill(FROM_KERNEL, s->sent, next_write(s));
		n = send(c->fd, scratch, next_write(s), MSG_NOSIGNAL);
		if (n < 0) {
			s->err = errno == EAGAIN ? 0 : errno;
			break;
		}
		s->sent += (uint64_t)n;
	}
	if (s->shut && s->sent == s->to_send) {
		shutdown(c->fd, SHUT_WR);
		s->shut = false;
	}
	while (!s->err && !s->eof) {
		n = recv(c->fd, scratch, c->read_size ? c->read_size : BLOCK, 0);
		if (n < 0) {
			s->err = errno == EAGAIN ? 0 : errno;
			break;
		}
		s->eof = n == 0;
		compare(FROM_ENGINE, s->received, (size_t)n);
		s->received += (uint64_t)n;
	}
}

static void step_engine(struct conn *c)
{
	struct engine *e = c->w->e;
	struct side *s = &c->engine;
	struct sock *k = conn_sock(c);
	struct iovec iov = {.iov_base = scratch};
	ssize_t n;

	while (!s->err && s->sent < s->to_send) {
		iov.iov_len = next_write(s);
		fill(FROM_ENGINE, s->sent, iov.iov_len);
		n = tcp_send(e, k, &iov, 1, 0, 0, tap_now_us());
		if (n < 0) {
			s->err = n == -EAGAIN ? 0 : (int)-n;
			break;
		}
		s->sent += (uint64_t)n;
	}
	if (s->shut && s->sent == s->to_send) {
		tcp_shutdown(e, k, 1, tap_now_us());
		s->shut = false;
	}
	while (!s->err && !s->eof) {
		iov.iov_len = c->read_size ? c->read_size : BLOCK;
		n = tcp_recv(e, k, &iov, 1, 0, 0, tap_now_us());
		if (n < 0) {
			s->err = n == -EAGAIN ? 0 : (int)-n;
			break;
		}
		s->eof = n == 0;
		compare(FROM_KERNEL, s->received, (size_t)n);
		s->received += (uint64_t)n;
	}
}

void conn_step(struct conn *c)
{
	step_kernel(c);
	step_engine(c);
	tap_pump(c->w);
}

bool conn_transfer(struct conn *c, uint64_t kernel_bytes, uint64_t engine_bytes, uint32_t seconds)
{
	uint64_t end = tap_now_us() + seconds * 1000000ull;

	c->kernel.to_send += kernel_bytes;
	c->engine.to_send += engine_bytes;
	c->kernel.shut = c->engine.shut = true;
	while (!(c->kernel.eof && c->engine.eof) && !c->kernel.err && !c->engine.err && tap_now_us() < end)
		conn_step(c);
	if (c->kernel.received == c->engine.to_send && c->engine.received == c->kernel.to_send && c->kernel.eof &&
	    c->engine.eof)
		return true;
	fprintf(
	    stderr,
	    "kernel: sent %lu of %lu, received %lu, end %d, error %d; engine: sent %lu of %lu, received %lu, end %d, "
	    "error %d\n",
	    (unsigned long)c->kernel.sent, (unsigned long)c->kernel.to_send, (unsigned long)c->kernel.received,
	    c->kernel.eof, c->kernel.err, (unsigned long)c->engine.sent, (unsigned long)c->engine.to_send,
	    (unsigned long)c->engine.received, c->engine.eof, c->engine.err);
	return false;
}
