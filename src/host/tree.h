/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a process gets a wire that a relative of it (fork) has made in the stack that they share: it asks the maker, who
 * listens on an abstract Unix socket named after the stack and itself, and hands over the descriptors.
 *
 *   asking side -> MAP, with the wire's nonce
 *   maker       -> MAPPED, with [wire memfd, life, doorbell, helper's doorbell], the last two where there are any
 *
 * Both know each other's pids from the stack; the kernel says who is at the other end.
 */
#ifndef VD_TREE_H
#define VD_TREE_H

#include "host/host.h"

/* Listen as the process pid of that stack. A nonblocking descriptor of ours, or -errno. */
int tree_listen(const uint8_t stack[16], uint32_t pid);
/* Somebody asks: a descriptor, and who it is; or -errno. */
int tree_accept(int listen_fd, uint32_t *pid);
/* What it asks for (nonce), on a descriptor from tree_accept. Waits a moment at most. 0, -errno. */
int tree_request(int fd, const uint8_t stack[16], uint8_t nonce[16]);
/* Hand the wire over. */
void tree_give(int fd, const uint8_t stack[16], const uint8_t nonce[16], int memfd, int life_fd, const int doorbell[2]);
/* Ask process pid for the wire. 0: *out has its descriptors; -errno. */
int tree_fetch(const uint8_t stack[16], const uint8_t nonce[16], uint32_t pid, int timeout_ms, struct rdv_wire *out);

#endif
