/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine: frames, calls and the time in; frames, results and the next deadline out. It makes no system
 * call, reads no clock, takes no lock, starts no thread, allocates nothing after stack_format. Every call
 * requires the stack's lock. Results are 0 or more, or a negative errno.
 *
 * A packet's way in:  engine_poll -> vnic ops->poll -> frame_input (eth.c) -> ip_input (ip.c)
 *                     -> tcp_input (tcp_input.c) | udp_input (udp.c) | icmp_input (icmp.c)
 *                     -> rxq of a socket, sock_notify -> the process's dirty ring
 * A packet's way out: tcp_send (tcp_send.c) -> tcp_output (tcp_output.c) -> ip_output (ip.c) -> vnic ops->post
 *
 * After any call that may have posted frames, the caller releases the lock and rings what
 * vnic_take_armed() asks for on each vNIC over which something was posted.
 */
#ifndef VD_ENGINE_H
#define VD_ENGINE_H

#include <errno.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "engine/stack.h"

#define TXWAIT_RESERVE 16u /* tx buffers of a vNIC that are kept for ACKs and the like */
/* Data that a wire's peer has no window for yet may take a buffer only while more than this share of them, in eighths,
 * is free (tcp_send.c). */
#define TXHELD_EIGHTHS 5u

/* The way to an address, as route.h finds it. */
struct route {
	uint32_t ifindex;
	uint32_t mtu, link_mtu; /* of the way; of the interface */
	uint32_t path_mtu;      /* of the whole path, as a router said (route_mtu); 0: none did */
	uint8_t from[16];       /* source address to use where the socket has none */
	uint8_t via[16];        /* whose link address is wanted */
	uint8_t mac[6];
	uint8_t resolved; /* 1: mac is good */
};

/* One that was found for packets of sockets that are not connected, or that there is none. */
struct route_slot {
	uint8_t to[16], from[16];
	uint32_t version, ifindex;
	int32_t err;
	struct route r;
};
#define ROUTE_SLOTS 32u /* power of two */

/* What a router has said of the way to an address (route_mtu). */
struct path_mtu {
	uint8_t to[16];
	uint32_t mtu; /* 0: unused */
	uint64_t until_us;
};

/* One process's view of one stack. */
struct netview;
struct engine {
	struct stack *s;
	const struct netview *view; /* what viaductd says of the network (route.h); NULL: no network */
	struct vnic vnic[VNIC_MAX]; /* .ops NULL: not mapped in this process */
	struct route_slot route_slot[ROUTE_SLOTS];
	struct path_mtu path_mtu[ROUTE_SLOTS];
	bool path_mtus;      /* there are some */
	bool flushes;        /* who runs it calls tcp_flush_acks whenever the program waits: ACKs may wait for that */
	struct large *large; /* where large segments are gathered (large.h); NULL: not now */
	int large_fd[VNIC_MAX]; /* takes them, plus 1; 0: none do. Not in struct vnic, whose size is a power of two */
};

/* A received frame on its way through the layers. Layers move `off` forward and fill in the rest. */
#define FRAME_HDR 192u /* bytes of the start of the frame, read once from shared memory */
struct frame {
	uint32_t vnic;
	uint32_t parts;
	struct vnic_desc part[FRAME_PARTS];
	const uint8_t *flat; /* engine_input: the whole frame, parts is 0; else NULL */
	uint32_t taken;      /* bit i: part i was taken over by a pkt; the others are released at the end */
	uint32_t total;      /* bytes of all parts */
	uint32_t hdr_len;    /* bytes valid in hdr: min(total of first part, FRAME_HDR) */
	uint32_t off;        /* start of what the current layer looks at */
	uint32_t end;        /* end of the IP packet (padding cut off) */
	uint8_t family;      /* 4 or 6 */
	uint8_t proto;
	uint8_t tos, ttl;
	uint8_t l3;               /* offset of the IP header */
	bool csum_ok;             /* checksums need not be verified */
	bool csum_partial;        /* a TCP or UDP checksum may be the pseudo-header's sum alone */
	bool network;             /* it came from a network, not from a process of this machine */
	bool group;               /* to a group: its Ethernet address is one */
	struct endpoint src, dst; /* v4-mapped; ports filled in by TCP and UDP */
	uint8_t hdr[FRAME_HDR];
};

/* Bind a process's view to a stack (checked before with stack_check). vNICs are attached separately. */
void engine_attach(struct engine *e, struct stack *s);

