/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a process speaks with viaductd: one SOCK_SEQPACKET Unix connection per stack, to the abstract name DAEMON_NAME
 * (so there is one viaductd per network namespace). The process trusts a daemon whose SO_PEERCRED says root or its own
 * user; the daemon trusts nobody: it checks each request against SO_PEERCRED, its allow-list, and what the kernel says
 * of the descriptors passed.
 *
 * One packet is one message: struct daemon_head, then the body of its type, zero-padded to its size; descriptors travel
 * with SCM_RIGHTS in the order given here. Each request has one reply, in order, with the request's type and seq,
 * `status` 0 or a negative errno, and, when that is not 0, a sentence in daemon_error. The daemon never speaks unasked;
 * an eventfd that it gives to those who want it (DAEMON_HELLO_NEWS) tells of interfaces and addresses that came or
 * went. A body that is longer than known is read as far as known; one that is shorter is taken as followed by zeros: so
 * both sides may be of different versions with the same DAEMON_PROTOCOL. Numbers are in host order, addresses as in
 * netview.h.
 *
 * Processes that share a stack (fork) may have a connection each: a HELLO that shows memory which a living stack of the
 * same user has already joins that stack, if daemon_welcome says DAEMON_WELCOME_JOINS. Filters belong to the stack, and
 * stay when the one who asked for them is gone, until another takes them (DAEMON_INHERIT).
 *
 * When the last connection closes, the daemon takes the stack for dead once none of the processes whose pidfds were
 * passed lives: it maps the stack's memory, runs it until its connections have ended as the kernel would end them, then
 * removes its filters. When the daemon goes, the stack's rings, program and filters stay as long as a process of the
 * tree holds the descriptors that came with them (keep_fds); the process connects again to the next daemon within 20
 * seconds, and says HELLO, DAEMON_RESUME for each vNIC, and DAEMON_FILTER_ADD for each filter, which get new numbers:
 * first those of ports, then those of flows, which need no socket if the earlier daemon steered them to this stack. A
 * daemon may die, or be slower than its client waits, between a filter's making and its reply; the asker then knows of
 * none. DAEMON_NAMED, from the only process of a stack, has such ones removed at once, not only after those 20 seconds.
 */
#ifndef VIADUCT_DAEMON_H
#define VIADUCT_DAEMON_H

#include <stdint.h>

#define DAEMON_NAME "viaduct1/daemon" /* abstract: preceded by a 0 byte, length without a trailing one */
#define DAEMON_PROTOCOL 1u
#define DAEMON_MESSAGE_MAX 2048u
#define DAEMON_FDS_MAX 80u
#define DAEMON_QUEUES_MAX 64u  /* of one vNIC */
#define DAEMON_QUEUES_LEAST 1u /* that an asker can take which does not say how many */

enum daemon_type {
	DAEMON_HELLO = 1,  /* first on each connection */
	DAEMON_OPEN,       /* a vNIC on an interface */
	DAEMON_RESUME,     /* the rings exist: hand them to a new daemon */
	DAEMON_FILTER_ADD, /* steer a flow or a port to this stack */
	DAEMON_FILTER_DEL,
	DAEMON_RESOLVE, /* have the kernel resolve, or confirm, a neighbour */
	DAEMON_STATUS,  /* what `viaduct check` and `viaduct stat` ask; also on a connection without a stack */
	DAEMON_PROCESS, /* a forked process of the tree: keep the stack alive while it lives */
	DAEMON_STACK,   /* what `viaduct stat` asks of one stack; also on a connection without a stack */
	DAEMON_BIND,    /* the rings of a vNIC are mapped: let it be used */
	DAEMON_INHERIT, /* the filters of processes of the tree that are gone become the asker's */
	DAEMON_FLOWS,   /* the table in which the stack may steer flows to itself */
	DAEMON_NAMED,   /* after RESUME: the stack has named all its filters; what else stands for it goes */
	DAEMON_TYPES
};

