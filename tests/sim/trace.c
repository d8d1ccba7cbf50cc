/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Segments as text, and a monitor that looks at the wire alone: nobody sends beyond the window that the other end
 * offered, acknowledges what was never sent, takes back window that it offered (RFC 9293, 3.8.6), or sends a frame
 * longer than the MTU; ECT is on new data only, and ECE follows a mark (RFC 3168). It looks at what the ends send,
 * before the link does anything to it.
 */
#include <string.h>

#include "engine/tcp_internal.h"
#include "world.h"

/* One direction of a connection, as seen on the wire. */
struct half {
	bool syn;          /* its SYN was seen */
	uint8_t wscale;    /* 0xff: not offered */
	uint32_t isn, end; /* end: highest sequence number sent, plus 1 */
	uint32_t edge;     /* right edge of the window it offered */
	bool edge_known;
	bool ecn;    /* a SYN of it asked for ECN, or said yes to it */
	bool marked; /* something of it arrived with CE */
};

struct monitor {
	struct half half[CONNS_MAX][2]; /* [connection][0: client's] */
};

static struct monitor the_monitor;

struct view {
	const uint8_t *tcp;
	uint32_t hdr, len; /* TCP header, payload */
	uint16_t sport, dport, wnd;
	uint32_t seq, ack;
	uint8_t flags, tos;
};

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) << 16 | get16(p + 2);
}

void trace_reset(struct world *w)
{
	memset(&the_monitor, 0, sizeof(the_monitor));
	w->monitor = &the_monitor;
}

static bool parse(const uint8_t *f, uint32_t len, struct view *v)
{
	uint32_t ip = 14, l4, end;

	if (len < 14 + 40)
		return false;
	if (f[ip] >> 4 == 4) {
		l4 = ip + (f[ip] & 15) * 4u;
		end = ip + get16(f + ip + 2);
		if (f[ip + 9] != 6)
			return false;
		v->tos = f[ip + 1];
	} else {
		v->tos = (uint8_t)(get16(f + ip) >> 4);
		l4 = ip + 40;
		end = l4 + get16(f + ip + 4);
		if (f[ip + 6] != 6)
			return false;
	}
	if (end > len || l4 + 20 > end)
		return false;
	v->tcp = f + l4;
	v->hdr = (uint32_t)(v->tcp[12] >> 4) * 4;
	if (v->hdr < 20 || l4 + v->hdr > end)
		return false;
	v->len = end - l4 - v->hdr;
	v->sport = (uint16_t)get16(v->tcp);
	v->dport = (uint16_t)get16(v->tcp + 2);
	v->seq = get32(v->tcp + 4);
	v->ack = get32(v->tcp + 8);
	v->flags = v->tcp[13];
	v->wnd = (uint16_t)get16(v->tcp + 14);
	return true;
}

static void print_options(char *to, size_t room, const struct view *v, uint32_t ack_base)
{
	struct tcp_opts o = {0};
	size_t n = 0;

	tcp_parse_options(v->tcp + 20, v->hdr - 20, &o);
	to[0] = 0;
	if (o.has_mss)
		n += (size_t)snprintf(to + n, room - n, " mss %u", o.mss);
	if (o.has_wscale)
		n += (size_t)snprintf(to + n, room - n, " wscale %u", o.wscale);
	if (o.sack_ok)
		n += (size_t)snprintf(to + n, room - n, " sackOK");
	if (o.has_ts)
		n += (size_t)snprintf(to + n, room - n, " ts %u/%u", o.ts_val, o.ts_ecr);
	for (uint32_t i = 0; i < o.sacks; i++)
		n += (size_t)snprintf(to + n, room - n, " sack %u-%u", o.sack[i].start - ack_base,
				      o.sack[i].end - ack_base);
}

static void print(struct world *w, uint64_t now_us, int from, const struct view *v, uint32_t number,
		  const struct half *us, const struct half *them, enum sim_fate fate)
{
	static const char *const fates[] = {"", " LOST", " QUEUE FULL", " TOO LONG", " arrives", " NO RX BUFFER"};
	char options[256];

	print_options(options, sizeof(options), v, them->isn);
	printf("%10.3f ms  %s host %d #%u %s%s%s%s%s%s%s%s seq %u len %u ack %u win %u%s%s\n", (double)now_us / 1000,
	       fate == SIM_DELIVERED || fate == SIM_NO_BUFFER ? "    <-" : "->", from, number,
	       v->flags & TH_SYN ? "S" : "", v->flags & TH_FIN ? "F" : "", v->flags & TH_RST ? "R" : "",
	       v->flags & TH_PSH ? "P" : "", v->flags & TH_ACK ? "A" : "", v->flags & TH_URG ? "U" : "",
	       v->flags & TH_ECE ? "E" : "", v->flags & TH_CWR ? "W" : "", v->seq - us->isn, v->len,
	       v->flags & TH_ACK ? v->ack - them->isn : 0, v->wnd, options, fates[fate]);
	(void)w;
}

