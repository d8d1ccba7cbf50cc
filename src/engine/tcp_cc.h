/* SPDX-License-Identifier: BSD-2-Clause */
/* What congestion control algorithms share (tcp_cc.c). Windows and amounts are in bytes. With the stack's lock. */
#ifndef VD_TCP_CC_H
#define VD_TCP_CC_H

#include "engine/tcp_send.h"

#define TCP_INFINITE_SSTHRESH 0x7fffffffu
#define TCP_MAX_CWND 0x3fffffffu /* the largest window that can be offered: 65535 << 14 */

/* The connection is established: the initial window (RFC 6928). */
void tcp_cc_start(struct sock *k);
/* Before data goes out after an idle time (RFC 5681 4.1). */
void tcp_cc_restart(struct engine *e, struct sock *k);
/* Slow start over `bytes` acknowledged; returns the bytes left for congestion avoidance. */
uint32_t tcp_cc_slow_start(struct tcb *t, uint32_t bytes);
/* One MSS for each window's worth acknowledged (RFC 5681 3.1); *acc keeps the remainder between calls. */
void tcp_cc_increase(struct tcb *t, uint64_t *acc, uint32_t bytes);

#endif
