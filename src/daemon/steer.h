/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The programs and maps in the kernel (steer.bpf.c), and what viaductd writes into them. Single-threaded.
 *
 * Everything is loaded at the start, with the privileges that takes. Nothing is pinned where it could outlive its
 * owners: the links that hold a program to its interface are pinned in a bpffs that is mounted nowhere, and lives as
 * long as somebody holds the descriptor steer_keep() of its directory. Every stack gets that descriptor; it opens
 * nothing without root's rights, unlike the links' and maps' own, whose holders could detach and steer at will.
 *
 * A viaductd that starts looks for programs of an earlier one on the interfaces, goes on with their maps, and puts its
 * own programs in their place.
 */
#ifndef VD_STEER_H
#define VD_STEER_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/steer_maps.h"

struct steer;

/* Load, or take over. share: attach by libxdp, beside others (share.h). native: XDP in the driver also where generic
 * XDP is faster. 0 or -errno; *why then is a sentence. */
int steer_start(struct steer **s, bool share, bool native, const char **why);
/* Leaves to whoever holds steer_keep() what stacks need. */
void steer_stop(struct steer *s);
/* True if an earlier viaductd's maps are in use. */
bool steer_adopted(const struct steer *s);
int steer_keep(const struct steer *s);
/* Descriptor of program `steer`, for BPF_PROG_TEST_RUN. */
int steer_program(const struct steer *s);

/* Hold program `steer` to the device. *native: in its driver. -EBUSY: another XDP program is there, and it is not
 * to be shared. */
int steer_attach(struct steer *s, uint32_t device, bool *native);
/* The device has it, as generic XDP on a veth: what comes are skbs, of up to 64 KiB. */
bool steer_by_skb(struct steer *s, uint32_t device);
void steer_detach(struct steer *s, uint32_t device);
/* Let go of devices that an earlier viaductd had the program on and no stack uses. */
void steer_settle(struct steer *s);
/* Program `inner` on the inner end of port `at`'s veth. Called in that end's namespace. */
int steer_attach_inner(struct steer *s, uint32_t at);
void steer_detach_inner(struct steer *s, uint32_t at);
/* Program `outer` on the outer end of a veth behind that device, and nothing else goes in there; both go with the outer
 * end. */
int steer_attach_outer(struct steer *s, uint32_t ifindex, uint32_t device);

/* Frames that come in like this are the interface's. Its number, given to it now if it has none. -ENOSPC. */
int steer_iface(struct steer *s, const struct steer_if_key *where, uint32_t ifindex, const uint8_t mac[6]);
void steer_iface_gone(struct steer *s, const struct steer_if_key *where);

int steer_port_set(struct steer *s, uint32_t iface, uint32_t stack, const struct steer_port *port);
int steer_port_get(struct steer *s, uint32_t iface, uint32_t stack, struct steer_port *port);
void steer_port_clear(struct steer *s, uint32_t iface, uint32_t stack);
int steer_xsk(struct steer *s, uint32_t iface, uint32_t stack, uint32_t queue, int xsk);
int steer_veth(struct steer *s, uint32_t iface, uint32_t stack, uint32_t outer, const struct steer_outer *o);
/* What has come out of it, as well. 0 or -errno. */
int steer_veth_get(struct steer *s, uint32_t outer, struct steer_outer *o);
void steer_veth_gone(struct steer *s, uint32_t iface, uint32_t stack, uint32_t outer);

int steer_filter_set(struct steer *s, const struct steer_key *key, const struct steer_target *target);
void steer_filter_clear(struct steer *s, const struct steer_key *key);
int steer_filter_get(struct steer *s, const struct steer_key *key, struct steer_target *target);
/* The filter after this one; NULL: the first. -ENOENT: no more. */
int steer_filter_next(struct steer *s, const struct steer_key *key, struct steer_key *next);
/* To be raised before the first filter of a kind, lowered after the last. */
int steer_kinds_set(struct steer *s, const struct steer_kinds *kinds);
/* The table of flows that stacks enter themselves: its descriptor. */
int steer_table(const struct steer *s);
/* Has the stack entered it? */
bool steer_table_has(struct steer *s, const struct steer_key *flow, uint32_t stack);
/* The stack is dead: its flows go. */
void steer_table_clear(struct steer *s, uint32_t stack);
int steer_group_set(struct steer *s, uint32_t group, const struct steer_group *g);
int steer_group_get(struct steer *s, uint32_t group, struct steer_group *g);

struct netview;
/* The machine's addresses and the interfaces' MACs are those of the view from now on. */
void steer_view(struct steer *s, const struct netview *view);
/* Sum over the CPUs. */
uint64_t steer_stat(struct steer *s, enum steer_stat which);

#endif
