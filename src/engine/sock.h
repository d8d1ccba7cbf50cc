/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A socket: what TCP and UDP endpoints have in common, and the protocol's own part behind it.
 *
 * Addresses are 16 bytes, network order, IPv4 as ::ffff:a.b.c.d; `family` says how the program sees it.
 * Ports are in host order. A socket is named outside of the engine by (index, gen): gen changes when the
 * slot is used again, so a stale name is noticed.
 */
#ifndef VD_SOCK_H
#define VD_SOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/pkt.h"
#include "engine/tcp.h"
#include "engine/udp.h"

struct engine;
struct stack;

enum sock_proto { SOCK_FREE, SOCK_TCP, SOCK_UDP };

/* Readiness, in the bits of poll(2)/epoll(7) so that no table is needed. */
#define EV_IN 0x001u
#define EV_PRI 0x002u
#define EV_OUT 0x004u
#define EV_ERR 0x008u
#define EV_HUP 0x010u
#define EV_RDNORM 0x040u
#define EV_RDBAND 0x080u
#define EV_WRNORM 0x100u
#define EV_WRBAND 0x200u
#define EV_RDHUP 0x2000u

/* sock.flags */
#define SOCKF_NONBLOCK 0x0001u
#define SOCKF_REUSEADDR 0x0002u
#define SOCKF_KEEPALIVE 0x0004u
#define SOCKF_OOBINLINE 0x0008u
#define SOCKF_BROADCAST 0x0010u
#define SOCKF_V6ONLY 0x0020u
#define SOCKF_LINGER 0x0040u
#define SOCKF_SHUT_RD 0x0080u
#define SOCKF_SHUT_WR 0x0100u
#define SOCKF_ORPHAN 0x0200u     /* the program has closed it; the engine frees it when done */
#define SOCKF_RCVBUF_SET 0x0400u /* SO_RCVBUF was set: no auto-tuning */
#define SOCKF_SNDBUF_SET 0x0800u
#define SOCKF_REUSEPORT 0x1000u
#define SOCKF_RECVERR 0x2000u /* IP_RECVERR */
#define SOCKF_HASHED 0x4000u  /* is in the lookup table */
/* What happened to the backing socket (src/socket/backing.c). */
#define SOCKF_BACKING_OPTIONS 0x8000u /* options of ours were set on it */
#define SOCKF_BACKING_SPOILT 0x10000u /* it may not serve again */
#define SOCKF_BACKING_BOUND 0x20000u  /* connect() has bound it */
#define SOCKF_INQ 0x40000u            /* TCP_INQ: recvmsg tells how much is left */
#define SOCKF_STEERED 0x80000u        /* UDP: what comes for it over networks comes to the stack */
#define SOCKF_KERNEL_ROUTE 0x100000u  /* an option was set that only the kernel follows on networks */
#define SOCKF_RECVERR6 0x200000u      /* IPV6_RECVERR */
#define SOCKF_DISCONNECTING                                                                                            \
	0x800000u /* shutdown() of a connect() that had failed: connect() is EINVAL from now on (Linux) */

#define SOCK_OPTION_WORDS 8u

/* IP_MTU_DISCOVER (and IPV6_MTU_DISCOVER): Linux's number plus one. */
enum pmtu_discovery { PMTU_DEFAULT, PMTU_DONT, PMTU_WANT, PMTU_DO, PMTU_PROBE, PMTU_INTERFACE, PMTU_OMIT };

/* Where a connected socket's frames go on a network (route.h). Good as long as `version` is the view's. */
struct dst {
	uint32_t version; /* of the view that it was looked up in; 0: never */
	uint32_t mtu;     /* of the route: largest IP packet */
	uint8_t mac[6];   /* of the next hop */
	uint8_t learnt;   /* 1: mac is that of the frame that opened the connection, until its neighbour is resolved */
	uint8_t pad;
	uint32_t hop;     /* hash of the next hop that mac is of */
	uint32_t ifindex; /* the only interface that may be used (SO_BINDTODEVICE, a link-local peer); 0: any */
};

struct endpoint {
	uint8_t addr[16]; /* v4-mapped for IPv4; all zero (or ::ffff:0.0.0.0) for any */
	uint16_t port;    /* host order */
};

