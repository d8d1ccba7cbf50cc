/* SPDX-License-Identifier: BSD-2-Clause */
/* TCP segments as scripts write them, and as bytes: IPv4 without Ethernet header. */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_BLOCKS 4

struct wire_segment {
	uint16_t sport, dport;
	uint32_t seq, ack, len; /* len: of the payload */
	uint32_t win, urg;
	char flags[9];         /* letters of FSRPAUEC, in that order */
	bool has_ack, has_win; /* mentioned by a script */
	bool bad_sum;
	int mss, wscale; /* -1: no such option */
	bool sack_ok, has_ts;
	uint32_t ts_val, ts_ecr;
	int blocks;
	uint32_t block[WIRE_BLOCKS][2];
};

/* The packet into `to` (at least 128 bytes more than the payload): its length. The payload is bytes that count up. */
size_t wire_build(const struct wire_segment *s, uint32_t src, uint32_t dst, uint8_t *to);
/* False: not a TCP segment. */
bool wire_parse(const uint8_t *p, size_t n, struct wire_segment *s);
/* An ICMP error about the packet `about`. */
size_t wire_icmp(uint32_t src, uint32_t dst, int type, int code, uint32_t mtu, const uint8_t *about, size_t n,
		 uint8_t *to);

#endif
