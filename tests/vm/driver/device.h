/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the kernel's char driver share: a vNIC as a program has it, on the veth that driver_test.py made:
 * IFACE with OURS here, PEER at its other end, in the network namespace "peer". Calls are made without the library, so
 * that a test can say anything. Asserts on failure; needs root in the virtual machine.
 */
#ifndef TESTS_DEVICE_H
#define TESTS_DEVICE_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "viaduct/vnic_ioctl.h"

#define IFACE "v0"
#define OURS "10.9.0.1"
#define PEER "10.9.0.2"
#define BUFS 64u
#define BUF_SIZE 2048u
#define NOBODY 65534u

struct device {
	int fd;
	uint8_t *map;
	size_t len;
	const struct vnic_header *header;
	struct vnic_ctrl *ctrl;
	struct vnic_taken *taken;
	uint32_t tx_at, rx_at, evq_at;
};

/* 0 or -errno, as the kernel's own. */
static inline int call(int fd, unsigned long what, void *arg)
{
	return ioctl(fd, what, arg) < 0 ? -errno : 0;
}

static inline int open_device(void)
{
	int fd = open(VIADUCT_DEVICE, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static inline struct viaduct_alloc alloc_of(const char *interface)
{
	return (struct viaduct_alloc){.size = sizeof(struct viaduct_alloc),
				      .ifindex = if_nametoindex(interface),
				      .tx_bufs = BUFS,
				      .rx_bufs = BUFS,
				      .buf_size = BUF_SIZE,
				      .features = ~0ull};
}

static inline void map_device(struct device *d, size_t len)
{
	d->len = len;
	d->map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd, 0);
	assert_ptr_not_equal(d->map, MAP_FAILED);
	d->header = (const struct vnic_header *)(void *)d->map;
	d->ctrl = (struct vnic_ctrl *)(void *)(d->map + d->header->end[0].ctrl_off);
	d->taken = (struct vnic_taken *)(void *)(d->map + d->header->end[0].ctrl_off + VNIC_LINE);
}

static inline struct device make_device(const char *interface)
{
	struct viaduct_alloc a = alloc_of(interface);
	struct device d = {.fd = open_device()};

	assert_int_equal(call(d.fd, VIADUCT_IOC_ALLOC, &a), 0);
	map_device(&d, a.region_size);
	return d;
}

static inline void end_device(struct device *d)
{
	munmap(d->map, d->len);
	close(d->fd);
}

/* --- rings --- */

static inline struct vnic_desc *slot(struct device *d, uint64_t off, uint32_t at, uint32_t entries)
{
	return (struct vnic_desc *)(void *)(d->map + off) + (at & (entries - 1));
}

/* The next event, if there is one. */
static inline bool take_event(struct device *d, struct vnic_desc *event)
{
	uint32_t entries = d->header->end[0].evq_entries;
	struct vnic_desc *at = slot(d, d->header->end[0].evq_off, d->evq_at, entries);

	if (__atomic_load_n(&at->turn, __ATOMIC_ACQUIRE) != d->evq_at / entries + 1)
		return false;
	*event = *at;
	d->evq_at++;
	__atomic_store_n(&d->taken->evq, d->evq_at, __ATOMIC_RELAXED);
	return true;
}

static inline bool wait_event(struct device *d, struct vnic_desc *event, int ms)
{
	for (int i = 0; i < ms * 10; i++) {
		if (take_event(d, event))
			return true;
		usleep(100);
	}
	return false;
}

static inline void put(struct device *d, uint64_t off, uint32_t *at, uint32_t entries, struct vnic_desc desc)
{
	struct vnic_desc *to = slot(d, off, *at, entries);

	desc.turn = 0;
	*to = desc;
	__atomic_store_n(&to->turn, *at / entries + 1, __ATOMIC_RELEASE);
	++*at;
}

static inline void post(struct device *d, struct vnic_desc desc)
{
	put(d, d->header->end[0].tx_off, &d->tx_at, d->header->end[0].tx_entries, desc);
}

static inline void give_back(struct device *d, uint32_t buf)
{
	put(d, d->header->end[0].rx_off, &d->rx_at, d->header->end[0].rx_entries,
	    (struct vnic_desc){.buf = buf, .type = VNIC_DESC_RETURN});
}

static inline uint8_t *tx_buf(struct device *d, uint32_t buf)
{
	return d->map + d->header->end[0].bufs_off + (size_t)buf * d->header->end[0].buf_size;
}

static inline uint8_t *rx_buf(struct device *d, uint32_t buf)
{
	return d->map + d->header->end[1].bufs_off + (size_t)buf * d->header->end[1].buf_size;
}

static inline struct viaduct_stats stats_of(struct device *d)
{
	struct viaduct_stats s = {.size = sizeof(s)};

	assert_int_equal(call(d->fd, VIADUCT_IOC_STATS, &s), 0);
	return s;
}

/* --- sockets --- */

static inline void enter_namespace(const char *path)
{
	int ns = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(ns >= 0);
	assert_int_equal(setns(ns, CLONE_NEWNET), 0);
	close(ns);
}

static inline struct sockaddr_in address_of(const char *ip, uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

	assert_int_equal(inet_pton(AF_INET, ip, &a.sin_addr), 1);
	return a;
}

/* A socket, bound unless ip is NULL; reuse: with SO_REUSEADDR. */
static inline int bound_socket(int type, const char *ip, uint16_t port, bool reuse)
{
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), one = reuse;
	struct sockaddr_in a;

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ip) {
		a = address_of(ip, port);
		assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	}
	return fd;
}

