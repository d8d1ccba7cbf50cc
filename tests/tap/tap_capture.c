/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The capture: every frame that the link delivered, in pcap's file format, in a temporary file without a name. It is
 * read back through libpcap, with libpcap's filters choosing the frames, so that what was negotiated is judged by
 * somebody else's code than ours.
 */
#include "tap_world.h"

#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct capture {
	FILE *file;
};

struct file_header {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t zone, sigfigs, snaplen, network;
};

struct frame_header {
	uint32_t seconds, microseconds, captured, length;
};

struct capture *capture_new(void)
{
	struct file_header h = {.magic = 0xa1b2c3d4, .major = 2, .minor = 4, .snaplen = 65535, .network = DLT_EN10MB};
	struct capture *c = calloc(1, sizeof(*c));

	if (!c || !(c->file = tmpfile()) || fwrite(&h, sizeof(h), 1, c->file) != 1)
		abort();
	return c;
}

void capture_free(struct capture *c)
{
	fclose(c->file);
	free(c);
}

void capture_frame(struct capture *c, uint64_t now_us, const uint8_t *frame, uint32_t len)
{
	struct frame_header h = {(uint32_t)(now_us / 1000000), (uint32_t)(now_us % 1000000), len, len};

	if (fwrite(&h, sizeof(h), 1, c->file) != 1 || fwrite(frame, len, 1, c->file) != 1)
		abort();
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Notes the options of one segment; returns whether it has a timestamp. */
static bool look_at_options(const uint8_t *tcp, bool syn, struct capture_facts *out)
{
	const uint8_t *p = tcp + 20, *end = tcp + (tcp[12] >> 4) * 4;
	bool timestamp = false;

	while (p < end && *p != 0) {
		if (*p == 1) {
			p++;
			continue;
		}
		if (p + 1 >= end || p[1] < 2 || p + p[1] > end)
			break;
		out->mss |= syn && *p == 2;
		out->sack_permitted |= syn && *p == 4;
		if (syn && *p == 3) {
			out->wscale = true;
			out->shift = p[2];
		}
		out->sack_blocks += *p == 5;
		timestamp |= *p == 8;
		p += p[1];
	}
	return timestamp;
}

static void look_at_segment(const uint8_t *tcp, uint32_t payload, struct capture_facts *out)
{
	uint8_t flags = tcp[13];
	bool timestamp = look_at_options(tcp, flags & TCP_SYN, out);

	if (flags & TCP_SYN) {
		out->syns++;
		out->timestamps |= timestamp;
		return;
	}
	out->resets += !!(flags & TCP_RST);
	out->fins += !!(flags & TCP_FIN);
	out->data += payload > 0;
	if (!(flags & TCP_RST)) {
		uint64_t window = (uint64_t)(tcp[14] << 8 | tcp[15]) << out->shift;

		out->without_timestamp += !timestamp;
		if (window > out->largest_window)
			out->largest_window = window;
	}
}

/* The TCP header of a frame and its payload's length; NULL: something else. */
static const uint8_t *tcp_of(const struct pcap_pkthdr *h, const uint8_t *frame, uint32_t *payload)
{
	uint32_t ip = 14, tcp, total;

	if (h->caplen < 54)
		return NULL;
	if (frame[ip] >> 4 == 4) {
		tcp = ip + (frame[ip] & 15u) * 4;
		total = ip + ((uint32_t)frame[ip + 2] << 8 | frame[ip + 3]);
	} else {
		tcp = ip + 40;
		total = tcp + ((uint32_t)frame[ip + 4] << 8 | frame[ip + 5]);
	}
	if (h->caplen < tcp + 20 || total > h->caplen || tcp + (frame[tcp + 12] >> 4) * 4u > total)
		return NULL;
	*payload = total - tcp - (frame[tcp + 12] >> 4) * 4u;
	return frame + tcp;
}

/* Bytes under way: beyond the last acknowledgement that the other direction carried before. */
static void note_flight(const uint8_t *tcp, uint32_t payload, bool ours, uint32_t *acked, bool *have_ack,
			struct capture_facts *out)
{
	if (!ours && tcp[13] & TCP_ACK) {
		*acked = be32(tcp + 8);
		*have_ack = true;
	} else if (ours && *have_ack && payload) {
		uint32_t flight = be32(tcp + 4) + payload - *acked;

		if (flight < 1u << 30 && flight > out->largest_flight)
			out->largest_flight = flight;
	}
}

static bool set_filter(pcap_t *p, uint16_t port)
{
	char text[64];
	struct bpf_program program;

	snprintf(text, sizeof(text), "tcp port %u", port);
	if (pcap_compile(p, &program, text, 1, PCAP_NETMASK_UNKNOWN) < 0)
		return false;
	int r = pcap_setfilter(p, &program);

	pcap_freecode(&program);
	return r == 0;
}

bool capture_look(struct capture *c, bool from_engine, uint16_t port, struct capture_facts *out)
{
	char error[PCAP_ERRBUF_SIZE];
	struct pcap_pkthdr *h;
	const uint8_t *frame;
	uint32_t payload = 0, acked = 0;
	bool have_ack = false;

	memset(out, 0, sizeof(*out));
	fflush(c->file);
	int fd = dup(fileno(c->file));
	FILE *copy = fd < 0 || lseek(fd, 0, SEEK_SET) != 0 ? NULL : fdopen(fd, "rb");
	pcap_t *p = copy ? pcap_fopen_offline(copy, error) : NULL;

	if (!p || !set_filter(p, port))
		return false;
	while (pcap_next_ex(p, &h, &frame) == 1) {
		const uint8_t *tcp = tcp_of(h, frame, &payload);
		bool ours = (frame[11] == 2) == from_engine; /* source MAC: 02:..:02 is the engine's */

		if (!tcp)
			continue;
		note_flight(tcp, payload, ours, &acked, &have_ack, out);
		if (ours)
			look_at_segment(tcp, payload, out);
	}
	pcap_close(p);
	fseek(c->file, 0, SEEK_END);
	return true;
}
