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
#define PKT_SACKED 0x01u    /* tx: the peer has it, says SACK */
#define PKT_LOST 0x02u      /* tx: considered lost, to be sent again */
#define PKT_RETRANS 0x04u   /* tx: retransmission is in flight */
#define PKT_EVER_RETRANS 0x08u /* tx: gives no RTT sample (Karn) */
#define PKT_SENT 0x10u      /* tx: was transmitted at least once */
#define PKT_PSH 0x20u       /* end of an application's write */
#define PKT_URG 0x40u       /* rx: last byte is urgent data */

#define PKT_HEADROOM 128u /* before the payload of a tx buffer: room for all headers */

struct pkt {
	uint32_t next, prev; /* queue, or pool's free list */
	uint32_t seq;        /* TCP: sequence number of the first payload byte */
	uint32_t len;        /* payload bytes */
	uint32_t buf;        /* buffer index in its area */
	uint16_t off;        /* of the payload in the buffer */
	uint16_t vnic;       /* whose buffer (PKT_TX, PKT_RX) */
	uint8_t kind;        /* enum pkt_kind */
	uint8_t flags;       /* PKT_* */
	uint16_t retrans;    /* times sent again */
	uint32_t vnic_gen;   /* generation of the vNIC when taken: a dead vNIC's buffer is not touched */
	uint64_t sent_us;    /* last transmission */
	uint64_t delivered;  /* rate sample: connection's delivered bytes when sent */
	uint32_t frag;       /* next part of the same datagram (UDP), 0 none */
	uint32_t aux;        /* UDP: index of the address record's pkt; TCP out-of-order tree: child */
	uint32_t aux2;
	uint32_t pad;
};

_Static_assert(sizeof(struct pkt) == 72 || sizeof(struct pkt) == 64, "pkt stays within two lines");

struct pkt_queue {
	uint32_t head, tail;
	uint32_t count;
	uint32_t bytes;
};

/* NULL when the pool, or the vNIC's tx buffers, are exhausted. Payload offset is PKT_HEADROOM, len 0. */
struct pkt *pkt_alloc_tx(struct engine *e, uint32_t vnic);
struct pkt *pkt_alloc_private(struct engine *e);
/* Free pkt and buffer (and the frag chain). Safe where the vNIC is dead or not mapped by this process. */
void pkt_free(struct engine *e, struct pkt *p);
/* The payload, or NULL if this process has not mapped the vNIC or the vNIC is another by now. */
uint8_t *pkt_data(struct engine *e, const struct pkt *p);
/* Payload bytes that fit behind what is there (tx and private). */
uint32_t pkt_room(struct engine *e, const struct pkt *p);

void pkt_push_tail(struct stack *s, struct pkt_queue *q, struct pkt *p);
void pkt_insert_after(struct stack *s, struct pkt_queue *q, struct pkt *after, struct pkt *p); /* after NULL: head */
void pkt_unlink(struct stack *s, struct pkt_queue *q, struct pkt *p);
void pkt_queue_free(struct engine *e, struct pkt_queue *q);

#endif