/* The same in the peer's network namespace. */
static inline int peer_socket(int type, const char *ip, uint16_t port)
{
	int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), fd;

	enter_namespace("/run/netns/peer");
	fd = bound_socket(type, ip, port, false);
	assert_int_equal(setns(here, CLONE_NEWNET), 0);
	close(here);
	return fd;
}

/* A raw view of what the peer's interface gets. */
static inline int peer_tap(void)
{
	int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), fd;
	struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};

	enter_namespace("/run/netns/peer");
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
	a.sll_ifindex = (int)if_nametoindex("v1");
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(setns(here, CLONE_NEWNET), 0);
	close(here);
	return fd;
}

static inline void put_address(uint8_t to[16], const char *ip)
{
	struct sockaddr_in a = address_of(ip, 0);

	memset(to, 0, 16);
	to[10] = to[11] = 0xff;
	memcpy(to + 12, &a.sin_addr, 4);
}

/* For a port at OURS. */
static inline struct viaduct_filter filter_of(uint8_t proto, uint16_t port, int fd)
{
	struct viaduct_filter f = {
	    .size = sizeof(f), .fd = fd, .proto = proto, .family = 4, .local_port = port, .remote_port = 0};

	put_address(f.local, OURS);
	return f;
}

static inline int add_filter(struct device *d, struct viaduct_filter f)
{
	return call(d->fd, VIADUCT_IOC_FILTER_ADD, &f);
}

static inline int del_filter(struct device *d, struct viaduct_filter f)
{
	f.fd = -1;
	return call(d->fd, VIADUCT_IOC_FILTER_DEL, &f);
}

/* --- other users --- */

/* Run what(arg) as that user without any capability; its result (0 .. 127). */
static inline int as_user(uid_t uid, int (*what)(void *), void *arg)
{
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0) {
		if (setgid(uid) < 0 || setuid(uid) < 0)
			_exit(126);
		_exit(what(arg));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Lines of the module's list of vNICs. */
static inline int device_count(void)
{
	FILE *f = fopen("/sys/kernel/debug/viaduct/vnics", "re");
	int n = 0, c;

	assert_non_null(f);
	while ((c = fgetc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

#endif
