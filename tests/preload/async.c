/* SPDX-License-Identifier: BSD-2-Clause */
/* O_ASYNC: who asks for signals when a socket is ready gets them, whoever serves the socket. */
#include "pair.h"

static volatile sig_atomic_t signals;

static void handler(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	signals = info->si_fd + 1;
}

/* Until the signal has come. */
static void told(const char *what, int fd)
{
	for (int i = 0; i < 5000 && !signals; i++)
		rest(1);
	say("%s: told of its own descriptor: %d", what, signals == fd + 1);
	signals = 0;
}

static int asking(int type, int port)
{
	struct sockaddr_in a = address(port);
	int fd = socket(AF_INET, type, 0);

	show("F_SETOWN", fcntl(fd, F_SETOWN, getpid()));
	show("F_SETSIG", fcntl(fd, F_SETSIG, SIGUSR1));
	show("F_SETFL", fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK));
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || (type == SOCK_STREAM && listen(fd, 5) < 0))
		exit(5);
	say("flags: %d", !!(fcntl(fd, F_GETFL) & O_ASYNC));
	return fd;
}

static void server(void)
{
	struct sigaction a = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	int udp, l;

	sigaction(SIGUSR1, &a, NULL);
	udp = asking(SOCK_DGRAM, PORT);
	tell();
	told("udp", udp);
	show("recv", recv(udp, (char[1]){0}, 1, 0));
	close(udp);
	l = asking(SOCK_STREAM, PORT + 1);
	signals = 0;
	tell();
	told("listener", l);
	show("accepted", accept(l, NULL, NULL) >= 0);
	close(l);
}

static void client(void)
{
	struct sockaddr_in a = address(PORT);
	int udp = socket(AF_INET, SOCK_DGRAM, 0);

	await();
	show("sendto", sendto(udp, "x", 1, 0, (struct sockaddr *)&a, sizeof a));
	await();
	close(connect_to(PORT + 1));
	close(udp);
}

int main(void)
{
	return roles(server, client);
}
