// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Whether a socket really holds a port: what gives a program the right to a filter.
 *
 * The socket is in the vNIC's network namespace, of the filter's protocol, made by the user who
 * opened the vNIC, bound to the port and to the filter's address or to any. If it shares the port
 * (SO_REUSEADDR, SO_REUSEPORT), nobody else's socket may be bound there, too. The opener is exempt
 * from who made what if he has CAP_NET_RAW: he could read and send anything anyway.
 */
#include <linux/inetdevice.h>
#include <net/addrconf.h>
#include <net/inet6_hashtables.h>
#include <net/inet_hashtables.h>
#include <net/inet_sock.h>
#include <net/udp.h>

#include "compat.h"
#include "driver.h"

#define SHARERS_MAX 4096u /* sockets on one port that are looked at */

bool vd_address_is_local(const struct net_device *dev, const struct vd_flow *flow)
{
	struct net *net = dev_net(dev);
	bool yes;

	if (flow->family == 6)
		return IS_ENABLED(CONFIG_IPV6) && ipv6_chk_addr(net, &flow->local, NULL, 0);
	rcu_read_lock();
	yes = __ip_dev_find(net, flow->local.s6_addr32[3], false);
	rcu_read_unlock();
	return yes;
}

bool vd_kernel_has(const struct net_device *dev, const struct vd_flow *flow)
{
	struct net *net = dev_net(dev);
	struct inet_hashinfo *table = net->ipv4.tcp_death_row.hashinfo;
	struct sock *sk;

	if (flow->family == 4)
		sk = __inet_lookup_established(net, table, flow->remote.s6_addr32[3],
					       htons(flow->remote_port), flow->local.s6_addr32[3],
					       flow->local_port, dev->ifindex, 0);
	else
#if IS_ENABLED(CONFIG_IPV6)
		sk = __inet6_lookup_established(net, table, &flow->remote, htons(flow->remote_port),
						&flow->local, flow->local_port, dev->ifindex, 0);
#else
		sk = NULL;
#endif
	if (sk)
		sock_gen_put(sk);
	return sk;
}

/* --- who else is bound to the port --- */

struct search {
	kuid_t uid;
	u32 seen;
};

/* Another user's, or one too many to look at. */
static bool foreign(struct sock *sk, void *data)
{
	struct search *s = data;

	return s->seen++ >= SHARERS_MAX ||
	       (sk->sk_state != TCP_TIME_WAIT && !uid_eq(sk->sk_uid, s->uid));
}

static bool foreign_tcp(const struct sock *sk, kuid_t uid)
{
	struct inet_hashinfo *table = sock_net(sk)->ipv4.tcp_death_row.hashinfo;
	u16 port = inet_sk(sk)->inet_num;
	struct inet_bind_hashbucket *head;
	struct search search = {.uid = uid};
	struct inet_bind_bucket *tb;
	bool found;

	head = &table->bhash[inet_bhashfn(sock_net(sk), port, table->bhash_size)];
	spin_lock_bh(&head->lock);
	tb = inet_csk(sk)->icsk_bind_hash;
	found = !tb || vd_any_bound(tb, foreign, &search);
	spin_unlock_bh(&head->lock);
	return found;
}

static bool foreign_udp(const struct sock *sk, kuid_t uid)
{
	u16 port = inet_sk(sk)->inet_num;
	struct udp_hslot *slot = udp_hashslot(vd_udp_table(sock_net(sk)), sock_net(sk), port);
	struct search search = {.uid = uid};
	bool found = false;
	struct sock *other;

	spin_lock_bh(&slot->lock);
	sk_for_each(other, &slot->head) {
		if (!net_eq(sock_net(other), sock_net(sk)) || inet_sk(other)->inet_num != port)
			continue;
		found |= foreign(other, &search);
	}
	spin_unlock_bh(&slot->lock);
	return found;
}

static bool address_covers(const struct sock *sk, const struct vd_flow *flow)
{
	if (sk->sk_family == AF_INET6) {
#if IS_ENABLED(CONFIG_IPV6)
		const struct in6_addr *bound = &sk->sk_v6_rcv_saddr;

		if (flow->family == 4 && ipv6_only_sock(sk))
			return false;
		return ipv6_addr_any(bound) || ipv6_addr_equal(bound, &flow->local);
#endif
	}
	if (flow->family != 4)
		return false;
	return !inet_sk(sk)->inet_rcv_saddr ||
	       inet_sk(sk)->inet_rcv_saddr == flow->local.s6_addr32[3];
}

int vd_owner_check(struct vd_vnic *v, struct socket *sock, const struct vd_flow *flow)
{
	struct sock *sk = sock->sk;
	kuid_t uid = v->cred->euid;
	bool any = file_ns_capable(v->file, sock_net(v->sk)->user_ns, CAP_NET_RAW);
	int ret = -EPERM;

	if (!sk || (sk->sk_family != AF_INET && sk->sk_family != AF_INET6) ||
	    sk->sk_type != (flow->proto == IPPROTO_TCP ? SOCK_STREAM : SOCK_DGRAM) ||
	    sk->sk_protocol != flow->proto || !net_eq(sock_net(sk), sock_net(v->sk)))
		return -EPERM;
	lock_sock(sk);
	if (inet_sk(sk)->inet_num == flow->local_port && address_covers(sk, flow) &&
	    (!sk->sk_bound_dev_if || sk->sk_bound_dev_if == v->dev->ifindex) &&
	    (any || uid_eq(sk->sk_uid, uid)))
		ret = 0;
	if (ret == 0 && !any && (sk->sk_reuse || sk->sk_reuseport) &&
	    (flow->proto == IPPROTO_TCP ? foreign_tcp(sk, uid) : foreign_udp(sk, uid)))
		ret = -EADDRINUSE;
	release_sock(sk);
	return ret;
}
