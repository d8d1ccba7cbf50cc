/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening at once over a wire, without waiting for the other end (tcp_open.c has the theory of operation). */
#ifndef VD_TCP_OPEN_H
#define VD_TCP_OPEN_H

#define TCP_OPEN_SHARE 4u /* of a listener's backlog, one place in so many is offered */

#include "engine/tcp_internal.h"

#define TCP_OPEN_WINDOW PRIVATE_BUF_SIZE /* the listener's first window */

/* May a connection to remote be opened at once over this vNIC? The caller sees to it that the other end lives. */
bool tcp_open_ready(const struct engine *e, uint32_t vnic, const struct endpoint *remote);
/* k is in SYN-SENT and its SYN not yet sent: sends it, and opens at once if it may. */
void tcp_open_send(struct engine *e, struct sock *k);
/* The option that says so, behind the others of a SYN. Its end. */
uint8_t *tcp_open_option(const struct sock *k, uint8_t *to);

/* A SYN has come, for k or for nobody, with opts bytes of options. True: it opened at once, or could not; it is dealt
 * with. */
bool tcp_open_input(struct engine *e, struct sock *k, struct segment *g, uint32_t opts);
/* Child c of listener l is there, or was accepted: let its wire open more at once, if there is room. */
void tcp_open_offer(struct engine *e, struct sock *l, const struct sock *c);
/* No more for this listener; none over this vNIC, which is dead. */
void tcp_open_withdraw(struct engine *e, struct sock *l);
void tcp_open_vnic_dead(struct engine *e, uint32_t vnic);

#endif
