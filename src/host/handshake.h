/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The messages of a rendezvous and the descriptors that travel with them. Used by rendezvous.c and its tests.
 *
 *   connecting side -> ASK, with the identity of its stack
 *   accepting side  -> KNOWN, with its own identity and the nonce of a wire that leads there; or NEW, if it has none
 *   connecting side -> hangs up, if it knows that wire too; else MAKE, with [wire memfd, doorbell, helper's doorbell]
 *   accepting side  -> MADE, with [doorbell, helper's doorbell]
 *
 * The accepting side may refuse instead of each answer: REFUSE with status < 0. Doorbells are left out in either
 * direction where the other user is not trusted with them (rdv_trusted). The accepting side keeps nothing between two
 * messages: whoever connects is told by the kernel, and MAKE may come without ASK.
 *
 * A hello is one SOCK_SEQPACKET record. Everything in it and with it is the other process's word and is checked.
 */
#ifndef VD_HANDSHAKE_H
#define VD_HANDSHAKE_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#define HELLO_MAGIC 0x4c484456u /* "VDHL" */
#define HELLO_VERSION 2u
#define HELLO_FDS 4 /* the most that one hello brings */

struct ucred;

enum hello_kind {
	HELLO_REFUSE,
	HELLO_ASK,
	HELLO_KNOWN,
	HELLO_NEW,
	HELLO_MAKE,
	HELLO_MADE,
	HELLO_MAP, /* between relatives (tree.h) */
	HELLO_MAPPED
};

struct hello {
	uint32_t magic;
	uint16_t version;
	uint16_t size;  /* sizeof(struct hello) */
	int32_t status; /* 0, or -errno: the accepting side refuses */
	uint32_t vnic_version;
	uint64_t wire_bytes; /* and the geometry of the wire: both sides must have the same */
	uint32_t bufs, buf_size, ring, mtu;
	uint32_t kind; /* enum hello_kind */
	uint32_t zero;
	uint8_t nonce[16]; /* names the wire; chosen by the connecting side, KNOWN: of the wire that is known */
	uint8_t stack[16]; /* identity of the sender's stack */
};
_Static_assert(sizeof(struct hello) == 80, "a hello has no hidden padding");

/* A hello of ours. stack NULL: all zero. */
void hello_fill(struct hello *h, enum hello_kind kind, const uint8_t nonce[16], const uint8_t *stack);
/* A refusal. */
void hello_refuse(struct hello *h, const uint8_t nonce[16], int status);
/* 0: one of this kind, or of `other`; -EPERM, -EUSERS (no socket free there): refused; -EPROTO: another or none,
 * another version or geometry. */
int hello_check(const struct hello *h, enum hello_kind kind, enum hello_kind other);

/* Send, never blocking. fds stay the caller's. 0 or -errno. */
int hello_send(int fd, const struct hello *h, const int *fds, int count);
/* Wait until deadline_ms (handshake_now_ms) for one, with at most `max` descriptors, close-on-exec and the
 * caller's to close; those that did not come are -1. sender (may be NULL): pid 0 unless SO_PASSCRED is set. How many
 * descriptors came; -ETIMEDOUT; -ECONNRESET hung up; -EPROTO; -EMFILE: no room for the descriptors. On failure nothing
 * stays open. */
int hello_receive(int fd, struct hello *h, int *fds, int max, int64_t deadline_ms, struct ucred *sender);

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
