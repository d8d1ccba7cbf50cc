/* SPDX-License-Identifier: BSD-2-Clause */
/* See wire.h. RFC 9293 3.1, RFC 7323, RFC 2018; apart from the engine's own code, so that each checks the other. */
#include "wire.h"

#include <string.h>

static const char letters[] = "FSRPAUEC";

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) << 16 | get16(p + 2);
}

static uint32_t sum(const uint8_t *p, size_t n, uint32_t s)
{
	for (size_t i = 0; i + 1 < n; i += 2)
		s += get16(p + i);
	if (n & 1)
		s += (uint32_t)p[n - 1] << 8;
	return s;
}

static uint16_t fold(uint32_t s)
{
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)~s;
}

static size_t put_options(const struct wire_segment *s, uint8_t *o)
{
	size_t n = 0;

	if (s->mss >= 0) {
		o[n] = 2, o[n + 1] = 4;
		put16(o + n + 2, (uint32_t)s->mss);
		n += 4;
	}
	if (s->sack_ok) {
		o[n++] = 4;
		o[n++] = 2;
	}
	if (s->wscale >= 0) {
		o[n++] = 3;
		o[n++] = 3;
		o[n++] = (uint8_t)s->wscale;
	}
	if (s->has_ts) {
		o[n] = 8, o[n + 1] = 10;
		put32(o + n + 2, s->ts_val);
		put32(o + n + 6, s->ts_ecr);
		n += 10;
	}
	if (s->blocks) {
		o[n++] = 5;
		o[n++] = (uint8_t)(2 + 8 * s->blocks);
		for (int i = 0; i < s->blocks; i++, n += 8) {
			put32(o + n, s->block[i][0]);
			put32(o + n + 4, s->block[i][1]);
		}
	}
	while (n % 4)
		o[n++] = 1;
	return n;
}

static void put_ip(uint8_t *p, size_t total, int proto, uint32_t src, uint32_t dst)
{
	memset(p, 0, 20);
	p[0] = 0x45;
	put16(p + 2, (uint32_t)total);
	p[6] = 0x40;
	p[8] = 64;
	p[9] = (uint8_t)proto;
	put32(p + 12, src);
	put32(p + 16, dst);
	put16(p + 10, fold(sum(p, 20, 0)));
}

size_t wire_build(const struct wire_segment *s, uint32_t src, uint32_t dst, uint8_t *to)
{
	uint8_t *t = to + 20;
	size_t opts, n;

	memset(t, 0, 20);
	put16(t, s->sport);
	put16(t + 2, s->dport);
	put32(t + 4, s->seq);
	put32(t + 8, s->ack);
	for (int i = 0; i < 8; i++)
		if (strchr(s->flags, letters[i]))
			t[13] |= (uint8_t)(1 << i);
	put16(t + 14, s->win);
	put16(t + 18, s->urg);
	opts = put_options(s, t + 20);
	t[12] = (uint8_t)((20 + opts) / 4 << 4);
	for (uint32_t i = 0; i < s->len; i++)
		t[20 + opts + i] = (uint8_t)(s->seq + i);
	n = 20 + opts + s->len;
	put_ip(to, 20 + n, 6, src, dst);
	put16(t + 16, fold(sum(t, n, sum(to + 12, 8, 6 + (uint32_t)n))));
	t[17] ^= s->bad_sum;
	return 20 + n;
}

static void parse_options(const uint8_t *o, size_t n, struct wire_segment *s)
{
	for (size_t i = 0; i < n && o[i];) {
		size_t len = o[i] == 1 ? 1 : i + 1 < n ? o[i + 1] : 0;

		if (!len || (o[i] != 1 && len < 2) || i + len > n)
			return;
		if (o[i] == 2 && len == 4)
			s->mss = (int)get16(o + i + 2);
		else if (o[i] == 3 && len == 3)
			s->wscale = o[i + 2];
		else if (o[i] == 4 && len == 2)
			s->sack_ok = true;
		else if (o[i] == 8 && len == 10)
			s->has_ts = true, s->ts_val = get32(o + i + 2), s->ts_ecr = get32(o + i + 6);
		else if (o[i] == 5)
			for (size_t b = i + 2; b + 8 <= i + len && s->blocks < WIRE_BLOCKS; b += 8, s->blocks++)
				s->block[s->blocks][0] = get32(o + b), s->block[s->blocks][1] = get32(o + b + 4);
		i += len;
	}
}

bool wire_parse(const uint8_t *p, size_t n, struct wire_segment *s)
{
	const uint8_t *t = p + 20;
	size_t head;
	int f = 0;

	if (n < 40 || p[0] != 0x45 || p[9] != 6 || get16(p + 2) != n || fold(sum(p, 20, 0)) ||
	    fold(sum(t, n - 20, sum(p + 12, 8, 6 + (uint32_t)n - 20))))
		return false;
	head = (size_t)(t[12] >> 4) * 4;
	if (head < 20 || head > n - 20)
		return false;
	*s = (struct wire_segment){.sport = (uint16_t)get16(t),
				   .dport = (uint16_t)get16(t + 2),
				   .seq = get32(t + 4),
				   .ack = get32(t + 8),
				   .len = (uint32_t)(n - 20 - head),
				   .win = get16(t + 14),
				   .urg = get16(t + 18),
				   .mss = -1,
				   .wscale = -1};
	for (int i = 0; i < 8; i++)
		if (t[13] >> i & 1)
			s->flags[f++] = letters[i];
	parse_options(t + 20, head - 20, s);
	return true;
}

size_t wire_icmp(uint32_t src, uint32_t dst, int type, int code, uint32_t mtu, const uint8_t *about, size_t n,
		 uint8_t *to)
{
	uint8_t *c = to + 20;

	n = n < 28 ? n : 28; /* header and eight bytes, as RFC 792 asks */
	memset(c, 0, 8);
	c[0] = (uint8_t)type;
	c[1] = (uint8_t)code;
	put16(c + 6, mtu);
	memcpy(c + 8, about, n);
	put16(c + 2, fold(sum(c, 8 + n, 0)));
	put_ip(to, 28 + n, 1, src, dst);
	return 28 + n;
}
