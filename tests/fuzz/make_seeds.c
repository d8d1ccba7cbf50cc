/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes the seeds of a fuzz target: inputs that open connections both ways, move data, lose some of it, and close, in
 * the encoding that fuzz_engine.c and fuzz_wire.c read. The fuzzer goes on from there.
 *
 *   make_seeds fuzz_engine|fuzz_wire DIRECTORY
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct seed {
	uint8_t bytes[1024];
	size_t len;
};

static void put(struct seed *s, const uint8_t *bytes, size_t n)
{
	memcpy(s->bytes + s->len, bytes, n);
	s->len += n;
}

#define PUT(s, ...) put(s, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static uint8_t slot; /* that the seed plays with: from 6 on it is IPv6's */

/* --- fuzz_engine --- */

static void advance(struct seed *s, uint8_t unit, uint8_t times)
{
	PUT(s, 0, unit, times);
}

static void call(struct seed *s, uint8_t what, uint16_t n)
{
	PUT(s, 200, slot, what, (uint8_t)(n >> 8), (uint8_t)n);
}

/* A segment for the slot; kind as in `usual` of inject_segment. connected: the socket is the slot's own. */
static void segment(struct seed *s, uint8_t kind, int connected, uint16_t len, uint8_t options)
{
	PUT(s, 40, slot, kind);
	if (connected)
		PUT(s, 1); /* acknowledges all that was sent */
	PUT(s, 0, 0);      /* seq and ack as expected */
	if (len)
		PUT(s, 0, (uint8_t)(len >> 8), (uint8_t)len);
	else
		PUT(s, 1);
	PUT(s, 1, options); /* full window */
	if (options == 0)
		PUT(s, 2); /* a right MSS option */
	if (options == 2)
		PUT(s, 1, 4, 0, 2, 0, 9, 0, 2, 0); /* two SACK blocks */
	PUT(s, 5);
	if (slot >= 6)
		PUT(s, len % 3 ? 0xc8 : 0); /* destination options, or none */
}

enum { SEG_ACK = 0, SEG_PSH = 1, SEG_SYN = 2, SEG_SYN_ACK = 3, SEG_FIN = 4, SEG_RST = 5 };
enum {
	CALL_LISTEN = 0,
	CALL_CONNECT = 1,
	CALL_ACCEPT = 2,
	CALL_SEND = 4,
	CALL_RECV = 7,
	CALL_SHUTDOWN = 10,
	CALL_CLOSE = 12
};

static void passive_open(struct seed *s, uint8_t options)
{
	call(s, CALL_LISTEN, 5);
	segment(s, SEG_SYN, 0, 0, options);
	segment(s, SEG_ACK, 0, 0, 4);
	call(s, CALL_ACCEPT, 0);
}

static void active_open(struct seed *s, uint8_t options)
{
	call(s, CALL_CONNECT, 0);
	segment(s, SEG_SYN_ACK, 1, 0, options);
}

static void talk(struct seed *s)
{
	call(s, CALL_SEND, 5000);
	segment(s, SEG_ACK, 1, 0, 4);
	segment(s, SEG_PSH, 1, 1000, 4);
	call(s, CALL_RECV, 300);
	call(s, CALL_RECV, 3000);
	advance(s, 3, 1);
}

/* UDP sockets: one that is open to all, one connected, one of IPv6; datagrams each way, errors, and the end. */
static void datagrams(struct seed *s)
{
	for (uint8_t which = 0; which < 3; which++)
		PUT(s, 250, which, 0, which == 1);
	for (uint8_t which = 0; which < 3; which++) {
		PUT(s, 250, (uint8_t)(0x80 + (which + 1) % 3), 1, 44); /* the number modulo 3 is the socket */
		PUT(s, 245, (uint8_t)(which == 2 ? 0x49 : 0x48), 2, 0);
		if (which == 2)
			PUT(s, 0);
		PUT(s, 250, (uint8_t)(0x60 + which), 3, 0);
		PUT(s, 250, (uint8_t)(0x40 + (which + 2) % 3), 0, 200);
		PUT(s, 168, which == 2 ? 0x46 : 0x40, 60, 0, 1, 3, 0, 0); /* ICMP */
	}
}

static void part(struct seed *s, int peer_first)
{
	if (peer_first)
		segment(s, SEG_FIN, 1, 0, 4);
	call(s, CALL_SHUTDOWN, 1);
	segment(s, SEG_ACK, 1, 0, 4);
	if (!peer_first)
		segment(s, SEG_FIN, 1, 0, 4);
	call(s, CALL_CLOSE, 0);
	advance(s, 6, 2);
}

static struct seed engine_seed(int n)
{
	struct seed s = {.len = 0};

	slot = n & 16 ? 6 : 0;
	n &= 15;
	if (slot)
		datagrams(&s);
	(n & 1) ? active_open(&s, n & 4 ? 0 : 4) : passive_open(&s, n & 4 ? 0 : 4);
	if (n >= 8) { /* loss: time passes, SACK comes */
		call(&s, CALL_SEND, 20000);
		segment(&s, SEG_ACK, 1, 0, 2);
		segment(&s, SEG_ACK, 1, 0, 2);
		advance(&s, 4, 2);
		advance(&s, 5, 3);
	}
	talk(&s);
	if (n == 12) { /* a SYN flood, and one cookie comes back */
		PUT(&s, 172, 30);
		for (int i = 0; i < 30; i++)
			PUT(&s, 0);
		segment(&s, SEG_ACK, 0, 0, 4);
	}
	if (n == 15)
		segment(&s, SEG_RST, 1, 0, 4);
	part(&s, n & 2);
	return s;
}

/* --- fuzz_wire --- */

static void wire_segment(struct seed *s, uint8_t sock, uint16_t len, uint8_t parts)
{
	PUT(s, 3, sock, 7, parts, 1, 0);
	if (sock) /* not the listener: the length follows */
		PUT(s, (uint8_t)(len >> 8), (uint8_t)len);
}

static struct seed wire_seed(int n)
{
	struct seed s = {.len = 0};

	wire_segment(&s, 0, 0, (uint8_t)(n & 1));
	wire_segment(&s, 1, 0, 0);
	PUT(&s, 6, 0, 0, 0, 0);  /* accept */
	PUT(&s, 6, 20, 0, 2, 1); /* send */
	wire_segment(&s, 1, 900, (uint8_t)(n & 3));
	PUT(&s, 6, 20, 0, 5, 1); /* receive */
	if (n & 4)
		PUT(&s, 1, 3, 64, 0, 200, 1, 0);
	if (n & 8)
		PUT(&s, 0, 0, 0, 32, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8);
	PUT(&s, 5, 1, 0);
	PUT(&s, 6, 0, 0, 0x87, 1); /* close */
	return s;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	for (int n = 0; n < 32; n++) {
		struct seed s = strcmp(argv[1], "fuzz_wire") ? engine_seed(n) : wire_seed(n);
		char path[4096];
		FILE *f;

		snprintf(path, sizeof(path), "%s/seed%02d", argv[2], n);
		f = fopen(path, "wb");
		if (!f || fwrite(s.bytes, 1, s.len, f) != s.len || fclose(f)) {
			perror(path);
			return 1;
		}
	}
	return 0;
}
