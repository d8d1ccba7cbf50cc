/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stdio on a socket: fdopen, fprintf, getline, ungetc, fclose, dprintf; a socket as standard input and output of this
 * process and of programs that it executes, as inetd does it.
 */
#include "pair.h"
#include <stdio_ext.h>

static int connection(int l)
{
	int fd = accept(l, NULL, NULL);

	if (fd < 0)
		show("accept", fd);
	return fd;
}

static void by_fdopen(int fd)
{
	FILE *in = fdopen(fd, "r"), *out = fdopen(dup(fd), "w");
	char *line = NULL;
	size_t size = 0;
	int c;

	show("same number", fileno(in) == fd);
	while (getline(&line, &size, in) > 1)
		fprintf(out, "you said %s", line);
	free(line);
	c = getc(in);
	ungetc(c, in);
	show("again", getc(in) == c);
	show("seek", fseek(in, 0, SEEK_SET));
	fprintf(out, "%d and some more\n", 42);
	show("flush", fflush(out));
	dprintf(fd, "%s\n", "by dprintf");
	show("close out", fclose(out));
	show("eof", getc(in));
	show("close in", fclose(in));
	show("closed", fcntl(fd, F_GETFD));
}

static void both_ways(int fd)
{
	FILE *f = fdopen(fd, "r+");
	char line[64];

	setlinebuf(f);
	show("no such mode", fdopen(fd, "x") == NULL);
	if (fgets(line, sizeof line, f))
		fprintf(f, "got %s", line);
	fflush(f);
	show("close", fclose(f));
}

/* What was printed before stays where it was printed. */
static void as_stdout(int fd)
{
	int saved = dup(1), saved_in = dup(0), word = 0;
	char line[64];

	dup2(fd, 0);
	dup2(fd, 1);
	close(fd);
	if (scanf("%d", &word) != 1 || !fgets(line, sizeof line, stdin))
		say("nothing read");
	say("read %d", word);
	printf("twice that is %d\n", 2 * word);
	puts("by puts");
	putchar('\n');
	show("flush", fflush(stdout));
	dup2(saved, 1);
	dup2(saved_in, 0);
	close(saved);
	close(saved_in);
	show("still a stream", fileno(stdout));
}

/* Buffered output is sent when the process exits. */
static void at_exit(int fd)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		dup2(fd, 1);
		printf("sent at exit\n");
		exit(0);
	}
	waitpid(pid, &status, 0);
	show("status", status);
	close(fd);
}

/* As inetd. */
static void run(int fd, char *const argv[])
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		dup2(fd, 0);
		dup2(fd, 1);
		close(fd);
		execvp(argv[0], argv);
		_exit(9);
	}
	close(fd);
	waitpid(pid, &status, 0);
	show(argv[0], status);
}

static void server(void)
{
	int l = listen_on(PORT);

	fcntl(l, F_SETFD, FD_CLOEXEC);
	tell();
	by_fdopen(connection(l));
	both_ways(connection(l));
	as_stdout(connection(l));
	at_exit(connection(l));
	run(connection(l), (char *[]){"cat", NULL});
	run(connection(l), (char *[]){"sed", "s/i/I/g", NULL});
	run(connection(l), (char *[]){"sh", "-c", "read line; echo \"sh: $line\"; grep -c .; /bin/echo end", NULL});
	run(connection(l), (char *[]){"awk", "{print NR \": \" $0} END {print \"bye\"}", NULL});
	close(l);
}

static void talk(const char *text)
{
	int fd = connect_to(PORT);
	char buf[512] = {0};

	send(fd, text, strlen(text), 0);
	shutdown(fd, SHUT_WR);
	show("bytes", (long)read_all(fd, buf, sizeof buf - 1));
	say("%s", buf);
	close(fd);
}

static void client(void)
{
	await();
	talk("one\ntwo\n\nx");
	talk("line\n");
	talk("21\n");
	talk("");
	for (int i = 0; i < 4; i++)
		talk("first line\nsecond line\nthird\n");
}

int main(void)
{
	return roles(server, client);
}