/* Use a free interface slot; returns its number or -ENOBUFS. The caller then attaches a provider to
 * e->vnic[i] and stack_vnic(s, i). */
int engine_vnic_alloc(struct engine *e);
/* The other end is gone (or must go): drain what it still sent, then end every connection over it as the
 * kernel would show it: unread data of ours at the peer or unacknowledged data means ECONNRESET, else EOF. */
void engine_vnic_dead(struct engine *e, uint32_t vnic, uint64_t now_us);
/* Free the slot once nothing refers to its buffers; the caller unmaps. 0 or -EBUSY. */
int engine_vnic_free(struct engine *e, uint32_t vnic);

/* Take in about `budget` frames (the last burst is taken whole) from all mapped vNICs; 0 only if nothing was there.
 * Returns the number of frames. */
int engine_poll(struct engine *e, uint64_t now_us, int budget);
/* The same of one vNIC, which is in use. */
int engine_poll_vnic(struct engine *e, uint32_t vnic, uint64_t now_us, int budget);
/* One frame from elsewhere (sim, tap, tests): copied into private buffers. */
void engine_input(struct engine *e, uint32_t vnic, const void *frame, uint32_t len, bool csum_ok, uint64_t now_us);
/* A wire that is not mapped in this process, but in another of the tree, which has made it. */
static inline bool vnic_elsewhere(const struct engine *e, uint32_t vnic, uint32_t gen)
{
	const struct vnic_state *st = vnic < VNIC_MAX ? stack_vnic(e->s, vnic) : NULL;

	return st && st->provider == VNIC_PROV_LOCAL && !st->dead && st->gen == gen &&
	       (!e->vnic[vnic].ops || e->vnic[vnic].gen != gen);
}
/* What k sends, a TCP socket that is somebody's or waits for being accepted, only another process can send, which has
 * it. */
static inline bool sock_elsewhere(const struct engine *e, const struct sock *k)
{
	return (k->holders || k->tcp.parent) && vnic_elsewhere(e, k->vnic, k->vnic_gen);
}
/* Fire what is due. */
void engine_tick(struct engine *e, uint64_t now_us);
/* When engine_tick wants to be called next, in us; UINT64_MAX: never. May be early, never late. */
uint64_t engine_deadline(const struct engine *e);
/* The lock's owner died: whatever it was changing may be half done. All connections end as if reset, every pool and
 * table is made anew (repair.c). */
void engine_repair(struct engine *e);
/* The same where no process is left, with all vNICs attached that can be: connections whose send queue is whole go on,
 * to be closed; the others' peers are sent a reset (salvage.c). fate: room for cfg.max_socks, enum salvage. */
enum salvage { SALVAGE_DROP, SALVAGE_RESET, SALVAGE_KEEP };
void engine_salvage(struct engine *e, uint8_t *fate);

/* For tests and repair: count what contradicts itself. 0 when each pkt in use is in exactly one queue, each buffer has
 * its one owner, and the pools' figures agree. Not to be called while a frame is on its way through the layers. */
uint32_t stack_audit(struct engine *e);

/* --- what the protocols give each other (eth.c, ip.c, icmp.c, udp.c) --- */
void frame_input(struct engine *e, struct frame *f);
void ip_input(struct engine *e, struct frame *f);
void icmp_input(struct engine *e, struct frame *f);
void udp_input(struct engine *e, struct frame *f);
void tcp_input(struct engine *e, struct frame *f);
/* The short way of a frame in one buffer that came over a wire and is held. False: nothing was done. */
bool tcp_fast_input(struct engine *e, uint32_t vnic, const struct vnic_desc *d);

/* Take payload [off, off+len) of the frame over into pkts appended to `out` (local list through ->next,
 * head returned). Buffers that are fully taken become PKT_RX without a copy; when the vNIC runs low of
 * buffers (more than half are held here) or the frame came through engine_input, the bytes are copied to
 * private buffers. NULL: no pkt was free (nothing was taken). */
struct pkt *frame_take(struct engine *e, struct frame *f, uint32_t off, uint32_t len);
/* Copy bytes of the frame's payload, checked against its end. False: out of range. */
bool frame_copy(struct engine *e, const struct frame *f, uint32_t off, void *to, uint32_t len);
/* Internet checksum (not complemented) over [off, end) of the frame, across parts, added to `sum`. */
uint32_t frame_sum(struct engine *e, const struct frame *f, uint32_t off, uint32_t end, uint32_t sum);

