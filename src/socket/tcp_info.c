/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TCP_INFO (linux/tcp.h). Linux counts in segments where the engine counts in bytes; a rest counts as a segment.
 * The struct has grown over the years: what the header of the build machine does not have yet is appended here, so that
 * programs built with a newer one find it. What the engine does not measure (pacing, delivery rate, ECN) is 0.
 */
#include <stddef.h>
#include <string.h>

/* Linux's header names one congestion state as our engine does. */
#define TCP_CA_CWR LINUX_TCP_CA_CWR
#include <linux/tcp.h>
#undef TCP_CA_CWR

#include "socket/sockopt.h"

#define KNOWN (offsetof(struct tcp_info, tcpi_snd_wnd) + sizeof(uint32_t))
#define INFINITE_SSTHRESH 0x7fffffffu

/* What follows tcpi_snd_wnd. */
struct tail {
	uint32_t rcv_wnd, rehash;
	uint16_t total_rto, total_rto_recoveries;
	uint32_t total_rto_time;
	uint32_t received_ce, ecn_bytes[6], ecn_mode;
};

_Static_assert(KNOWN == 232 && KNOWN + sizeof(struct tail) == TCP_INFO_BYTES, "tcp_info is Linux's");

static uint32_t segments(uint32_t bytes, uint32_t mss)
{
	return (uint32_t)(((uint64_t)bytes + mss - 1) / mss);
}

static uint32_t ms_since(uint64_t now_us, uint64_t us)
{
	return us && us < now_us ? (uint32_t)((now_us - us) / 1000) : 0;
}

static uint64_t chrono_us(const struct tcb *t, enum tcp_chrono kind, uint64_t now_us)
{
	return t->chrono_us[kind - 1] +
	       (t->chrono == kind && now_us > t->chrono_since_us ? now_us - t->chrono_since_us : 0);
}

static void fill_sender(const struct tcb *t, const struct tcp_stats *st, struct tcp_info *i, uint64_t now_us)
{
	uint32_t mss = t->mss ? t->mss : 1;

	i->tcpi_ca_state = t->ca_state;
	i->tcpi_retransmits = t->rtos;
	i->tcpi_probes = t->probes;
	i->tcpi_backoff = t->backoff;
	i->tcpi_rto = st->rto_us;
	i->tcpi_snd_mss = t->mss;
	i->tcpi_unacked = st->unacked;
	i->tcpi_sacked = st->sacked;
	i->tcpi_lost = segments(t->lost, mss);
	i->tcpi_retrans = segments(t->retrans, mss);
	i->tcpi_pmtu = t->pmtu;
	i->tcpi_rtt = t->srtt_us;
	i->tcpi_rttvar = t->rttvar_us;
	i->tcpi_snd_ssthresh = t->ssthresh >= INFINITE_SSTHRESH ? INFINITE_SSTHRESH : t->ssthresh / mss;
	i->tcpi_snd_cwnd = t->cwnd / mss;
	i->tcpi_reordering = t->reordering > 3 ? t->reordering : 3;
	i->tcpi_reord_seen = t->reord_seen;
	i->tcpi_total_retrans = t->retrans_total;
	i->tcpi_max_pacing_rate = UINT64_MAX;
	i->tcpi_bytes_acked = t->bytes_acked;
	i->tcpi_notsent_bytes = (int32_t)(t->snd_end - t->snd_nxt) > 0 ? t->snd_end - t->snd_nxt : 0;
	i->tcpi_min_rtt = t->min_rtt_us ? t->min_rtt_us : UINT32_MAX;
	i->tcpi_rwnd_limited = chrono_us(t, TCP_CHRONO_RWND, now_us);
	i->tcpi_sndbuf_limited = chrono_us(t, TCP_CHRONO_SNDBUF, now_us);
	i->tcpi_busy_time = chrono_us(t, TCP_CHRONO_BUSY, now_us) + i->tcpi_rwnd_limited + i->tcpi_sndbuf_limited;
	i->tcpi_delivered = (uint32_t)(t->delivered / mss);
	i->tcpi_bytes_sent = t->bytes_sent;
	i->tcpi_bytes_retrans = t->bytes_retrans;
	i->tcpi_snd_wnd = t->snd_wnd;
}

static void fill_receiver(const struct engine *e, const struct sock *k, struct tcp_info *i, uint64_t now_us)
{
	const struct tcb *t = &k->tcp;
	uint64_t data_us = t->last_data_us ? t->last_data_us : t->rcvq_time_us; /* else: when it opened */

	i->tcpi_ato = e->s->cfg.defaults.delack_ms * 1000;
	i->tcpi_rcv_mss = t->rcv_mss;
	i->tcpi_last_data_sent = ms_since(now_us, t->last_snd_us);
	i->tcpi_last_data_recv = ms_since(now_us, data_us);
	i->tcpi_last_ack_recv = ms_since(now_us, t->last_rcv_us);
	i->tcpi_rcv_ssthresh = t->rcv_wnd;
	i->tcpi_advmss = t->adv_mss;
	i->tcpi_rcv_rtt = t->rcv_rtt_us;
	i->tcpi_rcv_space = t->rcvq_space;
	i->tcpi_bytes_received = t->bytes_received;
}

void sockopt_tcp_info(const struct engine *e, const struct sock *k, uint8_t out[TCP_INFO_BYTES], uint64_t now_us)
{
	const struct tcb *t = &k->tcp;
	struct tail tail = {.rcv_wnd = t->rcv_wnd};
	struct tcp_info i = {.tcpi_state = t->state};
	struct tcp_stats st;

	tcp_get_stats(e, k, &st);
	i.tcpi_options =
	    (uint8_t)((t->flags & TCPF_TS ? TCPI_OPT_TIMESTAMPS : 0) | (t->flags & TCPF_SACK ? TCPI_OPT_SACK : 0) |
		      (t->flags & TCPF_WSCALE ? TCPI_OPT_WSCALE : 0) | (t->flags & TCPF_ECN ? TCPI_OPT_ECN : 0));
	i.tcpi_snd_wscale = t->snd_wscale & 15;
	i.tcpi_rcv_wscale = t->rcv_wscale & 15;
	i.tcpi_segs_out = (uint32_t)t->segs_out;
	i.tcpi_segs_in = (uint32_t)t->segs_in;
	fill_sender(t, &st, &i, now_us);
	fill_receiver(e, k, &i, now_us);
	memcpy(out, &i, KNOWN);
	memcpy(out + KNOWN, &tail, sizeof(tail));
}
