/* SPDX-License-Identifier: BSD-2-Clause */
/* A listener and a UDP socket on 0.0.0.0, reached through several addresses of this machine; IP_PKTINFO says which. */
#include "pair.h"

static const char *const way[] = {"127.0.0.1", "127.0.0.2", "127.9.8.7", "0.0.0.0", "192.0.2.1"};
#define WAYS ((int)(sizeof way / sizeof way[0]))

static struct sockaddr_in at(const char *text, int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

	inet_pton(AF_INET, text, &a.sin_addr);
	return a;
}

static void show_address(const char *what, const struct sockaddr_in *a)
{
	say("%s: %s %s", what, inet_ntoa(a->sin_addr), a->sin_port == htons(PORT) ? "at the port" : "elsewhere");
}

static void show_names(int fd)
{
	struct sockaddr_in a = {0};
	socklen_t len = sizeof a;

	getsockname(fd, (struct sockaddr *)&a, &len);
	show_address("  local", &a);
	len = sizeof a;
	getpeername(fd, (struct sockaddr *)&a, &len);
	show_address("  remote", &a);
}

static void datagram(int fd)
{
	struct sockaddr_in from = {0};
	char buf[64];
	_Alignas(struct cmsghdr) char control[128];
	struct iovec iov = {buf, sizeof buf};
	struct msghdr m = {&from, sizeof from, &iov, 1, control, sizeof control, 0};
	ssize_t n = recvmsg(fd, &m, 0);

	show("datagram", n);
	show_address("  from", &from);
	say("  ancillary bytes: %zu, flags %x", (size_t)m.msg_controllen, (unsigned)m.msg_flags);
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		struct in_pktinfo p;

		memcpy(&p, CMSG_DATA(h), sizeof p);
		say("  level %d type %d interface %d", h->cmsg_level, h->cmsg_type, p.ipi_ifindex);
		say("  to %s", inet_ntoa(p.ipi_addr));
		say("  local %s", inet_ntoa(p.ipi_spec_dst));
	}
	/* The answer also keeps the datagrams in order: those to several addresses need not be. */
	sendto(fd, buf, (size_t)n, 0, (struct sockaddr *)&from, sizeof from);
}

static void server(void)
{
	struct sockaddr_in any = at("0.0.0.0", PORT);
	int l = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0), one = 1;

	show("bind", bind(l, (struct sockaddr *)&any, sizeof any));
	show("listen", listen(l, 8));
	show("bind", bind(u, (struct sockaddr *)&any, sizeof any));
	tell();
	for (int i = 0; i < WAYS; i++) {
		struct sockaddr_in a = {0};
		socklen_t len = sizeof a;
		int fd = accept(l, (struct sockaddr *)&a, &len);
		char c;

		show_address("accepted", &a);
		show_names(fd);
		show("read", read(fd, &c, 1));
		show("end", read(fd, &c, 1));
		close(fd);
	}
	for (int i = 0; i < WAYS; i++)
		datagram(u);
	show("IP_PKTINFO", setsockopt(u, IPPROTO_IP, IP_PKTINFO, &one, sizeof one));
	tell();
	for (int i = 0; i < WAYS; i++)
		datagram(u);
	close(u);
	close(l);
}

static void client(void)
{
	int u = socket(AF_INET, SOCK_DGRAM, 0);
	char buf[64] = "?";

	await();
	for (int i = 0; i < WAYS; i++) {
		struct sockaddr_in a = at(way[i], PORT);
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		show(way[i], connect(fd, (struct sockaddr *)&a, sizeof a));
		show_names(fd);
		show("write", write(fd, "x", 1));
		close(fd);
	}
	for (int i = 0; i < WAYS; i++) {
		struct sockaddr_in a = at(way[i], PORT);
		socklen_t len = sizeof a;

		show(way[i], sendto(u, buf, 5, 0, (struct sockaddr *)&a, sizeof a));
		show("answer", recvfrom(u, buf, sizeof buf, 0, (struct sockaddr *)&a, &len));
		show_address("  from", &a);
	}
	await();
	for (int i = 0; i < WAYS; i++) {
		struct sockaddr_in a = at(way[i], PORT);

		show(way[i], sendto(u, buf, 5, 0, (struct sockaddr *)&a, sizeof a));
		show("answer", recv(u, buf, sizeof buf, 0));
	}
	close(u);
}

int main(void)
{
	return roles(server, client);
}
