/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine that packetdrill tests: one engine, one vNIC whose frames are captured, a virtual clock.
 *
 * Time moves only when packetdrill waits: usleep, gettimeofday (1 us a call, so that its spinning ends) and
 * netdev_receive with nothing to deliver. It moves from one engine deadline to the next, so timers fire exactly.
 * packetdrill runs blocking calls in a second thread: machine_block parks it until the engine has moved, and the thread
 * that moves the clock waits until every parked one has looked again. All under machine.mutex.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/test_stack.h"

#define MACHINE_FDS 1024 /* descriptor numbers below this */
#define MACHINE_OUT 4096

enum fd_use { FD_FREE, FD_SOCK, FD_EPOLL_SET };

struct machine_fd {
	enum fd_use use;
	uint32_t sock; /* index of the engine's socket */
	bool nonblock, connecting;
	struct epoll_member *members; /* of an epoll set */
};

struct out_frame {
	uint64_t us;
	uint32_t len;
	uint8_t *bytes; /* Ethernet frame */
};

struct machine {
	pthread_mutex_t mutex;
	pthread_cond_t moved, looked;
	pthread_t main_thread;
	uint64_t epoch;    /* goes up each time that the engine moved */
	int parked, fresh; /* threads in machine_block; how many have seen this epoch */

	struct engine e;
	uint64_t now_us;
	struct test_device device;
	uint32_t vnic, mtu;
	bool configured, kernel_listens;
	uint16_t next_port;
	struct machine_fd fd[MACHINE_FDS]; /* by number */
	struct out_frame out[MACHINE_OUT];
	uint32_t out_head, out_tail;
};

struct machine *machine_new(void);
void machine_free(struct machine *m);
/* At the first socket: reads the sysctls of this network namespace, which the script has set by then. */
void machine_configure(struct machine *m);
/* Run until virtual time `us`, firing timers at their times. */
void machine_run_until(struct machine *m, uint64_t us);
/* Run until a frame is out or nothing is left to happen. */
bool machine_run_for_frame(struct machine *m);
/* After anything that may have changed a socket: let parked threads look again. */
void machine_moved(struct machine *m);
/* Block this call until the engine has moved: in the main thread by moving the clock. False: nothing can happen. */
bool machine_block(struct machine *m);
/* A frame in: an IP packet without Ethernet header. */
void machine_input(struct machine *m, const void *packet, size_t len);

struct machine_fd *machine_fd(struct machine *m, int fd, enum fd_use use); /* NULL: EBADF is set */
/* A descriptor number is a kernel socket's of that family: it checks options, and packetdrill may close it by itself.
 */
int machine_fd_new(struct machine *m, enum fd_use use, int family, struct machine_fd **out);
/* Drain the dirty ring: tells the epoll sets of sockets that have news (sets.c). */
void sets_news(struct machine *m);
void sets_clear(struct machine_fd *set);
void sets_forget(struct machine *m, int fd);
uint32_t machine_poll_fd(struct machine *m, int fd);

#endif
