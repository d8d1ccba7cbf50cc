/* SPDX-License-Identifier: BSD-2-Clause */
/* What ends a blocking call from outside, and what must work afterwards: cancellation, a handler that jumps out of the
 * call, a crash handler that writes to a socket, a process that is stopped while a relative uses the same stack. */
#include <pthread.h>
#include <setjmp.h>

#include "pair.h"

/* --- cancellation --- */

static int subject;

static void cleaned(void *arg)
{
	*(bool *)arg = true;
}

static void *in_call(void *arg)
{
	struct pollfd p = {subject, POLLIN, 0};
	struct epoll_event e = {.events = EPOLLIN};
	bool clean = false;
	char c;
	int ep;

	pthread_cleanup_push(cleaned, &clean);
	switch ((int)(intptr_t)arg) {
	case 0:
		recv(subject, &c, 1, 0);
		break;
	case 1:
		(void)!read(subject, &c, 1);
		break;
	case 2:
		poll(&p, 1, -1);
		break;
	case 3:
		select(subject + 1, &(fd_set){{1l << subject}}, NULL, NULL, NULL);
		break;
	case 4:
		ep = epoll_create1(0);
		epoll_ctl(ep, EPOLL_CTL_ADD, subject, &e);
		epoll_wait(ep, &e, 1, -1);
		break;
	case 5:
		(void)recvmsg(subject, &(struct msghdr){.msg_iov = &(struct iovec){&c, 1}, .msg_iovlen = 1}, 0);
		break;
	default:
		accept(subject, NULL, NULL);
	}
	pthread_cleanup_pop(0);
	return NULL;
}

static void cancel(const char *what, int fd, int call)
{
	pthread_t t;
	void *result;

	subject = fd;
	pthread_create(&t, NULL, in_call, (void *)(intptr_t)call);
	rest(20);
	show(what, pthread_cancel(t));
	pthread_join(t, &result);
	say("cancelled: %d", result == PTHREAD_CANCELED);
}

static void cancellation(int fd)
{
	static const char *const name[] = {"recv", "read", "poll", "select", "epoll_wait", "recvmsg"};
	int l = listen_on(PORT + 1);

	for (int i = 0; i < 6; i++)
		cancel(name[i], fd, i);
	cancel("accept", l, 6);
	close(l);
}

/* --- jumping out --- */

static sigjmp_buf back;

static void jump(int sig)
{
	(void)sig;
	siglongjmp(back, 1);
}

static void alarm_in(int ms)
{
	struct itimerval t = {.it_value = {0, ms * 1000}};

	setitimer(ITIMER_REAL, &t, NULL);
}

static void jumps(int fd)
{
	struct sigaction a = {.sa_handler = jump};
	volatile int round = 0;

	sigaction(SIGALRM, &a, NULL);
	for (round = 0; round < 40; round++) {
		struct pollfd p = {fd, POLLIN, 0};
		char c;

		if (sigsetjmp(back, 1))
			continue;
		alarm_in(1 + round % 4);
		if (round & 1)
			recv(fd, &c, 1, 0);
		else
			poll(&p, 1, -1);
		say("came back");
	}
	signal(SIGALRM, SIG_DFL);
	say("jumped out %d times", round);
}

/* --- stopping a relative, crashing --- */

static int crash_fd;

static void crash(int sig)
{
	char line[] = "crashed";

	(void)sig;
	send(crash_fd, line, sizeof line, 0);
	_exit(7);
}

static void relative(int fd)
{
	int l = listen_on(PORT + 2), status, other;
	char c;
	pid_t pid = fork();

	if (!pid) {
		struct sigaction a = {.sa_handler = crash};

		other = accept(l, NULL, NULL);
		crash_fd = fd;
		sigaction(SIGSEGV, &a, NULL);
		while (read(other, &c, 1) == 1)
			send(other, &c, 1, 0);
		raise(SIGSEGV);
	}
	tell();
	rest(30);
	kill(pid, SIGSTOP);
	waitpid(pid, &status, WUNTRACED);
	say("stopped: %d", WIFSTOPPED(status));
	for (int i = 0; i < 100; i++) {
		if (read_all(fd, &c, 1) != 1 || send(fd, &c, 1, 0) != 1)
			say("not answered");
	}
	kill(pid, SIGCONT);
	tell();
	waitpid(pid, &status, 0);
	say("ended with %d", WEXITSTATUS(status));
	close(l);
}

static void server(int fd)
{
	cancellation(fd);
	jumps(fd);
	tell();
	relative(fd);
	close(fd);
}

static void client(int fd)
{
	char line[16] = "";
	int other;

	await();
	await();
	other = connect_to(PORT + 2);
	for (int i = 0; i < 100; i++) {
		send(fd, "x", 1, 0);
		if (read_all(fd, line, 1) != 1)
			say("no answer");
	}
	await();
	for (int i = 0; i < 100; i++) {
		send(other, "y", 1, 0);
		if (read_all(other, line, 1) != 1)
			say("no answer");
	}
	close(other);
	say("read %zu: %s", read_all(fd, line, 8), line);
	close(fd);
}

int main(void)
{
	return pair(server, client);
}
