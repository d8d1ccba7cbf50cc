/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the engine makes of socket options, see sockopt.h. Called with the stack's lock (options.c) or alone (tests).
 * Values are in Linux's units; names and structures are Linux's own.
 */
#define _GNU_SOURCE
#include "socket/sockopt.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/time.h>

/* Linux's header names one congestion state as our engine does. */
#define TCP_CA_CWR LINUX_TCP_CA_CWR
#include <linux/tcp.h>
#undef TCP_CA_CWR

#ifndef IP_PROTOCOL
#define IP_PROTOCOL 52 /* not in every libc's header */
#endif

/* --- integers --- */

static uint32_t ms_to_s_up(int v)
{
	return v < 0 ? 0 : (uint32_t)v;
}

static void set_flag(struct sock *k, uint32_t flag, bool on)
{
	k->flags = on ? k->flags | flag : k->flags & ~flag;
}

static int set_socket_int(struct engine *e, struct sock *k, int name, int v, uint64_t now_us)
{
	switch (name) {
	case SO_REUSEADDR:
		set_flag(k, SOCKF_REUSEADDR, v);
		return 0;
	case SO_REUSEPORT:
		set_flag(k, SOCKF_REUSEPORT, v);
		return 0;
	case SO_BROADCAST:
		set_flag(k, SOCKF_BROADCAST, v);
		return 0;
	case SO_OOBINLINE:
		set_flag(k, SOCKF_OOBINLINE, v);
		return 0;
	case SO_KEEPALIVE:
		if (k->proto == SOCK_TCP)
			tcp_set_keepalive(e, k, v, now_us);
		set_flag(k, SOCKF_KEEPALIVE, v);
		return 0;
	case SO_RCVLOWAT:
		k->rcvlowat = v > 0 ? (uint32_t)v : 1;
		return 0;
	case SO_RCVBUF:
	case SO_RCVBUFFORCE:
		k->rcvbuf = (uint32_t)v / 2;
		set_flag(k, SOCKF_RCVBUF_SET, true);
		return 0;
	case SO_SNDBUF:
	case SO_SNDBUFFORCE:
		k->sndbuf = (uint32_t)v; /* what is queued counts without overhead */
		set_flag(k, SOCKF_SNDBUF_SET, true);
		return 0;
	}
	return SOCKOPT_NOT_OURS;
}

static int set_tcp_int(struct engine *e, struct sock *k, int name, int v, uint64_t now_us)
{
	struct tcb *t = &k->tcp;

	switch (name) {
	case TCP_NODELAY:
		tcp_set_nodelay(e, k, v, now_us);
		return 0;
	case TCP_CORK:
		tcp_set_cork(e, k, v, now_us);
		return 0;
	case TCP_QUICKACK:
		tcp_set_quickack(e, k, v);
		return 0;
	case TCP_KEEPIDLE:
		t->keep_idle_s = (uint32_t)v;
		break;
	case TCP_INQ:
		set_flag(k, SOCKF_INQ, v);
		return 0;
	case TCP_KEEPINTVL:
		t->keep_intvl_s = (uint32_t)v;
		return 0;
	case TCP_KEEPCNT:
		t->keep_cnt = (uint32_t)v;
		return 0;
	case TCP_SYNCNT:
		t->syncnt = (uint32_t)v;
		return 0;
	case TCP_LINGER2:
		t->linger2_s = ms_to_s_up(v);
		return 0;
	case TCP_DEFER_ACCEPT:
		t->defer_accept_s = ms_to_s_up(v);
		return 0;
	case TCP_USER_TIMEOUT:
		t->user_timeout_ms = (uint32_t)v;
		return 0;
	case TCP_MAXSEG:
		t->maxseg = (uint32_t)v;
		return 0;
	case TCP_NOTSENT_LOWAT:
		t->notsent_lowat = (uint32_t)v;
		return 0;
	default:
		return SOCKOPT_NOT_OURS;
	}
	if (k->flags & SOCKF_KEEPALIVE) /* TCP_KEEPIDLE counts from now */
		tcp_set_keepalive(e, k, true, now_us);
	return 0;
}