/*
 * What each request carries, and what comes back; besides, any may fail with the kernel's own errno.
 *
 *   type        body, descriptors                reply, descriptors           errors of ours
 *   HELLO       daemon_hello, memfd and pidfd    daemon_welcome, netview,     EPERM user not served, EUSERS too many
 *                                                eventfd (if asked for)       stacks, EINVAL no such memory
 *   OPEN        daemon_open, licence (or none)   daemon_vnic, umem, sockets,  ENODEV, EOPNOTSUPP loopback or MTU, EPERM
 *                                                keep_fds                     interface not served, EEXIST, EUSERS too
 *                                                                             many, EBUSY another XDP program, ENETDOWN
 *   BIND        daemon_bind                      daemon_vnic                  ENOENT none to be bound, EBUSY another's
 *                                                                             queues, EOPNOTSUPP MTU, ENETDOWN
 *   RESUME      daemon_vnic, umem, sockets       daemon_vnic, keep_fds        EINVAL no rings, ENODEV, ENOENT
 *   FILTER_ADD  daemon_filter, socket (or none)  daemon_filter_id             EINVAL, EPERM port not owned, EADDRINUSE,
 *                                                                             ENOSPC too many, ENOMEM
 *   FILTER_DEL  see below                        nothing                      ENOENT
 *   RESOLVE     daemon_resolve                   nothing
 *   STATUS      nothing, licence (or none)       daemon_status
 *   PROCESS     nothing, pidfd                   nothing                      ENOSPC too many
 *   STACK       daemon_stack_ask                 daemon_stack                 ENOENT none, or another user's
 *   INHERIT     nothing                          daemon_inherited
 *   FLOWS       nothing                          daemon_flows, table          EPERM no direct vNIC, EOPNOTSUPP the NIC
 *                                                                             steers for the stack
 *   NAMED       nothing                          nothing
 *
 * ENOTCONN: a request that needs a stack, before a HELLO that showed one. EOPNOTSUPP: an unknown type. EMFILE: the
 * daemon had no room for the descriptors. A packet that is none of these, a second HELLO, and an asker that does not
 * read its replies end the connection.
 */

struct daemon_head {
	uint16_t type;     /* enum daemon_type */
	uint16_t protocol; /* DAEMON_PROTOCOL */
	uint32_t size;     /* of the whole packet, this head included */
	uint32_t seq;      /* chosen by the asker, repeated in the reply */
	int32_t status;    /* reply: 0 or a negative errno */
};

/* Body of a reply whose status is not 0. */
struct daemon_error {
	char text[256]; /* what is wrong and what to do about it; NUL-terminated */
};

/* DAEMON_HELLO. Descriptors: the stack's memfd; a pidfd of this process. Without descriptors: only DAEMON_STATUS and
 * DAEMON_STACK may follow. */
struct daemon_hello {
	uint32_t
	    stack_version; /* STACK_VERSION: a daemon that runs another one can't finish the connections of the dead */
	uint32_t flags;    /* DAEMON_HELLO_* */
};
#define DAEMON_HELLO_NEWS                                                                                              \
	0x1u /* asks for an eventfd: readable when interfaces or addresses have changed in the view                    \
	      */

/* Its reply. Descriptors: the netview memfd (netview.h), sealed against writing; the eventfd, if one was asked for and
 * could be had (a daemon that knows of none sends none). */
struct daemon_welcome {
	uint32_t version;       /* of viaductd: major << 16 | minor << 8 | patch */
	uint32_t stack_version; /* that it runs */
	uint32_t netview_size;  /* bytes */
	uint32_t flags;         /* DAEMON_WELCOME_* */
};
#define DAEMON_WELCOME_JOINS 0x1u

/* How a vNIC reaches its interface (daemon_vnic.mode). */
enum daemon_mode {
	DAEMON_MODE_DIRECT =
	    1, /* AF_XDP sockets on the interface's own queues: for processes that may send as anybody anyway */
	DAEMON_MODE_VETH, /* AF_XDP socket on a veth of its own behind the interface; what it sends is checked */
};

/* daemon_vnic.features */
#define DAEMON_VNIC_PARTIAL_CSUM                                                                                       \
	0x1u                     /* received TCP and UDP checksums may be the pseudo-header's sum alone (veth, tap) */
#define DAEMON_VNIC_SCATTER 0x2u /* frames may span several buffers (XDP_USE_SG) */
#define DAEMON_VNIC_ZEROCOPY 0x4u
#define DAEMON_VNIC_NATIVE 0x8u /* the program runs in the driver; else in the kernel's generic hook */
#define DAEMON_VNIC_APART                                                                                              \
	0x20u /* each queue has a umem of its own, in which its chunks are counted from its first one: the kernel      \
		 keeps a record of every chunk for each queue of one umem */
#define DAEMON_VNIC_UNBOUND                                                                                            \
	0x10u /* in the reply to DAEMON_OPEN: nothing comes or goes before DAEMON_BIND, whose reply says the rest */

/*
 * Licence: a packet socket (packet(7), SOCK_RAW) of the daemon's network namespace. Who has one may send and read any
 * frame there, so he gets the interface's own queues as root does. It takes CAP_NET_RAW to make one; the asker's
 * capabilities themselves can't be looked at: he may be another program than he was when he connected.
 */
