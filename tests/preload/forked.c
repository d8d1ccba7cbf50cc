/* SPDX-License-Identifier: BSD-2-Clause */
/* fork: parent and child share a connection and a listener; the last holder's close ends it. */
#include "pair.h"

static void server(void)
{
	int l = listen_on(PORT), fd, status;
	pid_t pid;
	char c;

	tell();
	fd = accept(l, NULL, NULL);
	pid = fork();
	if (!pid) {
		if (write(fd, "child", 5) != 5)
			_exit(1);
		_exit(read(fd, &c, 1) == 1 && c == 'q' ? 0 : 2);
	}
	close(fd); /* the child still has it */
	waitpid(pid, &status, 0);
	say("child ended with %x", (unsigned)status);

	pid = fork(); /* the child accepts from the inherited listener */
	if (!pid) {
		fd = accept(l, NULL, NULL);
		_exit(write(fd, "prefork", 7) == 7 ? 0 : 3);
	}
	tell();
	waitpid(pid, &status, 0);
	say("child ended with %x", (unsigned)status);

	fd = accept(l, NULL, NULL);
	pid = fork(); /* a child that does nothing must not hurt the parent's connection */
	if (!pid) {
		rest(20);
		_exit(0);
	}
	show("write", write(fd, "parent", 6));
	waitpid(pid, &status, 0);
	show("write", write(fd, "!", 1));
	close(fd);
	close(l);
}

static void client(void)
{
	char buf[16] = "";
	int fd;

	await();
	fd = connect_to(PORT);
	say("%zu", read_all(fd, buf, 5));
	say("%s", buf);
	send(fd, "q", 1, 0);
	show("end", read(fd, buf, 1));
	close(fd);
	await();
	fd = connect_to(PORT);
	memset(buf, 0, sizeof buf);
	say("%zu", read_all(fd, buf, 16));
	say("%s", buf);
	close(fd);
	fd = connect_to(PORT);
	memset(buf, 0, sizeof buf);
	say("%zu", read_all(fd, buf, 16));
	say("%s", buf);
	close(fd);
}

int main(void)
{
	return roles(server, client);
}
