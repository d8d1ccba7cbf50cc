/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who may have a port: conflicts between programs under the library and programs that are not, and a server that is
 * started again while its predecessor's connections still end.
 */
#include "pair.h"

static long plain_result(const char *what)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		unsetenv("LD_PRELOAD");
		execl("/proc/self/exe", "ports", what, (char *)NULL);
		_exit(9);
	}
	waitpid(pid, &status, 0);
	return WEXITSTATUS(status);
}

static int try_bind(int type, int reuse)
{
	struct sockaddr_in a = address(PORT);
	int fd = socket(AF_INET, type, 0), r;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse);
	r = bind(fd, (struct sockaddr *)&a, sizeof a);
	if (r == 0 && type == SOCK_STREAM)
		r = listen(fd, 1);
	r = r < 0 ? errno : 0;
	close(fd);
	return r;
}

static void show_errno(const char *what, long err)
{
	say("%s: %s", what, err ? strerrorname_np((int)err) : "0");
}

static void conflicts(void)
{
	int l = listen_on(PORT), u = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in a = address(PORT);

	show_errno("a second listener", try_bind(SOCK_STREAM, 0));
	show_errno("a second listener, SO_REUSEADDR", try_bind(SOCK_STREAM, 1));
	show_errno("a plain program's listener", plain_result("tcp"));
	close(l);
	show_errno("after the close", plain_result("tcp"));
	(void)!bind(u, (struct sockaddr *)&a, sizeof a);
	show_errno("a second UDP socket", try_bind(SOCK_DGRAM, 0));
	show_errno("a plain program's UDP socket", plain_result("udp"));
	close(u);
	show_errno("after the close", plain_result("udp"));
}

/* The port is a plain program's. */
static void taken_by_plain(void)
{
	int p[2];
	pid_t pid;
	char c;

	if (pipe(p) < 0)
		exit(2);
	pid = fork();
	if (!pid) {
		dup2(p[1], 3);
		unsetenv("LD_PRELOAD");
		execl("/proc/self/exe", "ports", "hold", (char *)NULL);
		_exit(9);
	}
	if (read(p[0], &c, 1) != 1)
		say("no holder");
	show_errno("while a plain program listens", try_bind(SOCK_STREAM, 0));
	show_errno("while a plain program listens, SO_REUSEADDR", try_bind(SOCK_STREAM, 1));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	show_errno("when it has gone", try_bind(SOCK_STREAM, 1));
}

/* A server that ends with a connection open, and one that follows at once. */
static void restarted(void)
{
	for (int i = 0; i < 5; i++) {
		int p[2], fd;
		pid_t pid;
		char c[16] = {0};

		if (pipe(p) < 0)
			exit(2);
		pid = fork();
		if (!pid) {
			int l = listen_on(PORT);

			if (write(p[1], "x", 1) != 1)
				_exit(1);
			fd = accept(l, NULL, NULL);
			if (write(fd, "hello", 5) != 5)
				_exit(1);
			if (i & 1)
				_exit(0);
			exit(0);
		}
		close(p[1]);
		if (read(p[0], c, 1) != 1)
			say("no server");
		close(p[0]);
		fd = connect_to(PORT);
		show("read", (long)read_all(fd, c, 5));
		show("end", read(fd, c, 5));
		waitpid(pid, NULL, 0);
		if (i != 3) /* else it stays half open over the next start */
			close(fd);
	}
}

int main(int argc, char **argv)
{
	said = stdout;
	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(20);
	if (argc > 1 && !strcmp(argv[1], "hold")) {
		listen_on(PORT);
		if (write(3, "x", 1) != 1)
			return 1;
		pause();
	}
	if (argc > 1)
		return try_bind(!strcmp(argv[1], "udp") ? SOCK_DGRAM : SOCK_STREAM, 1);
	conflicts();
	taken_by_plain();
	restarted();
	return 0;
}