struct daemon_open {
	uint32_t ifindex; /* of the interface that the route names (a VLAN, say); the daemon finds the device */
	uint32_t flags;   /* DAEMON_OPEN_* */
	uint32_t queues;  /* that the asker can take; 0: DAEMON_QUEUES_LEAST */
	uint32_t reserved;
};
#define DAEMON_OPEN_BINDS 0x1u  /* the asker maps the rings, then says DAEMON_BIND, if the reply says UNBOUND */
#define DAEMON_OPEN_BEHIND 0x2u /* a veth in any case: DAEMON_BIND has found the interface's queues taken */

/*
 * DAEMON_BIND. Before Linux 6.4 the rings of an AF_XDP socket can be mapped only until it is bound. So the daemon binds
 * the sockets of a vNIC when its owner has mapped them (they can be bound to that interface alone, by whomever), and
 * steers nothing to them before. The reply is the vNIC as it is now, without descriptors. When it fails the vNIC is
 * gone. An older daemon binds at once and says no UNBOUND; an older library says no BINDS.
 */
struct daemon_bind {
	uint32_t ifindex; /* as in DAEMON_OPEN */
	uint32_t reserved;
};

/*
 * Reply. Descriptors: the umem's memfd, the AF_XDP socket of each queue, then keep_fds more that the process keeps open
 * and uses for nothing else: they hold what steers its frames in place when the daemon is gone. Chunk i of the umem is
 * at i * chunk_size; each queue has its own part of it: rx_count chunks from rx_first, and tx_count chunks from
 * tx_first.
 *
 * DAEMON_RESUME: this is its body, as it was received then; descriptors: the umem and the sockets in the same order.
 * Each process of a tree may do it.
 * The reply is this again, the descriptors only the new keep_fds (keep the old ones too until then).
 */
struct daemon_vnic {
	uint32_t ifindex;
	uint32_t mode;     /* enum daemon_mode */
	uint32_t features; /* DAEMON_VNIC_* */
	uint32_t mtu;
	uint32_t queues;   /* 1 .. DAEMON_QUEUES_MAX */
	uint32_t keep_fds; /* descriptors after the sockets, to be kept */
	uint32_t chunk_size;
	uint32_t ring_size; /* entries of each of the four rings of a queue */
	uint64_t umem_size;
	uint8_t mac[6]; /* source address of frames sent */
	uint16_t vlan;  /* tag to put on frames, 0 none */
	struct {
		uint32_t rx_first, rx_count, tx_first, tx_count;
	} queue[DAEMON_QUEUES_MAX];
};

/*
 * DAEMON_FILTER_ADD. Descriptor: the backing socket that owns local (the daemon asks the kernel what it is bound to,
 * and keeps it open as long as the filter stands, so the port stays taken). remote.port 0: all peers. Steers on every
 * interface on which the stack has a vNIC, now or later. For a connection accepted on a listener's port no filter is
 * needed while the listener's stands; for others (a listener that closes before its connections; several stacks on one
 * port) name the remote end too; then the descriptor may be left out while the stack has any filter for that local end.
 * The same filter again changes nothing but the socket that is held, and has the same number. When the last filter for
 * a whole port goes and flows of it remain, the daemon shuts the socket down for reading: the kernel accepts nothing
 * more.
 */
struct daemon_filter {
	uint8_t proto;  /* IPPROTO_TCP or IPPROTO_UDP */
	uint8_t family; /* 4 or 6: of the packets, where the address is any */
	uint16_t local_port, remote_port;
	uint16_t flags; /* DAEMON_FILTER_* */
	uint8_t local[16], remote[16];
};
#define DAEMON_FILTER_BOTH 0x1u /* local is any of IPv6 and takes IPv4 too */
#define DAEMON_FILTER_SHARED                                                                                           \
	0x2u /* SO_REUSEPORT: other stacks of the same user may add the same; new flows are spread */

/* Reply to DAEMON_FILTER_ADD. */
struct daemon_filter_id {
	uint32_t id;
	uint32_t reserved;
};

/* DAEMON_FILTER_DEL: of many, or one, whose ports are free when the reply comes. The reply speaks of `id`; of the
 * others those that are no filters are passed over. May be sent as short as it is. */
#define DAEMON_FILTERS_MORE 62u
struct daemon_filter_ids {
	uint32_t id;
	uint32_t more; /* how many others */
	uint32_t others[DAEMON_FILTERS_MORE];
};