/* Starting values of new sockets, from the knobs and the kernel's own settings (host/sysctl.h). */
struct sock_defaults {
	uint32_t rcvbuf, rcvbuf_max; /* bytes; auto-tuning goes from one to the other */
	uint32_t sndbuf, sndbuf_max;
	uint32_t cc; /* enum tcp_cc_id */
	uint32_t rto_min_ms, rto_max_ms;
	uint32_t delack_ms;
	uint32_t time_wait_ms;                          /* 60000, as Linux */
	uint32_t syn_retries, synack_retries, retries2; /* as the sysctls of Linux */
	uint32_t keep_idle_s, keep_intvl_s, keep_cnt;
	uint32_t fin_timeout_s;
	uint32_t somaxconn;
	uint32_t ecn;            /* enum tcp_ecn_use */
	uint32_t no_timestamps;  /* 1: do not offer RFC 7323 timestamps */
	uint32_t burst_min;      /* segments that go as one burst at least; 0: 2, as Linux */
	uint32_t keep_cwnd_idle; /* 1: cwnd survives an idle time (net.ipv4.tcp_slow_start_after_idle=0) */
	uint32_t linux_cubic;    /* 1: CUBIC is Linux's where that is not RFC 9438 and 9406 (tcp_cubic.c) */
	uint32_t notsent_lowat;  /* of sockets that did not set TCP_NOTSENT_LOWAT; 0: none */
	uint32_t ttl;            /* of IPv4 sockets; 0: 64 */
	uint32_t pmtudisc;       /* enum pmtu_discovery */
};

struct sock {
	/* the first lines are what the fast path touches */
	_Alignas(64) uint8_t proto; /* enum sock_proto */
	uint8_t family;             /* 4 or 6: what the program asked for (6 may carry v4-mapped peers) */
	uint8_t edges;              /* EV_IN|EV_PRI|EV_OUT|EV_ERR|EV_HUP (low byte) that happened since last drained */
	uint8_t edge_rdhup;
	uint32_t gen;
	uint64_t holders;    /* bit per process slot that has a descriptor for it */
	uint64_t interest;   /* listener: bit per process slot that accepts here (fork); 0: its maker */
	uint64_t dirty_mask; /* bit per process slot in whose dirty ring it is */
	uint32_t flags;      /* SOCKF_* */
	uint32_t vnic;       /* interface of a connected socket, else VNIC_NONE */
	uint32_t vnic_gen;
	int32_t so_error;     /* positive errno, 0 none */
	struct pkt_queue rxq; /* received, in order, not yet read */
	uint32_t waiters;     /* threads that sleep for this very socket (blocking calls, poll) */

	struct endpoint local, remote;
	uint32_t hash_next; /* chain of the lookup table */

	uint32_t rcvbuf, sndbuf; /* bytes of payload */
	uint32_t rcvlowat;
	uint32_t linger_s;
	uint64_t rcvtimeo_us, sndtimeo_us; /* 0: wait for ever */
	uint64_t inode;                    /* of the backing socket */
	uint32_t pool_next;                /* free list */
	uint8_t tos, ttl;                  /* ttl 0: default 64 */
	uint8_t connect_retry; /* nonblocking connect: what to do when refused (enum retry in src/socket/sockets.h) */
	uint8_t pmtudisc;      /* enum pmtu_discovery */
	uint16_t backing, port_hold;             /* of the process that made it (src/socket/backing.c); 0: none */
	uint64_t tx_bytes, rx_bytes, created_us; /* for tools */
	uint32_t txwait_next, txwait_prev; /* waits for tx buffers of a vNIC (txwait.c); own index in prev: first */
	uint32_t txwait_vnic;              /* which vNIC's */
	struct dst dst;                    /* over a network's vNIC */
	uint32_t txwait_held;              /* 1: in the line of those that wait until many are free */
	struct pkt_queue errq;             /* ICMP errors to be read with MSG_ERRQUEUE (errqueue.c) */
	/* options that the backing socket alone has from the program (src/socket/options.c), a bit for each in their
	 * table: a connection that is accepted gets its listener's */
	uint32_t backing_options[SOCK_OPTION_WORDS];

	union {
		struct tcb tcp;
		struct udp_sock udp;
	};
};

/* A new socket in its initial state with the stack's defaults, held by nobody; NULL: pool exhausted. */
struct sock *sock_alloc(struct engine *e, enum sock_proto proto, int family);
/* Free the slot: queues, timers and the lookup entry must be gone (checked by assert). */
void sock_free(struct engine *e, struct sock *k);

/* Tell every holder that something happened (EV_* bits): puts k into their dirty rings. */
void sock_notify(struct engine *e, struct sock *k, uint32_t events);

/* Lookup table (lookup.c). Bound sockets are found with remote all zero. O(1) at 100,000 sockets. */
void sock_hash(struct stack *s, struct sock *k);
void sock_unhash(struct stack *s, struct sock *k);
struct sock *sock_lookup(struct stack *s, enum sock_proto proto, const struct endpoint *local,
			 const struct endpoint *remote); /* exact 4-tuple */
/* The bound socket for a local endpoint: exact address first, then any (IPv6 any takes v4 unless V6ONLY). */
struct sock *sock_lookup_bound(struct stack *s, enum sock_proto proto, const struct endpoint *local);
/* All that are bound to just this address (or to any) and port, not connected: the one after k, the first if k is NULL.
 */
struct sock *sock_bound_next(struct stack *s, enum sock_proto proto, const struct endpoint *local,
			     const struct sock *k);

#endif
