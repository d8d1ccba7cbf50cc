/* SPDX-License-Identifier: BSD-2-Clause */
/* See world.h. */
#include "world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"

static int home_ns = -1, peer_ns = -1;

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

int run(const char *format, ...)
{
	char command[512];
	va_list args;
	int status;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void must(const char *command)
{
	if (run("%s", command))
		die(command);
}

static int this_ns(void)
{
	return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

void in_peer(bool there)
{
	if (setns(there ? peer_ns : home_ns, CLONE_NEWNET))
		die("setns");
}

bool world_make(void)
{
	if (geteuid() || unshare(CLONE_NEWNET))
		return false;
	peer_ns = this_ns();
	must("ip link set lo up");
	if (unshare(CLONE_NEWNET))
		die("unshare");
	home_ns = this_ns();
	must("ip link set lo up");
	if (run("ip link add v0 type veth peer name v1 netns /proc/%d/fd/%d", (int)getpid(), peer_ns))
		die("veth");
	must("ip address add " HERE4 "/24 dev v0 && ip address add " HERE6 "/64 dev v0 nodad && ip link set v0 up");
	in_peer(true);
	must("ip address add " THERE4 "/24 dev v1 && ip address add " THERE6 "/64 dev v1 nodad && ip link set v1 up");
	in_peer(false);
	return true;
}

int peer_socket(int family, int type)
{
	int fd;

	in_peer(true);
	fd = socket(family, type | SOCK_CLOEXEC, 0);
	in_peer(false);
	return fd;
}

uint32_t v0_index(void)
{
	return if_nametoindex("v0");
}

uint32_t world_wide(unsigned queues)
{
	if (run("ip link add w0 numrxqueues %u numtxqueues %u type veth peer name w1 numrxqueues %u numtxqueues %u "
		"netns "
		"/proc/%d/fd/%d",
		queues, queues, queues, queues, (int)getpid(), peer_ns))
		die("veth");
	must("ip address add " WIDE4 "/24 dev w0 && ip link set w0 up");
	in_peer(true);
	must("ip address add 10.78.0.2/24 dev w1 && ip link set w1 up");
	in_peer(false);
	return if_nametoindex("w0");
}

pid_t daemon_start(const char *path, ...)
{
	static pid_t running;
	char *argv[16] = {(char *)path};
	va_list args;
	pid_t pid;
	int n = 1;

	/* one that a test which failed has left is not to fail the next ones too */
	if (running > 0 && !waitpid(running, NULL, WNOHANG))
		daemon_stop(running, SIGKILL);

	va_start(args, path);
	while (n < 14 && (argv[n] = va_arg(args, char *)))
		n++;
	va_end(args);
	argv[n] = getenv("TEST_VIADUCTD_OPTION");
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execv(path, argv);
		_exit(127);
	}
	running = pid;
	for (int i = 0; i < 3000; i++) {
		int fd = client_connect();

		if (fd >= 0) {
			close(fd);
			return pid;
		}
		if (waitpid(pid, NULL, WNOHANG) == pid)
			break;
		usleep(10000);
	}
	die("viaductd does not start");
	return -1;
}

int daemon_stop(pid_t pid, int number)
{
	int status = 0;

	kill(pid, number);
	waitpid(pid, &status, 0);
	return status;
}

void v4_addr(struct sockaddr_in *sa, const char *addr, uint16_t port)
{
	*sa = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
	inet_pton(AF_INET, addr, &sa->sin_addr);
}

void mapped(uint8_t to[16], const char *v4)
{
	memset(to, 0, 16);
	to[10] = to[11] = 0xff;
	inet_pton(AF_INET, v4, to + 12);
}

int bound_socket(int type, const char *addr, uint16_t port)
{
	struct sockaddr_in sa;
	int fd = socket(AF_INET, type, 0);

	v4_addr(&sa, addr, port);
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)))
		die("bind");
	return fd;
}

int peer_udp(uint16_t port)
{
	struct timeval wait = {1, 0};
	struct sockaddr_in sa;
	int fd = peer_socket(AF_INET, SOCK_DGRAM);

	v4_addr(&sa, THERE4, port);
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)))
		die("bind");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	return fd;
}

void say(int fd, const char *to, uint16_t port, const char *text)
{
	struct sockaddr_in sa;

	v4_addr(&sa, to, port);
	if (sendto(fd, text, strlen(text), 0, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		die("sendto");
}