/* Reply to DAEMON_INHERIT. When it is full there may be more: ask again. */
#define DAEMON_INHERIT_MAX 44u
struct daemon_inherited {
	uint32_t count;
	uint32_t reserved;
	struct {
		uint32_t id;
		struct daemon_filter filter;
	} was[DAEMON_INHERIT_MAX];
};

/*
 * Reply to DAEMON_FLOWS. Descriptor: a BPF array, to be mapped: `sets` times struct daemon_flow_set. Who has an
 * interface's own queues may do there anyway what he likes; a connection that is to have a filter for both of its ends
 * so needs no conversation. All such stacks of the network namespace share the table. A flow is in one of the four
 * places of the set that daemon_flow_hash names. Whoever enters one takes a free place (tag 0) by changing the tag from
 * 0 to DAEMON_FLOW_BUSY atomically, writes the rest, and the tag, the hash with its lowest bit set, at last. The writer
 * keeps the port taken by a socket of his own, takes no flow that another stack has, and removes his (tag 0); when he
 * is dead the daemon does. Filters by DAEMON_FILTER_ADD for the same flow come first.
 */
struct daemon_flows {
	uint32_t stack; /* the stack's number in the table */
	uint32_t sets;
	uint32_t set_size;
	uint32_t reserved;
};

#define DAEMON_FLOW_SETS 4096u
#define DAEMON_FLOW_WAYS 4u
#define DAEMON_FLOW_BUSY 2u
#define DAEMON_FLOW_WORDS 10u

struct daemon_flow {
	uint32_t local[4], remote[4];     /* 16 bytes each, as elsewhere */
	uint16_t local_port, remote_port; /* in network order */
	uint8_t proto, family;            /* family: 4 or 6 */
	uint16_t zero;
};

struct daemon_flow_set {
	uint32_t tag[DAEMON_FLOW_WAYS];
	uint32_t stack[DAEMON_FLOW_WAYS]; /* that has it */
	uint32_t born[DAEMON_FLOW_WAYS];  /* the writers': when, in units of 1024 microseconds */
	uint32_t reserved[DAEMON_FLOW_WAYS];
	struct daemon_flow flow[DAEMON_FLOW_WAYS];
};

/* Of a struct daemon_flow, word by word. Its set: the remainder by DAEMON_FLOW_SETS of the upper bits. */
static inline __attribute__((always_inline)) uint32_t daemon_flow_hash(const uint32_t word[DAEMON_FLOW_WORDS])
{
	uint32_t h = 0x811c9dc5u;

	for (uint32_t i = 0; i < DAEMON_FLOW_WORDS; i++) {
		h = (h ^ word[i]) * 0x9e3779b1u;
		h ^= h >> 15;
	}
	h *= 0x85ebca6bu;
	return h ^ h >> 13;
}

static inline uint32_t daemon_flow_set_of(uint32_t hash)
{
	return (hash >> 8) % DAEMON_FLOW_SETS;
}

struct daemon_resolve {
	uint8_t addr[16];
	uint32_t ifindex;
	uint32_t reserved;
};

/* Reply to DAEMON_STATUS. */
struct daemon_status {
	uint32_t version;
	uint32_t stacks;  /* connected */
	uint32_t orphans; /* dead, being finished */
	uint32_t filters;
	uint32_t pid;
	uint32_t uid;
	uint32_t allowed; /* 1: the asker's user may open vNICs */
	uint32_t direct;  /* 1: the asker would get DAEMON_MODE_DIRECT where a queue is free */
	uint32_t kernel;  /* DAEMON_KERNEL_* */
	uint32_t reserved;
};
#define DAEMON_KERNEL_NO_RINGS                                                                                         \
	0x1u /* before Linux 6.4, and whoever has a socket could bind it anywhere: no program can get rings */

struct daemon_stack_ask {
	uint64_t inode; /* of the stack's memfd */
};

/* Reply to DAEMON_STACK: what a stack has on interfaces. */
#define DAEMON_STACK_VNICS 16u
struct daemon_stack {
	uint32_t filters;
	uint32_t vnics; /* entries of vnic */
	struct {
		uint32_t ifindex;
		uint32_t mode;          /* enum daemon_mode */
		uint32_t first, queues; /* receive queues of the interface, where they are its own */
		/* frames behind a veth: that left; that were not let out, because they are not from a port or flow of
		 * the stack, from its interface's address, or cannot be told to be */
		uint64_t sent, refused;
	} vnic[DAEMON_STACK_VNICS];
};

#endif
