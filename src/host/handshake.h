/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The two messages of a rendezvous and the descriptors that travel with them. Used by rendezvous.c and its tests.
 *
 *   connecting side -> hello, with [wire memfd, doorbell, helper's doorbell]
 *   accepting side  -> hello, with [doorbell, helper's doorbell], or with status < 0 and no descriptors
 *
 * A hello is one SOCK_SEQPACKET record. Everything in it and with it is the other process's word and is checked.
 */
#ifndef VD_HANDSHAKE_H
#define VD_HANDSHAKE_H

#include <stdint.h>
#include <sys/types.h>

#define HELLO_MAGIC 0x4c484456u /* "VDHL" */
#define HELLO_VERSION 1u
#define HELLO_FDS 3 /* the most that one hello brings */

struct hello {
	uint32_t magic;
	uint16_t version;
	uint16_t size;  /* sizeof(struct hello) */
	int32_t status; /* 0, or -errno: the accepting side refuses */
	uint32_t vnic_version;
	uint64_t wire_bytes; /* and the geometry of the wire: both sides must have the same */
	uint32_t bufs, buf_size, ring, mtu;
	uint8_t nonce[16]; /* chosen by the connecting side */
};
_Static_assert(sizeof(struct hello) == 56, "a hello has no hidden padding");

/* A hello of ours. */
void hello_fill(struct hello *h, const uint8_t nonce[16], int status);
/* 0; -EPERM, -EUSERS (no socket free there): refused; -EPROTO: not one, another version or geometry; its status if it
 * refuses. */
int hello_check(const struct hello *h);

/* Send, never blocking. fds stay the caller's. 0 or -errno. */
int hello_send(int fd, const struct hello *h, const int *fds, int count);
/* Wait until deadline_ms (handshake_now_ms) for one, with exactly `count` descriptors, close-on-exec and the
 * caller's to close. peer_pid (may be NULL): the sender, 0 unless SO_PASSCRED is set. 0; -ETIMEDOUT;
 * -ECONNRESET hung up; -EPROTO; -EMFILE: no room for the descriptors. On failure nothing stays open, except that a
 * refusing hello (count 0) is success here: hello_check tells. */
int hello_receive(int fd, struct hello *h, int *fds, int count, int64_t deadline_ms, pid_t *peer_pid);

/* CLOCK_MONOTONIC. */
int64_t handshake_now_ms(void);
/* Wait for events (POLLIN, POLLOUT) through interruptions. 0, -ETIMEDOUT. */
int handshake_poll(int fd, short events, int64_t deadline_ms);

/* A sealed, formatted wire region: its descriptor or -errno. */
int wire_memfd_make(void);
/* 0 if fd is a memfd of exactly the wire's size that can't shrink, grow or be sealed further; else -EPROTO. */
int wire_memfd_check(int fd);
/* 0 if fd is an eventfd (which also is made nonblocking), else -EPROTO. `ours`: an eventfd to compare with where
 * /proc can't be read. */
int doorbell_check(int fd, int ours);

#endif
