/* SPDX-License-Identifier: BSD-2-Clause */
/* Signals end waits, or do not: EINTR of each call, SA_RESTART, masks, and what sigaction says of handlers. */
#include "pair.h"

static volatile sig_atomic_t runs;

static void handler(int sig)
{
	(void)sig;
	runs++;
}

static void handler_info(int sig, siginfo_t *info, void *context)
{
	(void)context;
	runs += info->si_signo == sig ? 100 : 0;
}

static void handle(int flags)
{
	struct sigaction a = {.sa_handler = handler, .sa_flags = flags};

	sigaction(SIGALRM, &a, NULL);
}

static void alarm_in(int ms)
{
	struct itimerval t = {.it_value = {0, ms * 1000}};

	setitimer(ITIMER_REAL, &t, NULL);
}

static void registration(void)
{
	struct sigaction a = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;

	sigaddset(&a.sa_mask, SIGUSR2);
	sigaction(SIGUSR1, &a, NULL);
	sigaction(SIGUSR1, NULL, &old);
	say("own handler %d flags %d mask %d", old.sa_handler == handler, old.sa_flags == SA_RESTART,
	    sigismember(&old.sa_mask, SIGUSR2));
	a.sa_flags = SA_SIGINFO | SA_RESETHAND;
	a.sa_sigaction = handler_info;
	sigaction(SIGUSR1, &a, &old);
	say("old one %d", old.sa_handler == handler);
	raise(SIGUSR1);
	say("ran %d", (int)runs);
	sigaction(SIGUSR1, NULL, &old);
	say("reset %d", old.sa_handler == SIG_DFL);
	say("signal: %d", signal(SIGUSR1, handler) == SIG_DFL);
	say("signal again: %d", signal(SIGUSR1, SIG_IGN) == handler);
	say("ignored: %d", signal(SIGUSR1, SIG_DFL) == SIG_IGN);
	show("sigaction, bad number", sigaction(99, NULL, &old));
	show("sigaction, SIGKILL", sigaction(SIGKILL, &a, NULL));
	runs = 0;
}

static void waits(int fd)
{
	struct epoll_event e = {.events = EPOLLIN};
	struct pollfd p = {fd, POLLIN, 0};
	struct timespec ts = {0, 60000000};
	int ep = epoll_create1(0);
	sigset_t mask, none;
	char c;

	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	handle(0);
	alarm_in(30);
	show("recv", recv(fd, &c, 1, 0));
	handle(SA_RESTART);
	alarm_in(30);
	show("poll, SA_RESTART", poll(&p, 1, 1000));
	alarm_in(30);
	show("epoll_wait, SA_RESTART", epoll_wait(ep, &e, 1, 1000));
	alarm_in(30);
	show("select, SA_RESTART", select(fd + 1, &(fd_set){{1l << fd}}, NULL, NULL, NULL));
	say("runs %d", (int)runs);
	sigemptyset(&none);
	sigemptyset(&mask);
	sigaddset(&mask, SIGALRM);
	alarm_in(20);
	show("ppoll, blocked in the call", ppoll(&p, 1, &ts, &mask));
	say("runs %d", (int)runs);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	alarm_in(20);
	show("poll, blocked", poll(&p, 1, 50));
	say("runs %d", (int)runs);
	show("epoll_pwait, pending and unblocked", epoll_pwait(ep, &e, 1, 1000, &none));
	say("runs %d", (int)runs);
	sigprocmask(SIG_UNBLOCK, &mask, NULL);
	alarm_in(30);
	tell();
	show("recv, SA_RESTART", recv(fd, &c, 1, 0));
	say("runs %d", (int)runs);
	signal(SIGALRM, SIG_IGN);
	alarm_in(20);
	show("poll, ignored", poll(&p, 1, 50));
	close(ep);
}

static void server(int fd)
{
	alarm(0);
	registration();
	waits(fd);
	close(fd);
}

static void client(int fd)
{
	await();
	rest(80);
	send(fd, "x", 1, 0);
	read_all(fd, (char[4]){0}, 4);
	close(fd);
}

int main(void)
{
	return pair(server, client);
}
