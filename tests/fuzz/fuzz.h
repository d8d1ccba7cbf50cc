/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the fuzz targets share: the input as a stream of bytes, a stack in fresh memory, frames made by hand, and the
 * invariants of a stack that no input may break (a violation aborts).
 */
#ifndef VD_TEST_FUZZ_H
#define VD_TEST_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/tcp_internal.h"

struct input {
	const uint8_t *at, *end;
};

static inline bool in_more(const struct input *in)
{
	return in->at < in->end;
}

static inline uint8_t in_u8(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static inline uint16_t in_u16(struct input *in)
{
	uint16_t hi = in_u8(in);

	return (uint16_t)(hi << 8 | in_u8(in));
}

static inline uint32_t in_u32(struct input *in)
{
	uint32_t hi = in_u16(in);

	return hi << 16 | in_u16(in);
}

#define fuzz_require(condition)                                                                                        \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			fuzz_failed(#condition, __FILE__, __LINE__);                                                   \
	} while (0)
void fuzz_failed(const char *condition, const char *file, int line) __attribute__((noreturn));

#define FUZZ_SOCKS 48u

/* A stack of FUZZ_SOCKS sockets at the same place each time, all zero but for its header. */
struct engine *fuzz_stack(uint64_t now_us);
/* Take in what is there, fire what is due. An engine that does not come to rest fails. */
void fuzz_settle(struct engine *e, uint64_t now_us);
/* Invariants of every socket, and (deep) the audit of the whole stack. */
void fuzz_check(struct engine *e, uint64_t now_us, bool deep);
/* Collect the news as a process does. */
void fuzz_news(struct engine *e);

/* An endpoint's address: 10.0.0.last, fd00::last. */
void fuzz_address(uint8_t addr[16], uint8_t last);
void fuzz_address6(uint8_t addr[16], uint8_t last);

/* A TCP segment, or a UDP datagram, to be made. Ports and numbers in host order. */
struct fuzz_segment {
	bool v6, udp;
	uint8_t src, dst; /* last byte of the addresses */
	uint8_t tos;
	uint8_t ext[24], ext_len; /* IPv6: extension headers, a multiple of 8; the first byte of each names the next */
	uint8_t ext_first;        /* what the first is */
	int16_t lie;              /* UDP: how far the length in the header is off */
	uint16_t sport, dport, wnd, urg;
	uint32_t seq, ack, len;
	uint8_t flags, fill;
	uint8_t opt[40];
	uint8_t opt_len; /* multiple of 4 */
	bool bad_sum;
};
#define FUZZ_FRAME_MAX 2048u
/* Build the frame; its length. */
uint32_t fuzz_frame(uint8_t *to, const struct fuzz_segment *g);

#endif
