/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mirror's life: two sockets of rtnetlink(7) (one hears what changed, one asks), the view's memory, and when to
 * read what (mirror.h says the rest).
 *
 * Reading everything costs time in proportion to the tables, and a routing daemon may change routes thousands of times
 * a second: so it happens at most as often as that it takes a tenth of the time; a change that comes in between waits
 * for the timer. Both sockets and the timer are members of one epoll descriptor, which is what the caller polls.
 */
#include "daemon/mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fib_rules.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <libmnl/libmnl.h>

#include "daemon/mirror_raw.h"
#include "engine/bytes.h"

#define MESSAGES_MAX (64 * 1024)        /* bytes of one read of a netlink socket: more than the kernel ever gives */
#define EVENTS_RCVBUF (4 * 1024 * 1024) /* bytes of changes that may wait for us */
#define ANSWER_S 5     /* an answer of the kernel is made while we ask; this only ends what is broken */
#define AGAIN_MS 100   /* after a failure */
#define LOAD_MAX 10    /* reading takes at most 1 / LOAD_MAX of the time */
#define DUMP_TRIES 5   /* a table that changes while it is read is read again */
#define FIRST_TRIES 20 /* and all of them, at the start */

struct mirror {
	int epoll_fd, timer_fd, view_fd;
	int events_fd, ask_fd;
	uint32_t seq;
	bool stale;        /* a change was told, and not everything has been read since */
	bool neighs_stale; /* messages of neighbours were lost */
	bool timer_set;
	uint64_t next_ns; /* not before this is everything read again */
	bool (*allowed)(const char *, uint32_t, void *);
	void *allowed_arg;
	struct netview *view; /* writable, ours alone */
	struct raw_net raw;
	struct netview_copy next;
	struct { /* mirror_moved: what it saw last */
		uint32_t ifaces, addrs;
		struct netview_iface iface[NETVIEW_IFACES];
		struct netview_addr addr[NETVIEW_ADDRS];
	} moved;
	char buf[MESSAGES_MAX];
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* --- the view --- */

static int view_make(struct mirror *m)
{
	int fd = memfd_create(NETVIEW_MEMFD_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	m->view_fd = fd;
	if (ftruncate(fd, sizeof(struct netview)) < 0)
		return -errno;
	m->view = mmap(NULL, sizeof(struct netview), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m->view == MAP_FAILED) {
		m->view = NULL;
		return -errno;
	}
	m->view->magic = NETVIEW_MAGIC;
	m->view->format = NETVIEW_FORMAT;
	m->view->size = sizeof(struct netview);
	m->view->version = 1;
	m->view->copy[1].refuse = NETVIEW_REFUSE_BEHIND; /* until the first reading is done */
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
		return -errno;
	return 0;
}

/* Publish m->next if it says something new. A reader of the copy that is overwritten here began two versions ago and
 * sees that when it looks at the version again. */
static int publish(struct mirror *m)
{
	struct netview *v = m->view;
	uint32_t version = v->version;

	if (!memcmp(&v->copy[version & 1], &m->next, sizeof(m->next)))
		return 0;
	if (++version == 0) /* 0 means "never looked up" to sockets; this keeps the parity */
		version = 2;
	atomic_thread_fence(memory_order_seq_cst);
	memcpy(&v->copy[version & 1], &m->next, sizeof(m->next));
	__atomic_store_n(&v->version, version, __ATOMIC_RELEASE);
	return 1;
}

static int publish_raw(struct mirror *m)
{
	raw_build(&m->raw, m->allowed, m->allowed_arg, &m->next);
	if (m->neighs_stale)
		m->next.refuse = NETVIEW_REFUSE_BEHIND;
	return publish(m);
}

static int publish_behind(struct mirror *m)
{
	m->next = m->view->copy[m->view->version & 1];
	m->next.refuse = NETVIEW_REFUSE_BEHIND;
	return publish(m);
}

/* --- asking the kernel --- */

/* One datagram of the kernel's into m->buf; bytes or -errno. Others may not speak to us. */
static ssize_t receive(struct mirror *m, int fd, int flags)
{
	for (;;) {
		struct sockaddr_nl from = {0};
		struct iovec iov = {m->buf, sizeof(m->buf)};
		struct msghdr msg = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n = recvmsg(fd, &msg, flags);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (from.nl_pid != 0)
			continue;
		return msg.msg_flags & MSG_TRUNC ? -EMSGSIZE : n;
	}
}

static int ask(struct mirror *m, struct nlmsghdr *h, uint16_t flags)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

	h->nlmsg_flags = NLM_F_REQUEST | flags;
	h->nlmsg_seq = ++m->seq;
	if (sendto(m->ask_fd, h, h->nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		return -errno;
	return 0;
}

/* Hand each message of the answer to `take`. 0; -EINTR: the table changed meanwhile; -errno. */
static int answer(struct mirror *m, void (*take)(struct raw_net *, const struct nlmsghdr *))
{
	bool torn = false;

	for (;;) {
		ssize_t n = receive(m, m->ask_fd, 0);
		const struct nlmsghdr *h = (const struct nlmsghdr *)m->buf;
		int left = (int)n;

		if (n < 0)
			return (int)n;
		for (; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left)) {
			if (h->nlmsg_seq != m->seq)
				continue; /* of a request that was given up */
			torn |= (h->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
			if (h->nlmsg_type == NLMSG_DONE)
				return torn ? -EINTR : 0;
			if (h->nlmsg_type == NLMSG_ERROR)
				return mnl_nlmsg_get_payload_len(h) < sizeof(int) ? -EPROTO
										  : *(int *)mnl_nlmsg_get_payload(h);
			if (take)
				take(&m->raw, h);
		}
	}
}

/* One table of the kernel. A family that it does not have is an empty one. */
static int dump(struct mirror *m, uint16_t type, int family, void (*take)(struct raw_net *, const struct nlmsghdr *))
{
	char buf[256] = {0};
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	int err;

	h->nlmsg_type = type;
	if (type == RTM_GETLINK) {
		struct ifinfomsg *head = mnl_nlmsg_put_extra_header(h, sizeof(*head));

		head->ifi_family = (unsigned char)family;
		mnl_attr_put_u32(h, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	} else {
		/* the heads of the others begin with the family, and are all zero but for that */
		struct rtmsg *head = mnl_nlmsg_put_extra_header(h, sizeof(*head));

		head->rtm_family = (unsigned char)family;
	}
	err = ask(m, h, NLM_F_DUMP);
	if (!err)
		err = answer(m, take);
	return family == AF_INET6 && (err == -EOPNOTSUPP || err == -EAFNOSUPPORT) ? 0 : err;
}

static int read_tables(struct mirror *m)
{
	static const struct {
		uint16_t type, family;
		void (*take)(struct raw_net *, const struct nlmsghdr *);
	} tables[] = {
	    {RTM_GETLINK, AF_UNSPEC, raw_take_link},  {RTM_GETADDR, AF_INET, raw_take_addr},
	    {RTM_GETADDR, AF_INET6, raw_take_addr},   {RTM_GETRULE, AF_INET, raw_take_rule},
	    {RTM_GETRULE, AF_INET6, raw_take_rule},   {RTM_GETROUTE, AF_INET, raw_take_route},
	    {RTM_GETROUTE, AF_INET6, raw_take_route},
	};

	raw_clear(&m->raw);
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		int err = dump(m, tables[i].type, tables[i].family, tables[i].take);

		if (err)
			return err;
	}
	raw_sort(&m->raw);
	return 0;
}

static int read_neighs(struct mirror *m)
{
	int err;

	raw_clear_neighs(&m->raw);
	err = dump(m, RTM_GETNEIGH, AF_INET, raw_take_neigh);
	return err ? err : dump(m, RTM_GETNEIGH, AF_INET6, raw_take_neigh);
}

static void set_timer(struct mirror *m, uint64_t ns)
{
	struct itimerspec at = {
	    .it_value = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)}};

	timerfd_settime(m->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
	m->timer_set = true;
}

/* Read everything again, now, or when it is time. 1 if there is news, 0, -errno. */
static int read_again(struct mirror *m)
{
	uint64_t start = now_ns(), end;
	int err = -EINTR;

	if (start < m->next_ns) {
		if (!m->timer_set)
			set_timer(m, m->next_ns);
		return 0;
	}
	for (int i = 0; i < DUMP_TRIES && err == -EINTR; i++)
		err = read_tables(m);
	for (int i = 0; i < DUMP_TRIES && !err && m->neighs_stale; i++) {
		err = read_neighs(m);
		m->neighs_stale = err != 0;
		if (err == -EINTR && i + 1 < DUMP_TRIES)
			err = 0;
	}
	end = now_ns();
	m->next_ns = end + (end - start) * LOAD_MAX;
	m->stale = err != 0;
	if (!err)
		return publish_raw(m);
	m->next_ns = end + AGAIN_MS * 1000000u;
	set_timer(m, m->next_ns);
	publish_behind(m);
	return err;
}

/* --- hearing what changed --- */

/* One message. Neighbours are taken as told, all else is to be read again. */
static void hear(struct mirror *m, const struct nlmsghdr *h, bool *neighs)
{
	if (h->nlmsg_type == RTM_NEWNEIGH || h->nlmsg_type == RTM_DELNEIGH) {
		raw_take_neigh(&m->raw, h);
		*neighs = true;
	} else if (h->nlmsg_type >= RTM_BASE) {
		m->stale = true;
	}
}

/* All that waits. 0 or -errno. */
static int hear_all(struct mirror *m, bool *neighs)
{
	for (;;) {
		ssize_t n = receive(m, m->events_fd, MSG_DONTWAIT);
		const struct nlmsghdr *h = (const struct nlmsghdr *)m->buf;
		int left = (int)n;

		if (n == -EAGAIN)
			return 0;
		if (n == -ENOBUFS || n == -EMSGSIZE) {
			m->stale = m->neighs_stale = true;
			continue;
		}
		if (n < 0)
			return (int)n;
		for (; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left))
			hear(m, h, neighs);
	}
}

int mirror_run(struct mirror *m)
{
	bool neighs = false;
	uint64_t ticks;
	int err, news = 0;

	if (read(m->timer_fd, &ticks, sizeof(ticks)) > 0)
		m->timer_set = false;
	err = hear_all(m, &neighs);
	if (err)
		return err;
	if (m->neighs_stale)
		news |= publish_behind(m);
	if (m->stale || m->neighs_stale) {
		int read_news = read_again(m);

		if (read_news < 0)
			return read_news;
		news |= read_news;
	}
	/* what was read is whole, though perhaps not the newest; else it is left as it was published */
	if (neighs && !m->stale && !m->neighs_stale)
		news |= publish_raw(m);
	return news;
}

/* --- the rest --- */

int mirror_resolve(struct mirror *m, uint32_t ifindex, const uint8_t addr[16])
{
	char buf[256] = {0};
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct ndmsg *head = mnl_nlmsg_put_extra_header(h, sizeof(*head));
	int err;

	h->nlmsg_type = RTM_NEWNEIGH;
	head->ndm_family = is_v4(addr) ? AF_INET : AF_INET6;
	head->ndm_ifindex = (int)ifindex;
	head->ndm_flags = NTF_USE;
	if (is_v4(addr))
		mnl_attr_put(h, NDA_DST, 4, addr + 12);
	else
		mnl_attr_put(h, NDA_DST, 16, addr);
	err = ask(m, h, NLM_F_CREATE | NLM_F_ACK);
	if (!err)
		err = answer(m, NULL);
	/* The kernel tries again, and does not say so: whoever asked shall wait for what comes of it. */
	if (!err && raw_neigh_retry(&m->raw, ifindex, addr) && !m->stale && !m->neighs_stale)
		publish_raw(m);
	return err;
}

bool mirror_moved(struct mirror *m)
{
	const struct netview_copy *c = &m->view->copy[m->view->version & 1];
	bool same = c->ifaces == m->moved.ifaces && c->addrs == m->moved.addrs &&
		    !memcmp(c->iface, m->moved.iface, sizeof(c->iface)) &&
		    !memcmp(c->addr, m->moved.addr, sizeof(c->addr));

	m->moved.ifaces = c->ifaces;
	m->moved.addrs = c->addrs;
	memcpy(m->moved.iface, c->iface, sizeof(c->iface));
	memcpy(m->moved.addr, c->addr, sizeof(c->addr));
	return !same;
}

int mirror_fd(const struct mirror *m)
{
	return m->epoll_fd;
}

int mirror_view_fd(const struct mirror *m)
{
	return m->view_fd;
}

const struct netview *mirror_view(const struct mirror *m)
{
	return m->view;
}

uint32_t mirror_below(const struct mirror *m, const struct netview_iface *f, uint32_t below[MIRROR_BELOW],
		      uint32_t *sends)
{
	return raw_below(&m->raw, f->ifindex, below, MIRROR_BELOW, sends);
}

void mirror_allow(struct mirror *m, bool (*allowed)(const char *, uint32_t, void *), void *arg)
{
	m->allowed = allowed;
	m->allowed_arg = arg;
	m->stale = true;
	set_timer(m, 1);
}

static int open_events(struct mirror *m)
{
	static const int groups[] = {RTNLGRP_LINK,         RTNLGRP_NEIGH,     RTNLGRP_IPV4_IFADDR,
				     RTNLGRP_IPV4_ROUTE,   RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_IFADDR,
				     RTNLGRP_IPV6_ROUTE,   RTNLGRP_IPV6_RULE, RTNLGRP_IPV4_NETCONF,
				     RTNLGRP_IPV6_NETCONF, RTNLGRP_NEXTHOP};
	struct sockaddr_nl any = {.nl_family = AF_NETLINK};
	int size = EVENTS_RCVBUF;

	m->events_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	/* without a name of its own it would get nothing that is told to groups */
	if (m->events_fd < 0 || bind(m->events_fd, (struct sockaddr *)&any, sizeof(any)) < 0)
		return -errno;
	if (setsockopt(m->events_fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		setsockopt(m->events_fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		if (setsockopt(m->events_fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof(groups[i])) < 0 &&
		    groups[i] != RTNLGRP_NEXTHOP)
			return -errno;
	return 0;
}

static int open_ask(struct mirror *m)
{
	struct timeval wait = {.tv_sec = ANSWER_S};
	int on = 1;

	m->ask_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (m->ask_fd < 0)
		return -errno;
	if (setsockopt(m->ask_fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0)
		return -errno;
	setsockopt(m->ask_fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
	return 0;
}

static int open_poll(struct mirror *m)
{
	struct epoll_event e = {.events = EPOLLIN};

	m->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	m->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (m->timer_fd < 0 || m->epoll_fd < 0 || epoll_ctl(m->epoll_fd, EPOLL_CTL_ADD, m->timer_fd, &e) < 0 ||
	    epoll_ctl(m->epoll_fd, EPOLL_CTL_ADD, m->events_fd, &e) < 0)
		return -errno;
	return 0;
}

/* Who has seen nothing yet takes all interfaces and addresses for gone, and tells stacks that come back so. */
static int read_first(struct mirror *m)
{
	int err = -EINTR;

	for (int i = 0; i < FIRST_TRIES && err == -EINTR; i++) {
		m->next_ns = 0;
		err = read_again(m);
	}
	return err < 0 && err != -EINTR ? err : 0;
}

int mirror_start(struct mirror **out)
{
	struct mirror *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	m->epoll_fd = m->timer_fd = m->view_fd = m->events_fd = m->ask_fd = -1;
	m->stale = m->neighs_stale = true;
	err = view_make(m);
	if (!err)
		err = open_events(m); /* before the first reading: what changes during it is told */
	if (!err)
		err = open_ask(m);
	if (!err)
		err = open_poll(m);
	if (!err)
		err = read_first(m);
	if (err < 0) {
		mirror_stop(m);
		return err;
	}
	*out = m;
	return 0;
}

void mirror_stop(struct mirror *m)
{
	int fds[] = {m->epoll_fd, m->timer_fd, m->view_fd, m->events_fd, m->ask_fd};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (m->view)
		munmap(m->view, sizeof(*m->view));
	free(m);
}