/* What recvmsg shall tell beside the bytes. */
static uint32_t cmsg_bit(int level, int name)
{
	static const struct {
		int level, name;
		uint32_t bit;
	} table[] = {
	    {IPPROTO_IP, IP_PKTINFO, UDP_CMSG_PKTINFO},
	    {IPPROTO_IP, IP_RECVTTL, UDP_CMSG_TTL},
	    {IPPROTO_IP, IP_RECVTOS, UDP_CMSG_TOS},
	    {IPPROTO_IP, IP_RECVORIGDSTADDR, UDP_CMSG_ORIGDST},
	    {IPPROTO_IPV6, IPV6_RECVPKTINFO, UDP_CMSG_PKTINFO6},
	    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, UDP_CMSG_HOPLIMIT},
	    {IPPROTO_IPV6, IPV6_RECVTCLASS, UDP_CMSG_TCLASS},
	    {IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, UDP_CMSG_ORIGDST6},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].level == level && table[i].name == name)
			return table[i].bit;
	return 0;
}

/* Options of UDP alone: what is told with datagrams, and how those to groups go. */
static int set_udp_int(struct sock *k, int level, int name, int v)
{
	uint32_t bit = cmsg_bit(level, name);

	if (bit) {
		k->udp.cmsgs = v ? k->udp.cmsgs | bit : k->udp.cmsgs & ~bit;
		return 0;
	}
	if (level == IPPROTO_IP && name == IP_MULTICAST_TTL)
		k->udp.group_ttl = (uint16_t)(v < 0 ? 2 : v + 1);
	else if (level == IPPROTO_IPV6 && name == IPV6_MULTICAST_HOPS)
		k->udp.group_hops = (uint16_t)(v < 0 ? 2 : v + 1);
	else if (level == IPPROTO_IP && name == IP_MULTICAST_LOOP)
		k->udp.loop_off = !v;
	else if (level == IPPROTO_IPV6 && name == IPV6_MULTICAST_LOOP)
		k->udp.loop6_off = !v;
	else
		return SOCKOPT_NOT_OURS;
	return 0;
}

static int set_recverr(struct engine *e, struct sock *k, uint32_t flag, int v)
{
	set_flag(k, flag, v);
	if (!v)
		errqueue_purge(e, k);
	return 0;
}

static int set_ip_int(struct engine *e, struct sock *k, int level, int name, int v)
{
	if (level == IPPROTO_IP ? name == IP_TOS : name == IPV6_TCLASS) {
		k->tos = v < 0 ? 0 : (uint8_t)v;
		if (k->proto == SOCK_TCP)
			k->tos &= 0xfc; /* the ECN field is TCP's own */
		return 0;
	}
	if (level == IPPROTO_IP ? name == IP_TTL : name == IPV6_UNICAST_HOPS) {
		k->ttl = v < 0 ? 0 : (uint8_t)v;
		return 0;
	}
	if (level == IPPROTO_IP ? name == IP_RECVERR : name == IPV6_RECVERR)
		return set_recverr(e, k, level == IPPROTO_IP ? SOCKF_RECVERR : SOCKF_RECVERR6, v);
	if (level == IPPROTO_IP ? name == IP_MTU_DISCOVER : name == IPV6_MTU_DISCOVER) {
		k->pmtudisc = v >= IP_PMTUDISC_DONT && v <= IP_PMTUDISC_OMIT ? (uint8_t)(v + 1) : PMTU_DEFAULT;
		return 0;
	}
	if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) {
		set_flag(k, SOCKF_V6ONLY, v);
		return 0;
	}
	return k->proto == SOCK_UDP ? set_udp_int(k, level, name, v) : SOCKOPT_NOT_OURS;
}

/* --- what is not an integer --- */

/* Both forms are the same where time_t has 64 bits. */
static bool is_rcvtimeo(int name)
{
	return name == SO_RCVTIMEO_OLD || name == SO_RCVTIMEO_NEW;
}

static bool is_sndtimeo(int name)
{
	return name == SO_SNDTIMEO_OLD || name == SO_SNDTIMEO_NEW;
}

static int set_linger(struct sock *k, const void *val, socklen_t len)
{
	struct linger l;

	if (len < sizeof(l))
		return -EINVAL;
	memcpy(&l, val, sizeof(l));
	set_flag(k, SOCKF_LINGER, l.l_onoff);
	if (l.l_onoff)
		k->linger_s = (uint32_t)l.l_linger;
	return 0;
}

static int set_timeout(uint64_t *to, const void *val, socklen_t len)
{
	struct timeval tv;

	if (len < sizeof(tv))
		return -EINVAL;
	memcpy(&tv, val, sizeof(tv));
	*to = tv.tv_sec < 0 || tv.tv_sec >= INT32_MAX ? 0 : (uint64_t)tv.tv_sec * 1000000 + (uint64_t)tv.tv_usec;
	return 0;
}

