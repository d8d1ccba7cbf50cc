/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Addresses: socket addresses to endpoints and back, and which addresses are this machine's.
 *
 * Loopback (127/8, ::1) is known without looking, and the unspecified address counts as local because connect()
 * to it reaches this machine. The interfaces' addresses are read with getifaddrs and kept for a second; IPv4
 * broadcast, multicast and link-local IPv6 (which needs a scope that struct endpoint has no room for) are never
 * local here, so the kernel serves them. The cache belongs to one process: it follows a fork by its pid.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "engine/bytes.h"

#define CACHE_MAX 64
#define CACHE_US 1000000u

static struct {
	_Atomic int holder; /* pid of whoever reads or writes the cache, 0 nobody */
	uint64_t read_us;
	unsigned count;
	uint8_t addr[CACHE_MAX][16];
} cache;

static bool is_loopback(const uint8_t addr[16])
{
	if (is_v4(addr))
		return addr[12] == 127;
	return IN6_IS_ADDR_LOOPBACK((const struct in6_addr *)addr);
}

/* An interface's address as 16 bytes; false if it is of no use here. */
static bool usable(const struct ifaddrs *i, uint8_t out[16])
{
	if (!i->ifa_addr)
		return false;
	if (i->ifa_addr->sa_family == AF_INET) {
		map_v4(out, &((const struct sockaddr_in *)i->ifa_addr)->sin_addr);
		return true;
	}
	if (i->ifa_addr->sa_family != AF_INET6)
		return false;
	memcpy(out, &((const struct sockaddr_in6 *)i->ifa_addr)->sin6_addr, 16);
	return !IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)out);
}

/* Look at the interfaces now. Fills the cache too if it is ours (fill). */
static bool look_now(const uint8_t addr[16], bool fill)
{
	struct ifaddrs *all = NULL;
	bool found = false;
	unsigned n = 0;
	if (getifaddrs(&all) < 0)
		return false;
	for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
		uint8_t a[16];
		if (!usable(i, a))
			continue;
		found |= !memcmp(a, addr, 16);
		if (fill && n < CACHE_MAX)
			memcpy(cache.addr[n], a, 16);
		n++;
	}
	freeifaddrs(all);
	if (fill) {
		/* More addresses than the cache holds: it stays stale, each question looks. */
		cache.read_us = n <= CACHE_MAX ? clock_us() : 0;
		cache.count = n <= CACHE_MAX ? n : 0;
	}
	return found;
}

/* The cache is ours for a moment; false: somebody else in this process has it. A pid of the parent's, caught by
 * fork, is nobody's. */
static bool take_cache(int pid)
{
	int holder = atomic_load(&cache.holder);
	return holder != pid && atomic_compare_exchange_strong(&cache.holder, &holder, pid);
}

bool addr_is_local(const uint8_t addr[16])
{
	if (is_loopback(addr) || is_any(addr))
		return true;
	if (IN6_IS_ADDR_MULTICAST((const struct in6_addr *)addr) ||
	    IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)addr))
		return false;
	if (!take_cache(getpid()))
		return look_now(addr, false);
	bool found = false;
	if (!cache.read_us || clock_us() - cache.read_us > CACHE_US) {
		found = look_now(addr, true);
	} else {
		for (unsigned i = 0; i < cache.count && !found; i++)
			found = !memcmp(cache.addr[i], addr, 16);
	}
	atomic_store(&cache.holder, 0);
	return found;
}

uint32_t addr_ifindex(const uint8_t addr[16])
{
	static _Thread_local struct {
		uint8_t addr[16];
		uint32_t ifindex;
		uint64_t us;
	} last;
	struct ifaddrs *all = NULL;

	if (is_loopback(addr))
		return 1;
	if (last.us && clock_us() - last.us < CACHE_US && !memcmp(last.addr, addr, 16))
		return last.ifindex;
	memcpy(last.addr, addr, 16);
	last.ifindex = 0;
	last.us = clock_us();
	if (getifaddrs(&all) < 0)
		return 0;
	for (const struct ifaddrs *i = all; i && !last.ifindex; i = i->ifa_next) {
		uint8_t a[16];

		if (usable(i, a) && !memcmp(a, addr, 16))
			last.ifindex = if_nametoindex(i->ifa_name);
	}
	freeifaddrs(all);
	return last.ifindex;
}

int addr_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct endpoint *ep, int *family)
{
	if (!sa || len < sizeof(sa->sa_family))
		return -EINVAL;
	sa_family_t af;
	memcpy(&af, sa, sizeof(af));
	memset(ep, 0, sizeof(*ep));
	if (af == AF_INET) {
		struct sockaddr_in in;
		if (len < sizeof(in))
			return -EINVAL;
		memcpy(&in, sa, sizeof(in));
		map_v4(ep->addr, &in.sin_addr);
		ep->port = ntohs(in.sin_port);
		*family = 4;
		return 0;
	}
	if (af != AF_INET6)
		return -EAFNOSUPPORT;
	struct sockaddr_in6 in6;
	if (len < offsetof(struct sockaddr_in6, sin6_scope_id)) /* the kernel's SIN6_LEN_RFC2133 */
		return -EINVAL;
	memset(&in6, 0, sizeof(in6));
	memcpy(&in6, sa, len < sizeof(in6) ? len : sizeof(in6));
	memcpy(ep->addr, &in6.sin6_addr, 16);
	ep->port = ntohs(in6.sin6_port);
	*family = 6;
	return 0;
}

socklen_t addr_to_sockaddr(const struct endpoint *ep, int family, struct sockaddr_storage *ss)
{
	memset(ss, 0, sizeof(*ss));
	if (family == 4 || family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)ss;
		in->sin_family = AF_INET;
		in->sin_port = htons(ep->port);
		memcpy(&in->sin_addr, ep->addr + 12, 4);
		return sizeof(*in);
	}
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(ep->port);
	memcpy(&in6->sin6_addr, ep->addr, 16);
	return sizeof(*in6);
}
