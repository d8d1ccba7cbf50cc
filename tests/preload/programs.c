/* SPDX-License-Identifier: BSD-2-Clause */
/* A child that runs another program: which connections it keeps open, and which it lets go. */
#include "pair.h"

static pid_t run_child(bool close_all)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	if (close_all)
		closefrom(3);
	execlp("sleep", "sleep", "0.5", (char *)NULL);
	_exit(9);
}

static void one(int l, int flags, bool close_all)
{
	int fd = accept4(l, NULL, NULL, flags), status;
	pid_t pid = run_child(close_all);

	rest(100); /* the child sleeps by now */
	close(fd);
	tell();
	waitpid(pid, &status, 0);
	say("child ended with %x", (unsigned)status);
}

static void server(void)
{
	int l = listen_on(PORT), status;
	pid_t pid;

	fcntl(l, F_SETFD, FD_CLOEXEC);
	fcntl(to_other, F_SETFD, FD_CLOEXEC);
	tell();
	one(l, SOCK_CLOEXEC, false);
	one(l, 0, false);
	one(l, 0, true);
	pid = fork();
	if (!pid) {
		execl("/nonexistent", "nothing", (char *)NULL);
		_exit(errno == ENOENT ? 7 : 8);
	}
	waitpid(pid, &status, 0);
	say("no such program: %d", WEXITSTATUS(status));
	say("system: %d", WEXITSTATUS(system("exit 5")));
	close(l);
}

static void client(void)
{
	char c;

	await();
	for (int i = 0; i < 3; i++) {
		int fd = connect_to(PORT);
		double start;

		await();
		start = now_ms();
		show("end", read(fd, &c, 1));
		say("at once %d", now_ms() - start < 150);
		close(fd);
	}
}

int main(void)
{
	return roles(server, client);
}
