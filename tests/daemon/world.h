/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The world of viaductd's tests: this process is in a network namespace of its own with one end of a veth (v0), the
 * plain kernel on the other end (v1) in another. All vanish with the process.
 */
#ifndef VD_TEST_DAEMON_WORLD_H
#define VD_TEST_DAEMON_WORLD_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define HERE4 "10.77.0.1"
#define THERE4 "10.77.0.2"
#define HERE6 "fd77::1"
#define THERE6 "fd77::2"

/* False: not allowed here (no root); the test is to be skipped. Ends the process when something else fails. */
bool world_make(void);
/* Run a command with sh -c; its exit status. */
int run(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A socket in the peer's namespace. */
int peer_socket(int family, int type);
/* Change to the peer's namespace (true) or back. */
void in_peer(bool there);
uint32_t v0_index(void);

/* Another pair of veths, w0 here (WIDE4) and w1 at the peer, each with so many queues. w0's index. */
#define WIDE4 "10.78.0.1"
uint32_t world_wide(unsigned queues);

/* Start viaductd with these arguments (NULL at the end), and $TEST_VIADUCTD_OPTION; wait until it listens. */
pid_t daemon_start(const char *path, ...);
/* SIGTERM or SIGKILL, and its exit status as waitpid gives it. */
int daemon_stop(pid_t pid, int signal);

void v4_addr(struct sockaddr_in *sa, const char *addr, uint16_t port);
void mapped(uint8_t to[16], const char *v4);

/* Sockets of the kernel: here; at the peer, with a second's patience. */
int bound_socket(int type, const char *addr, uint16_t port);
int peer_udp(uint16_t port);
void say(int fd, const char *to, uint16_t port, const char *text);

#endif