/* Addressing of an outgoing packet. */
struct ip_out {
	uint32_t vnic;
	uint8_t family; /* 4 or 6: of the packet, not of the socket */
	uint8_t proto, ttl, tos;
	const uint8_t *src, *dst; /* 16 bytes, v4-mapped */
	const uint8_t *mac;       /* of the next hop; NULL: of whoever is behind the vNIC */
	bool df;
};
/* The next hop's address for an answer to f, and for what a connected socket sends. */
static inline const uint8_t *frame_source_mac(const struct frame *f)
{
	return f->hdr + 6;
}
static inline const uint8_t *sock_mac(const struct engine *e, const struct sock *k)
{
	const struct vnic_state *st = stack_vnic(e->s, k->vnic);

	return st && vnic_is_network(st) ? k->dst.mac : NULL;
}
/* May a frame that came over vNIC a be for a socket on vNIC b? On a network a frame may take any of our interfaces; a
 * wire is as good as an address, and nobody behind one passes for a network, nor the other way round. */
static inline bool vnic_same_side(const struct engine *e, uint32_t a, uint32_t b)
{
	const struct vnic_state *sa = stack_vnic(e->s, a), *sb = stack_vnic(e->s, b);

	return a == b || (sa && sb && vnic_is_network(sa) && vnic_is_network(sb));
}
/* The TCP or UDP checksum of the packet [f->off, end), whose field lies at f->off + field, is right. */
bool ip_checksum_good(struct engine *e, const struct frame *f, uint32_t end, uint32_t field);
/* The packet claims to come from this machine, but came from the network. */
bool ip_source_ours(struct engine *e, const struct frame *f);
/* Bytes of Ethernet + IP header for a packet of this family, without a VLAN tag. */
uint32_t ip_header_len(int family);
/* Prepend IP and Ethernet headers in front of l4 (which lies in the tx buffer of parts[0], with room
 * before it), fill in the transport checksum at l4 + csum_off unless the vNIC needs none, and post.
 * parts describe transport header + payload; parts[0].off/len start at the transport header. */
void ip_output(struct engine *e, const struct ip_out *o, struct vnic_desc *parts, int n, uint32_t csum_off);
/* Only write the Ethernet and IP headers of a packet with len bytes from l4 on, in front of l4. */
void ip_put_headers(struct engine *e, const struct ip_out *o, uint8_t *l4, uint32_t len);
/* Largest transport payload+header for this vNIC and family. */
uint32_t ip_mtu_payload(const struct engine *e, uint32_t vnic, int family);

/* --- sockets that wait for tx buffers of a vNIC (txwait.c) --- */
/* k was refused a tx buffer of this vNIC (txwait_add: its own): it hears EV_OUT, and TCP tries to output again, when
 * some are free. */
void txwait_add(struct engine *e, struct sock *k);
void txwait_add_on(struct engine *e, struct sock *k, uint32_t vnic);
/* The peer's window holds k back as well: it waits until many buffers are free. */
void txwait_add_held(struct engine *e, struct sock *k);
void txwait_remove(struct engine *e, struct sock *k); /* also for one that does not wait; sock_free does it */
/* After a vNIC's events were taken in. */
void txwait_run_slow(struct engine *e, uint32_t vnic);
void txwait_run_held(struct engine *e, uint32_t vnic);
static inline void txwait_run(struct engine *e, uint32_t vnic)
{
	struct vnic_state *st = stack_vnic(e->s, vnic);

	if (st->txwait_head && st->free_top > TXWAIT_RESERVE)
		txwait_run_slow(e, vnic);
	if (__builtin_expect(st->txheld_head != 0, 0))
		txwait_run_held(e, vnic);
}

/* --- checksums (checksum.c, RFC 1071). Sums are in memory order: copy the folded one into the packet as it is. --- */
uint32_t csum_add(const void *data, size_t len, uint32_t sum); /* data starts at an even offset of the packet */
uint16_t csum_fold(uint32_t sum);                              /* final complement */
uint32_t csum_pseudo(int family, const uint8_t src[16], const uint8_t dst[16], uint8_t proto, uint32_t len);

/* --- keyed hash (hash.c): SipHash-like, keyed with the stack's secret --- */
uint64_t keyed_hash(const uint8_t key[16], const void *data, size_t len);

