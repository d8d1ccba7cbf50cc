/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The stack: all state of one engine, in one shared, position-independent region.
 *
 * Objects refer to each other by index (0 = none: slot 0 of each array is never used) and an index that
 * comes out of the region is checked before use (sock_at, pkt_at return NULL for a bad one). The layout
 * is versioned: STACK_VERSION changes with any change of a struct in this file, pkt.h, sock.h or tcp.h.
 * The region is written only under its lock (src/socket/lock.h); tools read it without, and must expect
 * to see it torn. Nothing here knows of files, descriptors or clocks: only numbers that others store.
 *
 * Parts, in order: this header; vNIC states; sockets; pkts; private buffers; hash table; fd info; interfaces;
 * UDP routes. Memory that was never used was never touched: pools hand out what was freed last, and only when nothing
 * is free the next never-used object.
 */
#ifndef VD_STACK_H
#define VD_STACK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/counters.h"
#include "engine/pkt.h"
#include "engine/sock.h"
#include "vnic/vnic.h"

#define STACK_MAGIC 0x4b54535441444956ull /* "VIDATSTK" */
#define STACK_VERSION 11u

#define PROC_MAX 64u     /* processes that share a stack (fork) */
#define DIRTY_RING 2048u /* per process; power of two */
#define TIMER_LEVELS 4u
#define TIMER_SLOTS 64u /* per level: 64 ms, 4 s, 4.4 min, 4.7 h */
#define PRIVATE_BUF_SIZE 2048u
#define VNIC_WORDS (VNIC_MAX / 64)
#define UDP_ROUTE_SETS 1024u /* power of two */
#define UDP_ROUTE_WAYS 4u
#define STACK_UNSURE 8u

/* Sizes of a stack, fixed when it is formatted. */
struct stack_config {
	uint32_t max_socks;            /* knob `sockets` */
	uint32_t max_pkts;             /* pkt descriptors: at least tx + rx buffers in use at once */
	uint32_t max_private;          /* private buffers of PRIVATE_BUF_SIZE */
	uint32_t hash_buckets;         /* power of two */
	uint32_t max_fdinfo;           /* descriptors that `viaduct explain` can see */
	uint32_t capture;              /* 1: with room for captures (capture.h), which is memory only while used */
	uint8_t secret[32];            /* random: hash keys, initial sequence numbers, SYN cookies */
	struct sock_defaults defaults; /* buffer sizes, timers, congestion control: from the knobs */
};

/* The lock word and what a successor needs to repair after its owner died. See src/socket/lock.h. */
struct stack_lock {
	_Alignas(64) _Atomic uint32_t owner; /* tid of the holder, 0 free; bit 31: somebody sleeps on it */
	uint32_t changing;         /* socket being changed (sock_changing), 0 none: whoever repairs resets it */
	uint32_t vnic;             /* whose events are being taken in, plus 1 */
	_Atomic uint32_t acquired; /* goes up at each acquisition: the helper's sign of life */
	uint32_t repairs;
};

/* A process of the tree. The slot number is the bit in sock.holders. */
struct stack_proc {
	uint32_t pid;                    /* 0: free */
	uint32_t sleepers;               /* threads that sleep until the stack's doorbell rings */
	uint64_t start_time;             /* field 22 of /proc/PID/stat: tells a reused pid */
	uint32_t dirty_head, dirty_tail; /* free-running; tail - head entries wait */
	uint32_t dirty_overflow;         /* 1: some were lost, look at every socket */
	uint32_t looked;                 /* while dirty_overflow: sockets below this one were looked at */
	uint32_t gen;                    /* counts the processes that had this entry */
	uint32_t naps;                   /* goes up with each thread that goes to sleep */
	uint32_t rung;                   /* the nap that it was last rung for (src/socket/bells.h) */
	uint32_t has_bell;               /* 1: it hears the bell of this entry, and needs no doorbell of the tree */
	uint32_t pad;
	uint32_t dirty[DIRTY_RING]; /* sockets with news for this process */
};

/* A LIFO of free indices threaded through the objects, plus a mark: what lies above was never used. */
struct stack_pool {
	uint32_t free_head; /* 0: empty */
	uint32_t mark;      /* next never-used index */
	uint32_t limit;     /* number of slots, slot 0 included */
	uint32_t in_use;
};

