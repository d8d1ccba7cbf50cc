/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processes with stacks of their own that talk through vs_* alone: what the tests of src/socket stand on.
 *
 * A stack belongs to a process, and to those forked from it. So each side of a conversation is a process forked before
 * anyone here made a socket. NEED works on all sides: in the test's own process it fails the test, in any other it says
 * what does not hold and ends the process with status 20, which test_ended_well() of the one who waits for it reports.
 */
#ifndef VD_TEST_VSOCK_H
#define VD_TEST_VSOCK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "socket/vsock.h"

#define NEED(x) ((x) ? (void)0 : test_need_failed(#x, __FILE__, __LINE__))
void test_need_failed(const char *what, const char *file, int line) __attribute__((noreturn));

/* A socket and the descriptor of its backing socket. */
struct sk {
	vsock_t v;
	int fd;
};

/* Loads the knobs and runs the group; main returns what it does. */
#define test_vsock_main(tests) (test_vsock_begin() ? 2 : cmocka_run_group_tests(tests, NULL, NULL))
int test_vsock_begin(void);

/* 127.0.0.1 */
struct sockaddr_in sk_loopback(uint16_t port);
struct sk sk_make(int domain, int type);
/* Bound to a free port of 127.0.0.1, which is stored; sk_listening: a TCP socket that listens there. */
struct sk sk_bound(int type, uint16_t *port);
struct sk sk_listening(uint16_t *port);
/* The next connection; .v is VS_NONE where the kernel carries it. */
struct sk sk_accepted(const struct sk *l);
/* A TCP connection to that port of this machine, carried by a wire. */
struct sk sk_connected(uint16_t port);
void sk_close(struct sk *s);
/* Blocking calls with one buffer; -errno. */
ssize_t sk_send(const struct sk *s, const void *p, size_t n);
ssize_t sk_recv(const struct sk *s, void *p, size_t n, int flags);

/* Run fn in a process of its own, which must end well. */
void test_in_child(void (*fn)(void));
/* Run fn(s, arg) in a process of its own that has opened a socket: listening (SOCK_STREAM) or bound (SOCK_DGRAM). It
 * ends when fn returns. */
pid_t test_serve(int type, void (*fn)(struct sk *s, int arg), int arg, uint16_t *port);
/* Wait for the process: it must exit with 0. */
void test_ended_well(pid_t pid);
/* Fork as the preload library does, with these sockets. */
pid_t test_vs_fork(const vsock_t *all, size_t n);

#endif