/* --- UDP (udp.c) --- */
/* Send one datagram from k to `to` over vNIC `vnic`. Bytes sent, -EAGAIN (no buffer), -EMSGSIZE. On a network (any vNIC
 * of it is as good as another: the route decides; the address of `from` may be any) also -ENOLINK: the kernel must send
 * it, which has no next hop for us, or will find it, or must cut it; -EMSGSIZE: the program wants it not to be cut. */
ssize_t udp_send(struct engine *e, struct sock *k, uint32_t vnic, const struct endpoint *from,
		 const struct endpoint *to, const struct iovec *iov, int iovcnt, uint64_t now_us);
/* The same with what the program asks of this one: negative, or 0, as the socket has it. */
struct udp_how {
	int ttl, tos;
	uint32_t ifindex;
};
ssize_t udp_send_as(struct engine *e, struct sock *k, uint32_t vnic, const struct endpoint *from,
		    const struct endpoint *to, const struct iovec *iov, int iovcnt, const struct udp_how *how,
		    uint64_t now_us);
/* A received datagram's particulars. */
struct udp_meta {
	struct endpoint from, to;
	uint32_t vnic; /* it came over */
	uint32_t size; /* of the datagram, also where less was copied */
	uint8_t tos, ttl;
};
/* Read (peek: leave) the next datagram. Bytes copied, -EAGAIN. */
ssize_t udp_recv(struct engine *e, struct sock *k, const struct iovec *iov, int iovcnt, bool peek,
		 struct udp_meta *meta);
uint32_t udp_first_size(struct engine *e, const struct sock *k); /* FIONREAD */
/* The vNIC that must be mapped before the next datagram can be read: a relative has made it. VNIC_NONE: not so. */
uint32_t udp_first_elsewhere(struct engine *e, const struct sock *k);
uint32_t udp_poll(struct engine *e, const struct sock *k); /* level EV_* */
void udp_close(struct engine *e, struct sock *k);
/* Queue a datagram's payload of that length. */
void udp_deliver(struct engine *e, struct sock *k, struct frame *f, uint32_t len);
/* Copy a queued datagram's bytes into iov. Bytes copied, or -EFAULT. */
ssize_t udp_copy_out(struct engine *e, const struct pkt *p, size_t skip, const struct iovec *iov, int iovcnt);
/* The vNIC it is connected over is gone: unread datagrams stay, the socket layer looks for another vNIC. */
void udp_vnic_dead(struct engine *e, struct sock *k);

/* --- errors to be read with MSG_ERRQUEUE (errqueue.c) --- */
/* What an ICMP error, or we ourselves, say of a packet that k sent; numbers are Linux's (linux/errqueue.h). */
enum sock_error_origin { ERROR_LOCAL = 1, ERROR_ICMP, ERROR_ICMP6 };
struct sock_error {
	int32_t err;
	uint8_t origin, type, code; /* enum sock_error_origin; of the ICMP message */
	uint8_t pad;
	uint32_t info;        /* MTU, pointer */
	uint8_t offender[16]; /* who said so; all zero: nobody */
};
/* Does the program want to read errors of this origin? */
static inline bool sock_wants_errors(const struct sock *k, uint8_t origin)
{
	return k->flags & (origin == ERROR_ICMP6 ? SOCKF_RECVERR6 : SOCKF_RECVERR);
}
static inline bool sock_has_errors(const struct sock *k)
{
	return k->flags & (SOCKF_RECVERR | SOCKF_RECVERR6) && k->errq.head;
}
/* Queue it. to: where the packet went; f, off: the frame, and where in it the quoted payload begins. f NULL: the error
 * is of our own making, about no bytes. */
void errqueue_add(struct engine *e, struct sock *k, const struct sock_error *err, const struct endpoint *to,
		  const struct frame *f, uint32_t off);
/* The oldest, with the payload that it quotes: bytes copied, or -EAGAIN. meta->from is where the packet went, the rest
 * of meta is of the ICMP message. SO_ERROR becomes the next one's. */
ssize_t errqueue_take(struct engine *e, struct sock *k, const struct iovec *iov, int iovcnt, struct sock_error *err,
		      struct udp_meta *meta);
/* Forget them all: the socket ends, or IP_RECVERR is switched off. */
void errqueue_purge(struct engine *e, struct sock *k);

/* --- ICMP (icmp.c) --- */
/* Answer a UDP datagram that no socket wants: port unreachable, limited per vNIC. */
void icmp_port_unreachable(struct engine *e, const struct frame *f);

#endif