struct timer_wheel {
	uint64_t now_ms;                          /* up to and including this, all has fired */
	uint32_t pending;                         /* timers in the wheel */
	uint32_t slot[TIMER_LEVELS][TIMER_SLOTS]; /* heads: timer ids (see timer.h) */
	uint64_t occupied[TIMER_LEVELS];          /* bit per slot */
};

/* What the engine keeps of each vNIC beside its rings. */
struct iface {
	uint32_t parts;       /* of a frame whose end has not come yet: kept here, any process may go on with it */
	uint32_t total;       /* their bytes */
	uint32_t skip;        /* 1: the rest of a frame of too many parts is thrown away */
	uint32_t deferred;    /* rx buffers that a process without a mapping let go of (RX_LET_GO in rx_state) */
	uint32_t link_down;   /* 1: the device says that it has no link */
	uint32_t icmp_tokens; /* errors that may be sent now */
	uint64_t icmp_us;     /* when the last token came */
	struct vnic_desc part[FRAME_PARTS];
};

/* Over which vNIC a UDP peer is reached (udp.c). */
struct udp_route {
	uint8_t addr[16];
	uint16_t port;
	uint16_t vnic; /* plus 1; 0: unused */
	uint32_t gen;  /* of the vNIC, shifted left by one; bit 0: the socket layer vouches for it */
};

/* A neighbour whose link address the socket layer shall have resolved, or confirmed, by viaductd (route.c). */
struct neigh_want {
	uint8_t addr[16];
	uint32_t ifindex;
	uint32_t pad;
	uint64_t asked_us; /* when it was last asked for */
};
#define NEIGH_WANTS 64u
#define PATH_WAITS 64u /* sockets whose segments wait for a neighbour; more wait for their timers */

/* For tools: what a descriptor of the creating process is. */
struct stack_fdinfo {
	uint8_t kind;    /* enum fd_kind (src/socket/reason.h) */
	uint8_t reason;  /* enum reason: why the kernel serves it */
	uint16_t detail; /* of the reason: the line of a rule; accelerated: stack_id_tag of its stack */
	uint32_t sock;   /* socket index if accelerated */
};

struct stack {
	uint64_t magic;
	uint32_t version;
	uint32_t header_size;
	uint64_t total_size;
	uint64_t off_vnics, off_socks, off_pkts, off_private, off_hash, off_fdinfo;
	uint64_t off_ifaces, off_routes;
	uint64_t off_capture; /* 0: none */
	struct stack_config cfg;
	uint32_t creator_pid;
	char program[64]; /* of the creator, for tools */
	char rules[128];  /* the file of its rules, for tools; "": the built-in ones */
	uint8_t id[16];   /* random: tells it from all other stacks; not secret. Whoever makes it for use fills it in */

	struct stack_lock lock;
	uint32_t capture; /* capture.h: until when frames are copied for a tool; 0: they are not. In the lock's line */
	/* one line that each call touches */
	_Alignas(64) uint64_t now_us;   /* the time given with the last call */
	uint64_t vnic_used[VNIC_WORDS]; /* bit per vNIC slot in use */
	struct stack_pool pkt_pool;
	uint32_t ip_id;     /* of the next IPv4 packet */
	uint32_t poll_next; /* vNIC that engine_poll begins with */
	/* a second one */
	struct stack_pool sock_pool, private_pool;
	uint64_t promised;   /* bytes that connections hold unread or have offered to take: sum of tcb.promised */
	uint32_t share;      /* what one connection may hold and offer now (tcp_recv.c) */
	uint32_t promisers;  /* connections that promised something */
	uint32_t socks_kept; /* free sockets that are promised to connections offered beforehand (tcp_open.c) */
	uint64_t vnic_attention[VNIC_WORDS]; /* bit per vNIC whose struct iface must be looked at in engine_poll */
	uint64_t hash_key[4];                /* of the lookup table and the UDP routes, derived from cfg.secret */
	struct timer_wheel wheel;
	uint32_t vnic_high; /* vNIC slots ever used: poll up to here */
	uint32_t open_last; /* vNIC over which a connection was last opened at once (tcp_open.c) */
	uint32_t ephemeral; /* next port to try where the caller gives none (tests) */
	uint64_t isn_base;
	uint32_t ack_soon;                   /* sockets whose ACK waits until the program is idle (tcp_recv.c) */
	uint32_t last_tcp;                   /* socket of the last TCP segment: a hint, verified at use */
	uint32_t tw_head, tw_tail, tw_count; /* orphans in TIME-WAIT, oldest first, chained by tcb.q_next/q_prev */
	uint32_t orphan_count;               /* TCP sockets that no program has any more, TIME-WAIT included */
	uint32_t challenge_acks;             /* in this second, whole stack: statistics only */
	uint16_t unsure_port[STACK_UNSURE];  /* see stack_unsure; host order, 0 none */
	uint32_t unsure_next;
	uint32_t udp_refused; /* goes up when a UDP peer that we had a route to is not there any more */
	uint32_t burst_more;  /* 1: more frames of this burst follow the one that is being taken in (engine.c) ... */
	uint32_t burst_ack;   /* ... and this socket's ACK waits for them; 0: none */
	/* the network (route.c) */
	struct neigh_want neigh_want[NEIGH_WANTS];
	uint64_t neigh_pending; /* bit per entry that waits to be asked for */
	uint32_t neigh_wanted;  /* goes up with each: a hint for those without the lock */
	uint32_t path_waiters;  /* sockets in path_wait */
	uint64_t path_retry_us; /* when they are tried again, ... */
	uint64_t path_step_us;  /* ... and how long after the last try that is */
	uint32_t path_wait[PATH_WAITS];
	uint64_t counters[COUNTER_COUNT];
	uint32_t procs;  /* entries of proc in use */
	uint32_t lodger; /* plus 1: of a forked process that makes its own sockets here, too; 0: nobody does */
	uint32_t bells;  /* 1: somebody has made the bells */
	uint32_t pad;
	struct stack_proc proc[PROC_MAX];
};