static int set_congestion(struct engine *e, struct sock *k, const void *val, socklen_t len)
{
	char name[16] = {0};

	memcpy(name, val, len < sizeof(name) - 1 ? len : sizeof(name) - 1);
	return tcp_set_cc(e, k, strcmp(name, "reno") ? name : "newreno");
}

int sockopt_set(struct engine *e, struct sock *k, int level, int name, const void *val, socklen_t len, uint64_t now_us)
{
	int v = 0;

	if (level == SOL_SOCKET && name == SO_LINGER)
		return set_linger(k, val, len);
	if (level == SOL_SOCKET && is_rcvtimeo(name))
		return set_timeout(&k->rcvtimeo_us, val, len);
	if (level == SOL_SOCKET && is_sndtimeo(name))
		return set_timeout(&k->sndtimeo_us, val, len);
	if (level == IPPROTO_TCP && name == TCP_CONGESTION && k->proto == SOCK_TCP)
		return set_congestion(e, k, val, len) == 0 ? 0 : SOCKOPT_NOT_OURS;
	if (len >= sizeof(v))
		memcpy(&v, val, sizeof(v));
	else if (len >= 1 && (level == IPPROTO_IP || level == IPPROTO_IPV6))
		v = *(const uint8_t *)val;
	else
		return SOCKOPT_NOT_OURS;
	if (level == SOL_SOCKET)
		return set_socket_int(e, k, name, v, now_us);
	if (level == IPPROTO_TCP && k->proto == SOCK_TCP)
		return set_tcp_int(e, k, name, v, now_us);
	if (level == IPPROTO_IP || level == IPPROTO_IPV6)
		return set_ip_int(e, k, level, name, v);
	return SOCKOPT_NOT_OURS;
}

/* --- reading --- */

static int get_socket_int(struct sock *k, int name, int *v)
{
	switch (name) {
	case SO_ERROR:
		*v = k->so_error;
		k->so_error = 0;
		return 0;
	case SO_ACCEPTCONN:
		*v = k->proto == SOCK_TCP && k->tcp.state == TCP_LISTEN;
		return 0;
	case SO_KEEPALIVE:
		*v = !!(k->flags & SOCKF_KEEPALIVE);
		return 0;
	case SO_OOBINLINE:
		*v = !!(k->flags & SOCKF_OOBINLINE);
		return 0;
	case SO_REUSEADDR:
		*v = !!(k->flags & SOCKF_REUSEADDR);
		return 0;
	case SO_RCVLOWAT:
		*v = (int)k->rcvlowat;
		return 0;
	case SO_RCVBUF:
		*v = (int)(k->flags & SOCKF_RCVBUF_SET ? 2 * k->rcvbuf : k->rcvbuf);
		return 0;
	case SO_SNDBUF:
		*v = (int)k->sndbuf;
		return 0;
	}
	return SOCKOPT_NOT_OURS;
}

static int get_tcp_int(struct engine *e, struct sock *k, int name, int *v)
{
	const struct sock_defaults *d = &e->s->cfg.defaults;
	struct tcb *t = &k->tcp;
	struct tcp_stats st;

	switch (name) {
	case TCP_NODELAY:
		*v = !!(t->flags & TCPF_NODELAY);
		return 0;
	case TCP_CORK:
		*v = !!(t->flags & TCPF_CORK);
		return 0;
	case TCP_QUICKACK:
		*v = !(t->flags & TCPF_PINGPONG);
		return 0;
	case TCP_INQ:
		*v = !!(k->flags & SOCKF_INQ);
		return 0;
	case TCP_DEFER_ACCEPT:
		*v = (int)t->defer_accept_s;
		return 0;
	case TCP_KEEPIDLE:
		*v = (int)(t->keep_idle_s ? t->keep_idle_s : d->keep_idle_s);
		return 0;
	case TCP_KEEPINTVL:
		*v = (int)(t->keep_intvl_s ? t->keep_intvl_s : d->keep_intvl_s);
		return 0;
	case TCP_KEEPCNT:
		*v = (int)(t->keep_cnt ? t->keep_cnt : d->keep_cnt);
		return 0;
	case TCP_USER_TIMEOUT:
		*v = (int)t->user_timeout_ms;
		return 0;
	case TCP_MAXSEG:
		if (t->state == TCP_CLOSED || t->state == TCP_LISTEN)
			return SOCKOPT_NOT_OURS;
		tcp_get_stats(e, k, &st);
		*v = (int)st.mss;
		return 0;
	}
	return SOCKOPT_NOT_OURS;
}

static int give(void *val, socklen_t *len, const void *from, size_t n)
{
	if (*len > n)
		*len = (socklen_t)n;
	memcpy(val, from, *len);
	return 0;
}

