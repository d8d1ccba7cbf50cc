/* SPDX-License-Identifier: BSD-2-Clause */
/* sendfile: from an offset, from the file's own position, past the end, large. */
#include "pair.h"
#include <sys/sendfile.h>

#define SIZE 300000

static void server(int fd)
{
	static unsigned char buf[SIZE + 1000];
	size_t n = read_all(fd, buf, sizeof buf);
	unsigned long sum = 0;

	for (size_t i = 0; i < n; i++)
		sum = sum * 31 + buf[i];
	say("%zu bytes, sum %lx", n, sum);
	close(fd);
}

static void client(int fd)
{
	int file = fileno(tmpfile());
	off_t at = 100;

	for (int i = 0; i < SIZE; i += 4)
		if (write(file, &i, 4) != 4)
			exit(2);
	show("sendfile, offset", sendfile(fd, file, &at, 50));
	say("offset %ld position %ld", (long)at, (long)lseek(file, 0, SEEK_CUR));
	lseek(file, SIZE - 10, SEEK_SET);
	show("sendfile, position", sendfile(fd, file, NULL, 50));
	say("position %ld", (long)lseek(file, 0, SEEK_CUR));
	show("sendfile at the end", sendfile(fd, file, NULL, 50));
	at = 0;
	for (ssize_t r = 1; r > 0 && at < SIZE;)
		r = sendfile(fd, file, &at, SIZE);
	say("offset %ld", (long)at);
	show("sendfile, bad file", sendfile(fd, 999, &at, 5));
	close(fd);
}

int main(void)
{
	return pair(server, client);
}
