/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine's half of socket options: engine, socket, level, name and value in; no lock, no descriptor, no system
 * call. The callers (options.c; the packetdrill library) have let a kernel socket check the value first.
 */
#ifndef VD_SOCKOPT_H
#define VD_SOCKOPT_H

#include <stdint.h>
#include <sys/socket.h>

#include "engine/engine.h"

#define SOCKOPT_NOT_OURS 1 /* the engine does not know this option */

/* A value that the kernel took. Of buffers and times: what the kernel made of it (it clamps, doubles and rounds). 0,
 * -errno, SOCKOPT_NOT_OURS. */
int sockopt_set(struct engine *e, struct sock *k, int level, int name, const void *val, socklen_t len, uint64_t now_us);
/* A TCP socket that has, or had, a peer. */
bool sockopt_connected(const struct sock *k);
/* As getsockopt(2), *len not negative. Taking SO_ERROR clears it. TCP_INFO needs the time. */
int sockopt_get(struct engine *e, struct sock *k, int level, int name, void *val, socklen_t *len, uint64_t now_us);

/* TCP_INQ: the control message of a recvmsg that has just been served. Bytes of control written: 0 if it was not asked
 * for or does not fit. */
size_t sockopt_inq_control(struct engine *e, const struct sock *k, void *control, size_t room);

#define TCP_INFO_BYTES 280u
/* TCP_INFO, as long as Linux 6.18 gives it (tcp_info.c). */
void sockopt_tcp_info(const struct engine *e, const struct sock *k, uint8_t out[TCP_INFO_BYTES], uint64_t now_us);

#endif
