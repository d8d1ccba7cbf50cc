/* SPDX-License-Identifier: BSD-2-Clause */
/* UDP: datagrams and their senders, connected sockets, truncation, queue length, many at a time, nobody there. */
#include "pair.h"

static int udp_on(int port)
{
	struct sockaddr_in a = address(port);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0)
		show("bind", -1);
	return fd;
}

static void receive(int fd, size_t size, int flags)
{
	struct sockaddr_in from = {0};
	socklen_t n = sizeof from;
	char buf[128] = "";
	ssize_t r = recvfrom(fd, buf, size, flags, (struct sockaddr *)&from, &n);

	show("recvfrom", r);
	if (r >= 0)
		say("  from port %d length %u: %.16s", ntohs(from.sin_port), n, buf);
}

static void server(void)
{
	int fd = udp_on(PORT), n = -1;
	struct iovec iov[3];
	struct mmsghdr m[3];
	char buf[3][16] = {{0}};
	struct sockaddr_in to = address(PORT + 1);
	struct pollfd p = {fd, POLLIN | POLLOUT, 0};

	show("recv, nothing", recv(fd, buf, 8, MSG_DONTWAIT));
	poll(&p, 1, 0);
	say("poll %x", (unsigned)p.revents);
	tell();
	await();
	rest(20);
	ioctl(fd, FIONREAD, &n);
	say("FIONREAD %d", n);
	poll(&p, 1, 1000);
	say("poll %x", (unsigned)p.revents);
	receive(fd, 64, MSG_PEEK);
	receive(fd, 64, 0);
	receive(fd, 3, 0);
	receive(fd, 3, MSG_TRUNC);
	receive(fd, 64, 0);
	for (int i = 0; i < 3; i++) {
		iov[i] = (struct iovec){buf[i], 16};
		m[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
	}
	show("recvmmsg", recvmmsg(fd, m, 3, MSG_WAITFORONE, NULL));
	say("lengths %u %u", m[0].msg_len, m[1].msg_len);
	show("sendto", sendto(fd, "answer", 6, 0, (struct sockaddr *)&to, sizeof to));
	show("send, no destination", send(fd, "x", 1, 0));
	show("connect", connect(fd, (struct sockaddr *)&to, sizeof to));
	show("send, connected", send(fd, "direct", 6, 0));
	await();
	close(fd);
}

static void client(void)
{
	struct sockaddr_in to = address(PORT), nobody = address(PORT + 7), peer = {0};
	struct mmsghdr m[2] = {0};
	struct iovec iov[2] = {{"many1", 5}, {"many22", 6}};
	socklen_t n = sizeof peer;
	static const char large[70000];
	char buf[16];
	int fd;

	await();
	fd = udp_on(PORT + 1);
	show("sendto", sendto(fd, "first", 5, 0, (struct sockaddr *)&to, sizeof to));
	show("sendto", sendto(fd, "second", 6, 0, (struct sockaddr *)&to, sizeof to));
	show("connect", connect(fd, (struct sockaddr *)&to, sizeof to));
	show("getpeername", getpeername(fd, (struct sockaddr *)&peer, &n));
	say("port %d", ntohs(peer.sin_port));
	show("send", send(fd, "third", 5, 0));
	show("send nothing", send(fd, "", 0, 0));
	for (int i = 0; i < 2; i++)
		m[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
	show("sendmmsg", sendmmsg(fd, m, 2, 0));
	show("too long", send(fd, large, sizeof large, 0));
	tell();
	receive(fd, 64, 0);
	receive(fd, 64, 0);
	close(fd);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	(void)!connect(fd, (struct sockaddr *)&nobody, sizeof nobody);
	show("send to nobody", send(fd, "x", 1, 0));
	rest(20);
	show("recv", recv(fd, buf, 8, MSG_DONTWAIT));
	show("recv again", recv(fd, buf, 8, MSG_DONTWAIT));
	tell();
	close(fd);
}

int main(void)
{
	return roles(server, client);
}
