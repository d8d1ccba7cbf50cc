/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests that send and receive frames share: a vNIC with a filter for UDP port PORT, the peer's socket, and
 * frames between the two.
 */
#ifndef TESTS_FRAMES_H
#define TESTS_FRAMES_H

#include "device.h"

#include <net/if_arp.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/ioctl.h>

#define PORT 7100
#define PEER_PORT 7200
#define HEADERS (14u + 20u + 8u)

static const uint8_t *peer_mac(void)
{
	static uint8_t mac[6];
	struct ifreq r = {.ifr_name = "v1"};
	int fd = peer_socket(SOCK_DGRAM, NULL, 0);

	assert_int_equal(ioctl(fd, SIOCGIFHWADDR, &r), 0);
	close(fd);
	memcpy(mac, r.ifr_hwaddr.sa_data, 6);
	return mac;
}

/* A UDP frame to the peer, in tx buffer buf; its length. Checksums are left out. */
static uint16_t write_udp(struct device *d, uint32_t buf, const char *from, uint16_t port, const void *data, size_t len)
{
	uint8_t *at = tx_buf(d, buf);
	struct sockaddr_in s = address_of(from, 0), p = address_of(PEER, 0);
	struct iphdr ip = {.version = 4,
			   .ihl = 5,
			   .ttl = 64,
			   .protocol = IPPROTO_UDP,
			   .tot_len = htons((uint16_t)(28 + len)),
			   .saddr = s.sin_addr.s_addr,
			   .daddr = p.sin_addr.s_addr};
	struct udphdr udp = {.source = htons(port), .dest = htons(PEER_PORT), .len = htons((uint16_t)(8 + len))};

	memcpy(at, peer_mac(), 6);
	memset(at + 6, 0, 6); /* the driver's to fill in */
	at[12] = 8;
	at[13] = 0;
	memcpy(at + 14, &ip, sizeof(ip));
	memcpy(at + 34, &udp, sizeof(udp));
	memcpy(at + HEADERS, data, len);
	return (uint16_t)(HEADERS + len);
}

static struct vnic_desc frame(uint32_t buf, uint16_t off, uint16_t len, uint8_t flags)
{
	return (struct vnic_desc){
	    .buf = buf, .off = off, .len = len, .type = VNIC_DESC_FRAME, .flags = flags | VNIC_F_CSUM_TX};
}

static void kick(struct device *d)
{
	assert_int_equal(call(d->fd, VIADUCT_IOC_KICK, NULL), 0);
}

static void expect_return(struct device *d, uint32_t buf)
{
	struct vnic_desc e = {0};

	assert_true(take_event(d, &e));
	assert_int_equal(e.type, VNIC_DESC_RETURN);
	assert_int_equal(e.buf, buf);
}

/* What a socket receives within that time; -1 nothing. */
static ssize_t receive(int fd, void *to, size_t len, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) == 1 ? recv(fd, to, len, MSG_DONTWAIT) : -1;
}

static void send_to_us(int fd, uint16_t port, const void *data, size_t len)
{
	struct sockaddr_in a = address_of(OURS, port);

	assert_int_equal(sendto(fd, data, len, 0, (struct sockaddr *)&a, sizeof(a)), len);
}

/* A vNIC with a filter for UDP port PORT, and the peer's socket. */
struct world {
	struct device d;
	int backing, peer;
};

static struct world make_world(void)
{
	struct world w = {.d = make_device(IFACE), .backing = bound_socket(SOCK_DGRAM, OURS, PORT, false)};

	w.peer = peer_socket(SOCK_DGRAM, PEER, PEER_PORT);
	assert_int_equal(add_filter(&w.d, filter_of(IPPROTO_UDP, PORT, w.backing)), 0);
	return w;
}

static void end_world(struct world *w)
{
	close(w->backing);
	close(w->peer);
	end_device(&w->d);
}

#endif