static void watch_syn(struct half *us, struct half *them, const struct view *v)
{
	struct tcp_opts o = {0};

	tcp_parse_options(v->tcp + 20, v->hdr - 20, &o);
	if (!us->syn || us->isn != v->seq)
		*us = (struct half){.syn = true, .isn = v->seq, .end = v->seq + 1};
	us->wscale = o.has_wscale ? o.wscale : 0xff;
	us->ecn |= (v->flags & (TH_ECE | TH_CWR)) == (v->flags & TH_ACK ? TH_ECE : TH_ECE | TH_CWR);
	(void)them;
}

static uint32_t scale_of(const struct half *us, const struct half *them)
{
	return us->wscale == 0xff || them->wscale == 0xff || !them->syn ? 0 : us->wscale;
}

static void watch_window(struct world *w, uint32_t number, struct half *us, struct half *them, const struct view *v)
{
	uint32_t scale = v->flags & TH_SYN ? 0 : scale_of(us, them);
	uint32_t edge = v->ack + ((uint32_t)v->wnd << scale);

	if (them->syn && seq_gt(v->ack, them->end))
		world_fail(w, "#%u acknowledges %u, beyond what was sent (%u)", number, v->ack - them->isn,
			   them->end - them->isn);
	if (us->edge_known && !(v->flags & TH_SYN) && seq_lt(edge + (1u << scale), us->edge))
		world_fail(w, "#%u takes back window: edge %u after %u", number, edge - them->isn,
			   us->edge - them->isn);
	if (!us->edge_known || seq_gt(edge, us->edge))
		us->edge = edge;
	us->edge_known = true;
}

static void watch_ecn(struct world *w, uint32_t number, const struct half *us, const struct half *them,
		      const struct view *v)
{
	bool fresh = v->len && seq_gt(v->seq + v->len, us->end), ect = v->tos & TOS_ECN;

	if ((v->tos & TOS_ECN) == TOS_CE || (v->tos & TOS_ECN) == 1 || (ect && (!fresh || v->flags & TH_SYN)))
		world_fail(w, "#%u sends a segment of %u bytes with ECN field %u", number, v->len, v->tos & TOS_ECN);
	if (v->flags & TH_SYN)
		return;
	if (ect && !(us->ecn && them->ecn))
		world_fail(w, "#%u sends ECT without agreement", number);
	if (v->flags & TH_CWR && !ect)
		world_fail(w, "#%u sends CWR not on new data", number);
	if (v->flags & TH_ECE && !them->marked)
		world_fail(w, "#%u sends ECE, and nothing was marked", number);
}

static void watch(struct world *w, uint32_t number, struct half *us, struct half *them, const struct view *v)
{
	uint32_t end = v->seq + v->len + !!(v->flags & TH_SYN) + !!(v->flags & TH_FIN);

	if (v->flags & TH_RST)
		return;
	if (v->flags & TH_SYN)
		watch_syn(us, them, v);
	watch_ecn(w, number, us, them, v);
	if (v->flags & TH_ACK)
		watch_window(w, number, us, them, v);
	if (v->len && them->edge_known && seq_gt(v->seq + v->len, them->edge + 1))
		world_fail(w, "#%u sends up to %u, the window ends at %u", number, v->seq + v->len - us->isn,
			   them->edge - us->isn);
	if (seq_gt(end, us->end))
		us->end = end;
}

void trace_frame(void *world, uint64_t now_us, int from, const uint8_t *frame, uint32_t len, enum sim_fate fate)
{
	struct world *w = world;
	struct view v;

	if (fate == SIM_TOO_LONG)
		world_fail(w, "host %d sends a frame of %u bytes, the MTU is %u", from, len, w->cfg.mtu);
	if (!parse(frame, len, &v))
		return;

	struct conn *c = app_of_ports(w, v.sport, v.dport);

	if (!c)
		return;

	bool client = v.sport == c->client_port;
	uint32_t number = (uint32_t)(c - w->conn);

	struct half *us = &w->monitor->half[number][!client], *them = &w->monitor->half[number][client];

	/* The end of an earlier connection may still be heard between the same ports. */
	if (!c->after && (fate == SIM_SENT || fate == SIM_LOST || fate == SIM_QUEUE_FULL))
		watch(w, number, us, them, &v);
	if (fate == SIM_DELIVERED && (v.tos & TOS_ECN) == TOS_CE)
		us->marked = true;
	if (w->verbose)
		print(w, now_us, from, &v, number, us, them, fate);
}