/* Enough to tell a stack from its relatives. */
static inline uint16_t stack_id_tag(const uint8_t id[16])
{
	return (uint16_t)(id[0] | id[1] << 8);
}

static inline struct vnic_state *stack_vnic(struct stack *s, uint32_t i)
{
	return i < VNIC_MAX ? (struct vnic_state *)((char *)s + s->off_vnics) + i : NULL;
}

static inline struct iface *stack_iface(struct stack *s, uint32_t i)
{
	return (struct iface *)((char *)s + s->off_ifaces) + i % VNIC_MAX;
}

static inline struct sock *sock_at(struct stack *s, uint32_t i)
{
	return i && i < s->cfg.max_socks ? (struct sock *)((char *)s + s->off_socks) + i : NULL;
}

static inline uint32_t sock_index(const struct stack *s, const struct sock *k)
{
	return (uint32_t)(k - (const struct sock *)((const char *)s + s->off_socks));
}

/* From here on k is changed: the one store that says so, before all that changes it. As the distance from the stack's
 * start in lines, which a socket is aligned to. */
#define SOCK_LINE_SHIFT 6
static inline void sock_changing(struct stack *s, const struct sock *k)
{
	__atomic_store_n(&s->lock.changing, (uint32_t)(((const char *)k - (const char *)s) >> SOCK_LINE_SHIFT),
			 __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST); /* not later, in the compiler's eyes either */
}

static inline struct pkt *pkt_at(struct stack *s, uint32_t i)
{
	return i && i < s->cfg.max_pkts ? (struct pkt *)((char *)s + s->off_pkts) + i : NULL;
}

static inline uint32_t pkt_index(const struct stack *s, const struct pkt *p)
{
	return (uint32_t)(p - (const struct pkt *)((const char *)s + s->off_pkts));
}

/* Is this a port of which it is not known whether frames are steered to us (viaductd died before it answered)? The
 * kernel has its connections, so segments for none of ours are not answered: they come again when that is known. */
static inline bool stack_unsure(const struct stack *s, uint16_t port)
{
	for (uint32_t i = 0; i < STACK_UNSURE; i++)
		if (s->unsure_port[i] == port)
			return true;
	return false;
}

static inline void count(struct stack *s, enum counter c)
{
	s->counters[c]++;
}

/* Bytes that a stack of this configuration takes. */
size_t stack_size(const struct stack_config *cfg);
/* Make a stack in zeroed memory. 0 or -EINVAL (configuration out of range, memory too small). */
int stack_format(void *mem, size_t len, const struct stack_config *cfg);
/* What connections may promise while none has promised anything (tcp_recv.c). */
void tcp_share_init(struct stack *s);
/* 0, or -EPROTO: not a stack, another version, or its offsets do not fit in len. For whoever maps one. */
int stack_check(const void *mem, size_t len);

#endif
