/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine on one end of a wire, Linux on the other.
 *
 *   engine -- vNIC -- sim link (delay, loss, reordering, duplication from a seed) -- tap device -- Linux, its sockets
 *
 * All in one thread and in real time: tap_pump() moves frames and timers once; a test calls it between its looks at
 * both sides. The wire's frames, as they are delivered, are captured in a file that libpcap reads (tap_capture.c).
 *
 *   tap_world.c    namespace, tap device, engine, pump
 *   tap_conn.c     a connection with one end on each side: making, transferring with every byte compared, ending
 *   tap_kernel.c   what Linux says of its end
 *   tap_capture.c  writing the capture; looking into it through libpcap
 */
#ifndef TAP_WORLD_H
#define TAP_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"
#include "vnic/sim.h"

#define TAP_MTU 1500
#define ENGINE_ADDR4 "10.9.0.2"
#define KERNEL_ADDR4 "10.9.0.1"
#define ENGINE_ADDR6 "fd09::2"
#define KERNEL_ADDR6 "fd09::1"

struct capture;

struct tap_world {
	int tap_fd;
	struct engine *e;
	uint32_t vnic;
	struct sim *link;
	struct vnic far; /* the link's other end, whose frames go to and come from the tap */
	struct vnic_state far_state;
	struct capture *capture;
};

/* Enter a new network namespace. False: not allowed here. */
bool tap_enter_namespace(void);
/* A world with a perfect link of 50 us each way, or one as *dir says (both ways). */
struct tap_world *tap_world_new(uint64_t seed, const struct sim_dir *dir);
void tap_world_free(struct tap_world *w);
uint64_t tap_now_us(void);
/* Move what there is to move; sleeps up to 1 ms when there is nothing. */
void tap_pump(struct tap_world *w);

/* --- a connection (tap_conn.c) --- */
struct side {
	uint64_t to_send, sent, received;
	bool shut, eof;
	int err; /* of the first call that failed */
};

struct conn {
	struct tap_world *w;
	int family;    /* 4 or 6 */
	int fd;        /* the kernel's end */
	uint32_t sock; /* the engine's end */
	struct side kernel, engine;
	uint32_t read_size; /* bytes per read of either side; 0: 64 KiB */
};

struct sock *conn_sock(const struct conn *c);
/* Addresses of the two sides. */
struct endpoint engine_endpoint(int family, uint16_t port);
struct endpoint kernel_endpoint(int family, uint16_t port);
/* A nonblocking socket of this type bound to the kernel's address; to connect to a port of the engine. */
int kernel_socket(int family, int type, uint16_t port);
void kernel_connect_socket(int fd, int family, uint16_t port);
/* Listening ends. */
int kernel_listen(int family, uint16_t port);
struct sock *engine_listen(struct tap_world *w, int family, uint16_t port);
/* Begin a connection; see conn_wait_established. */
int kernel_connect(int family, uint16_t local_port, uint16_t port);
struct sock *engine_connect(struct tap_world *w, int family, uint16_t local_port, uint16_t port);
/* A whole connection; NULL: not established in 5 s. */
struct conn *conn_by_kernel(struct tap_world *w, int family, uint16_t port);
struct conn *conn_by_engine(struct tap_world *w, int family, uint16_t port);
void conn_free(struct conn *c); /* closes what is open */

/* One step of both sides: send what is to be sent, shut down after it, read and compare. */
void conn_step(struct conn *c);
/* Send so many bytes each way, shut down both, until both have seen the end. False: not within that time. */
bool conn_transfer(struct conn *c, uint64_t kernel_bytes, uint64_t engine_bytes, uint32_t seconds);
/* Pump until condition(arg) or the time is over; returns the condition. */
bool tap_until(struct tap_world *w, bool (*condition)(void *), void *arg, uint32_t ms);

/* --- the capture (tap_capture.c) --- */
struct capture *capture_new(void);
void capture_free(struct capture *c);
void capture_frame(struct capture *c, uint64_t now_us, const uint8_t *frame, uint32_t len);

/* What libpcap finds in the capture, for one direction. */
struct capture_facts {
	uint32_t syns;                                /* SYN and SYN-ACK segments */
	bool mss, wscale, sack_permitted, timestamps; /* in the SYN */
	uint8_t shift;
	uint64_t largest_window; /* scaled, after the SYN */
	uint32_t sack_blocks;    /* segments that carry some */
	uint32_t data, resets, fins;
	uint64_t largest_flight;    /* most bytes sent beyond the last acknowledgement seen */
	uint32_t without_timestamp; /* segments after the SYN, RST not counted */
};
/* from_engine: the direction; port: one of the ports. */
bool capture_look(struct capture *c, bool from_engine, uint16_t port, struct capture_facts *out);

#endif
