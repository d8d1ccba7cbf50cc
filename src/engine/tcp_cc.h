/* SPDX-License-Identifier: BSD-2-Clause */
/* What congestion control algorithms share (tcp_cc.c). Windows are in bytes. */
#ifndef VD_TCP_CC_H
#define VD_TCP_CC_H

#include "engine/tcp_send.h"

#define TCP_INFINITE_SSTHRESH 0x7fffffffu
#define TCP_MAX_CWND 0x3fffffffu /* the largest window that can be offered: 65535 << 14 */

void tcp_cc_start(struct sock *k);
void tcp_cc_restart(struct engine *e, struct sock *k);
uint32_t tcp_cc_slow_start(struct tcb *t, uint32_t bytes);
void tcp_cc_increase(struct tcb *t, uint64_t *acc, uint32_t bytes);

#endif
