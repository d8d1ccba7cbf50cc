/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Options whose effect can be seen, and those that only the kernel follows: a socket that sets one of these has the
 * effect as well, whoever serves it.
 */
#include <linux/filter.h>

#include "pair.h"

static void set(int fd, int level, int name, int value, const char *what)
{
	show(what, setsockopt(fd, level, name, &value, sizeof value));
}

/* Both ends of a connection that the client opens to PORT + n, its socket and the listener prepared before. */
static int server_end(int n, void (*prepare)(int))
{
	struct sockaddr_in a = address(PORT + n);
	int l = socket(AF_INET, SOCK_STREAM, 0), fd;

	if (prepare)
		prepare(l);
	if (bind(l, (struct sockaddr *)&a, sizeof a) < 0 || listen(l, 5) < 0)
		exit(5);
	tell();
	fd = accept(l, NULL, NULL);
	close(l);
	return fd;
}

static int client_end(int n, void (*prepare)(int))
{
	struct sockaddr_in a = address(PORT + n);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (prepare)
		prepare(fd);
	await();
	if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
		exit(6);
	return fd;
}

/* What comes beside the bytes. */
static void read_with_control(int fd, int flags, const char *what)
{
	char buf[64], control[512];
	struct iovec iov = {buf, sizeof buf};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};

	show(what, recvmsg(fd, &m, flags));
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		say("%s: level %d type %d length %zu", what, c->cmsg_level, c->cmsg_type, c->cmsg_len);
}

/* --- peeking from an offset --- */

static void peeking(int fd)
{
	set(fd, SOL_SOCKET, SO_PEEK_OFF, 0, "SO_PEEK_OFF");
}

static void tcp_server(void)
{
	char c[4] = "";
	int fd = server_end(1, peeking);

	for (int i = 0; i < 3; i++) {
		show("peek", recv(fd, c, 1, MSG_PEEK));
		say("peeked %c", c[0]);
	}
	close(fd);
}

static void tcp_client(void)
{
	int fd = client_end(1, NULL);

	send(fd, "abc", 3, 0);
	read_all(fd, (char[1]){0}, 1);
	close(fd);
}

/* --- TCP_DEFER_ACCEPT, SO_RCVLOWAT --- */

static void deferring(int fd)
{
	set(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 10, "TCP_DEFER_ACCEPT");
}

static void later_server(void)
{
	double start = now_ms();
	int fd = server_end(2, deferring);
	struct pollfd p = {fd, POLLIN, 0};
	char c[8];

	say("accepted when there is data: %d", now_ms() - start > 60);
	show("recv", recv(fd, c, sizeof c, MSG_DONTWAIT));
	set(fd, SOL_SOCKET, SO_RCVLOWAT, 4, "SO_RCVLOWAT");
	tell();
	await();
	show("two of four", poll(&p, 1, 50));
	tell();
	show("four of four", poll(&p, 1, 5000));
	close(fd);
}

static void later_client(void)
{
	int fd = client_end(2, NULL);

	rest(80);
	send(fd, "a", 1, 0);
	await();
	send(fd, "bc", 2, 0);
	tell();
	await();
	send(fd, "de", 2, 0);
	read_all(fd, (char[1]){0}, 1);
	close(fd);
}

/* --- sending without copying: the kernel's, which tells when it is done --- */

static void without_copy(int fd)
{
	set(fd, SOL_SOCKET, SO_ZEROCOPY, 1, "SO_ZEROCOPY");
}

static void zero_server(void)
{
	char c[16];
	int fd = server_end(3, NULL);

	say("read %zu", read_all(fd, c, 9));
	tell();
	close(fd);
}

static void zero_client(void)
{
	struct pollfd p;
	int fd = client_end(3, without_copy);

	show("send", send(fd, "some data", 9, MSG_ZEROCOPY));
	p = (struct pollfd){fd, 0, 0};
	show("poll", poll(&p, 1, 5000));
	say("told: %d", !!(p.revents & POLLERR));
	read_with_control(fd, MSG_ERRQUEUE, "told");
	await();
	close(fd);
}

/* --- UDP --- */

static int udp_bound(int n, void (*prepare)(int))
{
	struct sockaddr_in a = address(PORT + n);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	prepare(fd);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0)
		exit(5);
	tell();
	return fd;
}

static void telling(int fd)
{
	set(fd, IPPROTO_IP, IP_RECVTOS, 1, "IP_RECVTOS");
	set(fd, IPPROTO_IP, IP_RECVTTL, 1, "IP_RECVTTL");
}

static void timed(int fd)
{
	set(fd, SOL_SOCKET, SO_TIMESTAMP, 1, "SO_TIMESTAMP");
}

static void filtering(int fd)
{
	struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = {1, &nothing};

	show("SO_ATTACH_FILTER", setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
}

static void udp_server(void)
{
	struct pollfd p = {.events = POLLIN};
	int fd = udp_bound(4, telling);

	read_with_control(fd, 0, "with TOS and TTL");
	close(fd);
	fd = udp_bound(5, timed);
	read_with_control(fd, 0, "with a time");
	close(fd);
	fd = udp_bound(6, filtering);
	p.fd = fd;
	show("filtered", poll(&p, 1, 60));
	close(fd);
}

static void udp_client(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	set(fd, IPPROTO_IP, IP_TOS, 0x28, "IP_TOS");
	for (int i = 4; i < 7; i++) {
		struct sockaddr_in a = address(PORT + i);

		await();
		show("sendto", sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof a));
	}
	close(fd);
}

static void server(void)
{
	tcp_server();
	later_server();
	zero_server();
	udp_server();
}

static void client(void)
{
	tcp_client();
	later_client();
	zero_client();
	udp_client();
}

int main(void)
{
	return roles(server, client);
}
