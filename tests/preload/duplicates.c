/* SPDX-License-Identifier: BSD-2-Clause */
/* Several descriptors for one socket: the last close ends it; numbers that are taken over; ranges. */
#include "pair.h"
#include <sys/syscall.h>

static void server(void)
{
	int l = listen_on(PORT), fd, second, third, null = open("/dev/null", O_RDWR);
	char buf[8];

	tell();
	fd = accept(l, NULL, NULL);
	second = dup(fd);
	third = fcntl(fd, F_DUPFD_CLOEXEC, 100);
	say("third is %d", third);
	show("close first", close(fd));
	show("read second", read(second, buf, 8));
	show("dup2 over second", dup2(null, second));
	show("write, now the null device", write(second, "xyz", 3));
	show("write third", write(third, "3", 1));
	show("dup2 to itself", dup2(third, third) == third);
	show("dup2 of a bad one", dup2(999, third));
	show("third still there", write(third, "4", 1));
	show("dup3, same", dup3(third, third, 0));
	show("dup3", dup3(third, 200, O_CLOEXEC));
	show("close third", close(third));
	show("write 200", write(200, "5", 1));
	tell();
	await();
	show("close_range", close_range(150, 250, 0));
	show("write 200", write(200, "6", 1));
	close(second);

	fd = accept(l, NULL, NULL);
	second = (int)syscall(SYS_dup, fd);
	show("bare write", syscall(SYS_write, second, "bare", 4));
	show("bare close", syscall(SYS_close, fd));
	show("bare read", syscall(SYS_read, second, buf, 8));
	show("bare send", syscall(SYS_sendto, second, "more", 4, 0, NULL, 0));
	close(second);
	close(l);
}

static void client(void)
{
	struct pollfd p = {.events = POLLIN | POLLRDHUP};
	char buf[8] = "";
	int fd;

	await();
	fd = connect_to(PORT);
	send(fd, "hello", 5, 0);
	await();
	say("got %zu: %.3s", read_all(fd, buf, 3), buf);
	p.fd = fd;
	show("not closed yet", poll(&p, 1, 30));
	tell();
	show("closed", (long)read_all(fd, buf, 8));
	close(fd);
	fd = connect_to(PORT);
	send(fd, "hello", 5, 0);
	memset(buf, 0, sizeof buf);
	say("got %zu: %.8s", read_all(fd, buf, 8), buf);
	show("end", read(fd, buf, 1));
	close(fd);
}

int main(void)
{
	return roles(server, client);
}
