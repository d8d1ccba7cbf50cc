/* SPDX-License-Identifier: BSD-2-Clause */
/* See rings.h. */
#include "rings.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_xdp.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>

int rings_map(struct rings *r, const struct answer *a, uint32_t q)
{
	const struct daemon_vnic *v = &a->body.vnic;
	uint64_t *fill;
	int rc;

	*r = (struct rings){.xsk = a->fd[1 + q]};
	rc = xsk_map(r->xsk, a->fd[0], v, q, &r->port);
	if (rc)
		return rc;
	fill = r->port.fill.desc;
	for (uint32_t i = 0; i < r->port.rx_count; i++)
		fill[i] = (uint64_t)(r->port.rx_first + i) * r->port.chunk_size;
	__atomic_store_n(r->port.fill.producer, r->port.rx_count, __ATOMIC_RELEASE);
	return 0;
}

int rings_open(struct rings *r, int sock, uint32_t ifindex, struct answer *a)
{
	struct answer bound;
	int rc = client_open_unbound(sock, ifindex, 0, a);

	if (!rc)
		rc = rings_map(r, a, 0);
	if (!rc)
		rc = client_bind(sock, ifindex, &bound);
	if (!rc)
		a->body.vnic = bound.body.vnic;
	return rc;
}

void rings_unmap(struct rings *r)
{
	xsk_unmap(&r->port);
}

uint32_t rings_receive(struct rings *r, void *frame, uint32_t size, int timeout_ms)
{
	struct pollfd p = {r->xsk, POLLIN, 0};
	uint32_t at = *r->port.rx.consumer, mask = r->port.rx.entries - 1, len, fill;
	const struct xdp_desc *d;

	if (poll(&p, 1, timeout_ms) != 1 || __atomic_load_n(r->port.rx.producer, __ATOMIC_ACQUIRE) == at)
		return 0;
	d = (const struct xdp_desc *)r->port.rx.desc + (at & mask);
	len = d->len < size ? d->len : size;
	memcpy(frame, r->port.umem + d->addr, len);
	fill = *r->port.fill.producer;
	((uint64_t *)r->port.fill.desc)[fill & mask] = d->addr & ~(uint64_t)(r->port.chunk_size - 1);
	__atomic_store_n(r->port.fill.producer, fill + 1, __ATOMIC_RELEASE);
	__atomic_store_n(r->port.rx.consumer, at + 1, __ATOMIC_RELEASE);
	return len;
}

void rings_send(struct rings *r, const void *frame, uint32_t len)
{
	uint32_t at = *r->port.tx.producer, mask = r->port.tx.entries - 1;
	uint64_t addr = (uint64_t)(r->port.tx_first + r->sent++ % r->port.tx_count) * r->port.chunk_size;

	memcpy(r->port.umem + addr, frame, len);
	((struct xdp_desc *)r->port.tx.desc)[at & mask] = (struct xdp_desc){.addr = addr, .len = len};
	__atomic_store_n(r->port.tx.producer, at + 1, __ATOMIC_RELEASE);
	/* what was sent is ours again */
	__atomic_store_n(r->port.comp.consumer, __atomic_load_n(r->port.comp.producer, __ATOMIC_ACQUIRE),
			 __ATOMIC_RELEASE);
	xsk_kick(r->xsk, &r->port);
}

static uint16_t checksum(const void *data, uint32_t len, uint32_t sum)
{
	const uint8_t *b = data;

	for (uint32_t i = 0; i < len; i++)
		sum += i & 1 ? b[i] : (uint32_t)b[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

uint32_t make_datagram(uint8_t *frame, const struct datagram *d)
{
	struct ethhdr eth = {.h_proto = htons(ETH_P_IP)};
	struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = d->proto};
	struct tcphdr tcp = {.source = htons(d->sport), .dest = htons(d->dport), .doff = 5, .rst = 1};
	struct udphdr udp = {.source = htons(d->sport), .dest = htons(d->dport)};
	bool is_tcp = d->proto == IPPROTO_TCP;
	uint32_t head = is_tcp ? sizeof(tcp) : sizeof(udp), text = (uint32_t)strlen(d->text),
		 at = sizeof(eth) + sizeof(ip);
	uint32_t sum = d->proto + head + text, field = is_tcp ? 16 : 6;
	uint16_t check;

	memcpy(eth.h_dest, d->to, 6);
	memcpy(eth.h_source, d->from, 6);
	ip.tot_len = htons((uint16_t)(sizeof(ip) + head + text));
	inet_pton(AF_INET, d->saddr, &ip.saddr);
	inet_pton(AF_INET, d->daddr, &ip.daddr);
	ip.check = checksum(&ip, sizeof(ip), 0);
	udp.len = htons((uint16_t)(head + text));
	memcpy(frame, &eth, sizeof(eth));
	memcpy(frame + sizeof(eth), &ip, sizeof(ip));
	memcpy(frame + at, is_tcp ? (const void *)&tcp : &udp, head);
	memcpy(frame + at + head, d->text, text);
	sum +=
	    (ntohl(ip.saddr) >> 16) + (ntohl(ip.saddr) & 0xffff) + (ntohl(ip.daddr) >> 16) + (ntohl(ip.daddr) & 0xffff);
	check = checksum(frame + at, head + text, sum);
	memcpy(frame + at + field, &check, sizeof(check));
	return at + head + text;
}
