/* SPDX-License-Identifier: BSD-2-Clause */
/* The calls that move bytes: flags, pieces, queue lengths, names, half close, end of stream. */
#include "pair.h"
#include <linux/sockios.h>

static void names(int fd)
{
	struct sockaddr_in local = {0}, peer = {0};
	socklen_t n = sizeof local, m = 5;

	show("getsockname", getsockname(fd, (struct sockaddr *)&local, &n));
	say("length %u family %d", n, local.sin_family);
	show("getpeername, short buffer", getpeername(fd, (struct sockaddr *)&peer, &m));
	say("length %u family %d", m, peer.sin_family);
	n = sizeof peer;
	getpeername(fd, (struct sockaddr *)&peer, &n);
	say("one end has the port: %d", ntohs(local.sin_port) == PORT || ntohs(peer.sin_port) == PORT);
	say("local %s", inet_ntoa(local.sin_addr));
}

static void server(int fd)
{
	char buf[64] = "";
	struct iovec iov[2] = {{buf, 3}, {buf + 10, 4}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
	int n = -1;

	names(fd);
	show("recv, nothing there, MSG_DONTWAIT", recv(fd, buf, sizeof buf, MSG_DONTWAIT));
	tell();
	await(); /* 10 bytes are there */
	rest(20);
	ioctl(fd, FIONREAD, &n);
	say("FIONREAD %d", n);
	show("peek", recv(fd, buf, 4, MSG_PEEK));
	say("%.4s", buf);
	show("peek again", recv(fd, buf, 64, MSG_PEEK));
	show("readv", readv(fd, iov, 2));
	say("%.3s %.4s", buf, buf + 10);
	show("recv MSG_TRUNC", recv(fd, buf, 2, MSG_TRUNC));
	show("read of nothing", read(fd, buf, 0));
	tell();
	show("recv MSG_WAITALL", recv(fd, buf, 8, MSG_WAITALL));
	say("%.8s", buf);
	show("recvmsg", recvmsg(fd, &m, 0));
	say("flags %x", (unsigned)m.msg_flags);
	say("read to the end: %zu", read_all(fd, buf, sizeof buf));
	show("read at the end", read(fd, buf, 8));
	show("write after the peer's half close", write(fd, "answer", 6));
	show("shutdown", shutdown(fd, SHUT_WR));
	show("send after shutdown", send(fd, "x", 1, MSG_NOSIGNAL));
	close(fd);
}

static void client(int fd)
{
	struct iovec iov[3] = {{"abc", 3}, {"defg", 4}, {"hij", 3}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 3};
	char buf[16] = "";
	int n = -1;

	await();
	show("writev", writev(fd, iov, 3));
	rest(100); /* longer than an acknowledgement may be held back */
	ioctl(fd, SIOCOUTQ, &n);
	say("SIOCOUTQ %d", n);
	tell();
	await();
	show("send", send(fd, "1234", 4, 0));
	rest(30);
	show("send", send(fd, "5678", 4, 0));
	rest(30);
	show("sendmsg", sendmsg(fd, &m, 0));
	show("shutdown", shutdown(fd, SHUT_WR));
	say("answer of %zu", read_all(fd, buf, sizeof buf));
	say("%s", buf);
	show("shutdown again", shutdown(fd, SHUT_RDWR));
	close(fd);
}

int main(void)
{
	return pair(server, client);
}