bool sockopt_connected(const struct sock *k)
{
	return k->proto == SOCK_TCP && k->remote.port && k->tcp.state != TCP_LISTEN;
}

/* What the kernel says of a connection, of which its own socket knows nothing. */
static int get_path(const struct engine *e, const struct sock *k, int level, int name, int *v)
{
	bool v6 = level == IPPROTO_IPV6 && k->family == 6;
	struct tcp_stats st;

	if ((level == IPPROTO_IP && name == IP_MTU) || (v6 && name == IPV6_MTU)) {
		tcp_get_stats(e, k, &st);
		*v = (int)st.pmtu;
		return 0;
	}
	if (k->tcp.state == TCP_CLOSED)
		return SOCKOPT_NOT_OURS;
	if (level == IPPROTO_IP && name == IP_PROTOCOL) { /* so Linux has it */
		*v = k->local.port;
		return 0;
	}
	if (v6 && name == IPV6_V6ONLY) {
		*v = !!(k->flags & SOCKF_V6ONLY);
		return 0;
	}
	if (v6 && name == IPV6_ADDRFORM && k->tcp.state == TCP_ESTABLISHED) {
		*v = AF_INET6;
		return 0;
	}
	return SOCKOPT_NOT_OURS;
}

static int get_path_mtu(const struct engine *e, const struct sock *k, void *val, socklen_t *len)
{
	struct ip6_mtuinfo info = {0};
	struct tcp_stats st;

	if (*len < sizeof(info))
		return -EINVAL;
	tcp_get_stats(e, k, &st);
	info.ip6m_mtu = st.pmtu;
	return give(val, len, &info, sizeof(info));
}

int sockopt_get(struct engine *e, struct sock *k, int level, int name, void *val, socklen_t *len, uint64_t now_us)
{
	int v = 0, ret = SOCKOPT_NOT_OURS;

	if (level == SOL_SOCKET && name == SO_LINGER) {
		struct linger l = {!!(k->flags & SOCKF_LINGER), (int)k->linger_s};

		return give(val, len, &l, sizeof(l));
	}
	if (level == SOL_SOCKET && (is_rcvtimeo(name) || is_sndtimeo(name))) {
		uint64_t us = is_rcvtimeo(name) ? k->rcvtimeo_us : k->sndtimeo_us;
		struct timeval tv = {(time_t)(us / 1000000), (suseconds_t)(us % 1000000)};

		return give(val, len, &tv, sizeof(tv));
	}
	if (level == IPPROTO_TCP && k->proto == SOCK_TCP && name == TCP_CONGESTION) {
		char cc[16] = {0};
		const char *have = tcp_cc_name(k);

		strncpy(cc, strcmp(have, "newreno") ? have : "reno", sizeof(cc) - 1);
		return give(val, len, cc, sizeof(cc));
	}
	if (level == IPPROTO_TCP && k->proto == SOCK_TCP && name == TCP_INFO) {
		uint8_t info[TCP_INFO_BYTES];

		sockopt_tcp_info(e, k, info, now_us);
		return give(val, len, info, sizeof(info));
	}
	if (level == IPPROTO_IPV6 && name == IPV6_PATHMTU && k->family == 6 && sockopt_connected(k))
		return get_path_mtu(e, k, val, len);
	if (level == SOL_SOCKET)
		ret = get_socket_int(k, name, &v);
	else if (level == IPPROTO_TCP && k->proto == SOCK_TCP)
		ret = get_tcp_int(e, k, name, &v);
	else if (k->proto == SOCK_TCP && sockopt_connected(k))
		ret = get_path(e, k, level, name, &v);
	return ret == 0 ? give(val, len, &v, sizeof(v)) : ret;
}

size_t sockopt_inq_control(struct engine *e, const struct sock *k, void *control, size_t room)
{
	struct cmsghdr c = {.cmsg_level = IPPROTO_TCP, .cmsg_type = TCP_CM_INQ, .cmsg_len = CMSG_LEN(sizeof(int))};
	int left;

	if (!(k->flags & SOCKF_INQ) || !control || room < CMSG_SPACE(sizeof(left)))
		return 0;
	left = (int)tcp_inq(e, k);
	if (!left && k->tcp.flags & TCPF_FIN_RCVD)
		left = 1; /* the end of the stream is left to be read (as Linux) */
	memset(control, 0, CMSG_SPACE(sizeof(left)));
	memcpy(control, &c, sizeof(c));
	memcpy((uint8_t *)control + CMSG_LEN(0), &left, sizeof(left));
	return CMSG_SPACE(sizeof(left));
}
