/* SPDX-License-Identifier: BSD-2-Clause */
/* See pcapng.h. A block is put together in memory, because its length stands before its options. */
#include "dump/pcapng.h"

#include <string.h>

#define BLOCK_SECTION 0x0a0d0d0au
#define BLOCK_INTERFACE 1u
#define BLOCK_STATISTICS 5u
#define BLOCK_PACKET 6u
#define BYTE_ORDER_MAGIC 0x1a2b3c4du
#define LINKTYPE_ETHERNET 1u
#define OPTIONS_MAX 2048u

enum { OPT_END, OPT_COMMENT, OPT_HARDWARE, OPT_OS, OPT_PROGRAM };
enum { OPT_IF_NAME = 2 };
enum { OPT_PACKET_FLAGS = 2, FLAG_RECEIVED = 1, FLAG_SENT = 2 };
enum { OPT_RECEIVED = 4, OPT_DROPPED = 5 };

struct options {
	uint8_t bytes[OPTIONS_MAX];
	uint32_t len;
};

static uint32_t padded(uint32_t len)
{
	return (len + 3) & ~3u;
}

/* One that does not fit is left out. */
static void add(struct options *o, uint16_t code, const void *value, size_t len)
{
	uint16_t head[2] = {code, (uint16_t)len};

	if (len > 1024 || o->len + 8 + padded((uint32_t)len) > OPTIONS_MAX)
		return;
	memcpy(o->bytes + o->len, head, sizeof(head));
	memset(o->bytes + o->len + sizeof(head), 0, padded((uint32_t)len));
	memcpy(o->bytes + o->len + sizeof(head), value, len);
	o->len += (uint32_t)sizeof(head) + padded((uint32_t)len);
}

static void add_text(struct options *o, uint16_t code, const char *text)
{
	if (text && *text)
		add(o, code, text, strlen(text));
}

static void end(struct options *o)
{
	memset(o->bytes + o->len, 0, 4);
	o->len += 4;
}

static bool put(FILE *out, const void *bytes, size_t len)
{
	return !len || fwrite(bytes, len, 1, out) == 1;
}

/* A block: its fixed part, data (padded), options. */
static bool block(FILE *out, uint32_t type, const void *fixed, uint32_t fixed_len, const void *data, uint32_t data_len,
		  struct options *o)
{
	static const uint8_t zero[4];
	uint32_t total = 12 + fixed_len + padded(data_len), head[2];

	if (o->len)
		end(o);
	total += o->len;
	head[0] = type;
	head[1] = total;
	return put(out, head, sizeof(head)) && put(out, fixed, fixed_len) && put(out, data, data_len) &&
	       put(out, zero, padded(data_len) - data_len) && put(out, o->bytes, o->len) &&
	       put(out, &total, sizeof(total));
}

bool pcapng_section(FILE *out, const char *hardware, const char *os, const char *program, const char *comment)
{
	struct {
		uint32_t magic;
		uint16_t major, minor;
		int64_t length;
	} fixed = {BYTE_ORDER_MAGIC, 1, 0, -1};
	struct options o = {.len = 0};

	add_text(&o, OPT_COMMENT, comment);
	add_text(&o, OPT_HARDWARE, hardware);
	add_text(&o, OPT_OS, os);
	add_text(&o, OPT_PROGRAM, program);
	return block(out, BLOCK_SECTION, &fixed, sizeof(fixed), NULL, 0, &o);
}

bool pcapng_interface(FILE *out, uint32_t snap, const char *name, const char *comment)
{
	struct {
		uint16_t link, reserved;
		uint32_t snap;
	} fixed = {LINKTYPE_ETHERNET, 0, snap};
	struct options o = {.len = 0};

	add_text(&o, OPT_COMMENT, comment);
	add_text(&o, OPT_IF_NAME, name);
	return block(out, BLOCK_INTERFACE, &fixed, sizeof(fixed), NULL, 0, &o);
}

bool pcapng_packet(FILE *out, uint32_t interface, uint64_t us, const uint8_t *bytes, uint32_t caplen, uint32_t len,
		   bool sent, const char *comment)
{
	uint32_t fixed[5] = {interface, (uint32_t)(us >> 32), (uint32_t)us, caplen, len};
	uint32_t flags = sent ? FLAG_SENT : FLAG_RECEIVED;
	struct options o = {.len = 0};

	add_text(&o, OPT_COMMENT, comment);
	add(&o, OPT_PACKET_FLAGS, &flags, sizeof(flags));
	return block(out, BLOCK_PACKET, fixed, sizeof(fixed), bytes, caplen, &o);
}

bool pcapng_statistics(FILE *out, uint32_t interface, uint64_t us, uint64_t received, uint64_t dropped)
{
	uint32_t fixed[3] = {interface, (uint32_t)(us >> 32), (uint32_t)us};
	struct options o = {.len = 0};

	add(&o, OPT_RECEIVED, &received, sizeof(received));
	add(&o, OPT_DROPPED, &dropped, sizeof(dropped));
	return block(out, BLOCK_STATISTICS, fixed, sizeof(fixed), NULL, 0, &o);
}
