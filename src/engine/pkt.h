/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pkt describes one piece of payload in one buffer: a tx buffer of a vNIC (to send, or sent and not yet
 * acknowledged), an rx buffer of a vNIC (received, not yet read), or a private buffer of the stack.
 * It owns the buffer: pkt_free lets the buffer go too. Sockets keep pkts in doubly linked queues.
 */
#ifndef VD_PKT_H
#define VD_PKT_H

#include <stdint.h>

struct engine;
struct stack;

enum pkt_kind { PKT_FREE, PKT_TX, PKT_RX, PKT_PRIVATE };

/* pkt.flags */
#define PKT_SACKED 0x01u       /* tx: the peer has it, says SACK */
#define PKT_LOST 0x02u         /* tx: considered lost, to be sent again */
#define PKT_RETRANS 0x04u      /* tx: retransmission is in flight */
#define PKT_EVER_RETRANS 0x08u /* tx: gives no RTT sample (Karn) */
#define PKT_SENT 0x10u         /* tx: was transmitted at least once */
#define PKT_PSH 0x20u          /* end of an application's write */
#define PKT_URG 0x40u          /* rx: last byte is urgent data */
#define PKT_BURST 0x40u        /* tx: last of several segments that first went out as one burst */
#define PKT_END 0x80u          /* tx: a burst ends here, nothing is appended */

#define PKT_HEADROOM 128u /* before the payload of a tx buffer: room for all headers */

#define PKT_NO_BUF 0u /* buf of a PKT_PRIVATE without a buffer (an empty datagram); buffer 0 is never used */

/* One cache line. A datagram's first pkt says in the second half where it came from; TCP has its own there. */
struct pkt {
	uint32_t next; /* queue, or pool's free list */
	union {
		uint32_t prev; /* queue */
		struct {
			uint16_t from_port; /* UDP, whose queue has one direction only */
			uint8_t tos, ttl;
		};
	};
	uint32_t len;      /* payload bytes */
	uint32_t buf;      /* buffer index in its area */
	uint16_t off;      /* of the payload in the buffer */
	uint16_t vnic;     /* whose buffer (PKT_TX, PKT_RX); over which it came (PKT_PRIVATE) */
	uint32_t vnic_gen; /* generation of the vNIC when taken: a dead vNIC's buffer is not touched */
	uint32_t frag;     /* next part of the same datagram (UDP), 0 none */
	uint8_t kind;      /* enum pkt_kind */
	uint8_t flags;     /* PKT_* */
	uint16_t retrans;  /* times sent again */
	union {
		struct {
			uint64_t sent_us;   /* last transmission */
			uint64_t delivered; /* rate sample: connection's delivered bytes when sent */
			uint32_t seq;       /* sequence number of the first payload byte */
			uint32_t aux;       /* out-of-order tree: child */
			uint32_t aux2;
			uint32_t pad;
		};
		struct {
			uint8_t from[16]; /* UDP: source and destination address */
			uint8_t to[16];
		};
	};
};

_Static_assert(sizeof(struct pkt) == 64, "a pkt is one line");

struct pkt_queue {
	uint32_t head, tail;
	uint32_t count;
	uint32_t bytes;
};

/* NULL when the pool, or the vNIC's tx buffers but for TXWAIT_RESERVE, are exhausted: what must go out all the same
 * (ACK, RST, SYN) takes its buffer with vnic_tx_alloc. Payload offset is PKT_HEADROOM, len 0. */
struct pkt *pkt_alloc_tx(struct engine *e, uint32_t vnic);
/* For a pkt that lets queued data go on its way: takes from the reserve too, leaving half of it. */
struct pkt *pkt_alloc_tx_reserve(struct engine *e, uint32_t vnic);
struct pkt *pkt_alloc_private(struct engine *e); /* payload offset 0, len 0 */
/* Free pkt and buffer (and the frag chain). Safe where the vNIC is dead or not mapped by this process. */
void pkt_free(struct engine *e, struct pkt *p);
/* The payload, or NULL if this process has not mapped the vNIC, the vNIC is another by now, or there is no buffer. */
uint8_t *pkt_data(struct engine *e, const struct pkt *p);
/* Payload bytes that fit behind what is there (tx and private). */
uint32_t pkt_room(struct engine *e, const struct pkt *p);

void pkt_push_tail(struct stack *s, struct pkt_queue *q, struct pkt *p);
void pkt_insert_after(struct stack *s, struct pkt_queue *q, struct pkt *after, struct pkt *p); /* after NULL: head */
void pkt_unlink(struct stack *s, struct pkt_queue *q, struct pkt *p);
/* The same for datagrams, whose queue has one direction (prev is something else's) and counts `bytes` for p and its
 * parts. */
void pkt_push_datagram(struct stack *s, struct pkt_queue *q, struct pkt *p, uint32_t bytes);
void pkt_shift_datagram(struct pkt_queue *q, const struct pkt *p, uint32_t bytes); /* p: the first one */
void pkt_queue_free(struct engine *e, struct pkt_queue *q);
/* For frame_take: a pkt without a buffer, and one that takes over a held rx buffer. NULL: pool exhausted. */
struct pkt *pkt_alloc_empty(struct stack *s);
struct pkt *pkt_alloc_rx(struct stack *s, uint32_t vnic, uint32_t buf, uint32_t off, uint32_t len);
/* Give rx buffers back that a process freed which has not mapped their vNIC. Called with the vNIC mapped, or dead. */
void pkt_release_deferred(struct engine *e, uint32_t vnic);

#endif
