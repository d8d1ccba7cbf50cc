/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Games with descriptors: numbers are given lowest first and may be large, what /proc and fstat say of them, limits
 * that change while sockets are open, a daemon that closes everything, and rights that are given up after the start.
 */
#include "pair.h"
#include <dirent.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* Numbers that were there before lie in between: those above FIRST are ours. */
#define FIRST 500

static void lowest_first(void)
{
	int s = socket(AF_INET, SOCK_STREAM, 0), fd[4], low, null;

	for (int i = 0; i < 4; i++)
		fd[i] = fcntl(s, F_DUPFD, FIRST);
	show("in order", fd[3] - fd[0]);
	close(fd[1]);
	close(fd[2]);
	show("the lower one", fcntl(s, F_DUPFD_CLOEXEC, FIRST) == fd[1]);
	show("then the other", fcntl(s, F_DUPFD, FIRST) == fd[2]);
	closefrom(FIRST);
	show("all are closed", fcntl(fd[3], F_GETFD));
	low = socket(AF_INET, SOCK_DGRAM, 0);
	null = open("/dev/null", O_RDONLY);
	close(s);
	show("the file takes the lower", open("/dev/null", O_RDONLY) == s);
	close(low);
	show("the socket the next", socket(AF_INET, SOCK_STREAM, 0) == low);
	close(low);
	close(s);
	close(null);
}

static void echo(int fd, const char *word)
{
	char buf[8] = {0};

	show("send", send(fd, word, 4, 0));
	show("read", (long)read_all(fd, buf, 4));
	say("%s", buf);
}

/* A connection under larger and larger numbers; each must be all of it. */
static void large(int fd)
{
	static const int numbers[] = {300, 1023, 1024, 5000, 65535, 65536, 70000};
	struct rlimit r;
	int at = fd;

	getrlimit(RLIMIT_NOFILE, &r);
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && (rlim_t)numbers[i] < r.rlim_cur; i++) {
		show("dup2", dup2(at, numbers[i]));
		show("close", close(at));
		at = numbers[i];
		echo(at, "many");
	}
	show("back", dup2(at, fd));
	show("range", close_range(200, 100000, 0));
	echo(fd, "once");
}

static void seen(int fd)
{
	char path[64], link[64] = {0};
	struct stat st, other;
	int second = dup(fd), n = 0;
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *d;

	show("fstat", fstat(fd, &st));
	show("socket", S_ISSOCK(st.st_mode));
	show("duplicate", fstat(second, &other));
	show("the same", st.st_ino == other.st_ino && st.st_dev == other.st_dev);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	show("link", readlink(path, link, sizeof link - 1) > 0);
	say("%.8s", link);
	while ((d = readdir(dir)))
		n += atoi(d->d_name) == fd || atoi(d->d_name) == second;
	closedir(dir);
	show("listed", n);
	show("isatty", isatty(fd));
	show("lseek", lseek(fd, 0, SEEK_CUR));
	show("flags", fcntl(fd, F_GETFL) & O_ACCMODE);
	show("close on exec", fcntl(fd, F_GETFD));
	close(second);
}

static void limits(int fd)
{
	struct rlimit r, old;

	getrlimit(RLIMIT_NOFILE, &old);
	r = old;
	r.rlim_cur = 64;
	show("fewer", setrlimit(RLIMIT_NOFILE, &r));
	echo(fd, "low1");
	show("too large", dup2(fd, 64));
	show("largest", dup2(fd, 63));
	show("close", close(63));
	r.rlim_cur = 4;
	show("fewer than open", setrlimit(RLIMIT_NOFILE, &r));
	show("socket", socket(AF_INET, SOCK_STREAM, 0));
	show("dup", dup(fd));
	echo(fd, "low2");
	setrlimit(RLIMIT_NOFILE, &old);
}

/* What has another process's rights, root directory and numbers goes on. */
static void other_rights(int fd, int l)
{
	int next;

	show("chroot", chroot("/proc/self/fdinfo"));
	show("group", setgid(0) | setuid(0));
	echo(fd, "root");
	next = accept(l, NULL, NULL);
	echo(next, "next");
	close(next);
}

/* Closes all that it did not open, descriptors of the library too, as it believes. */
static void as_daemon(int l)
{
	int fd, done[2], status;
	pid_t pid;
	char c;

	if (pipe(done) < 0)
		exit(2);
	pid = fork();
	if (pid) {
		close(done[1]);
		waitpid(pid, &status, 0);
		show("the daemon ends", read(done[0], &c, 1)); /* before that, it says something */
		show("status", status);
		close(done[0]);
		return;
	}
	fd = accept(l, NULL, NULL);
	for (int i = 0; i < 2000; i++)
		if (i != fd && i != l && i != done[1] && i != fileno(said))
			close(i);
	if (daemon(1, 1) < 0)
		_exit(9);
	alarm(20);
	echo(fd, "dmon");
	close(fd);
	echo(accept(l, NULL, NULL), "dnew");
	_exit(0);
}

static void server(void)
{
	int l = listen_on(PORT), fd;

	lowest_first();
	tell();
	fd = accept(l, NULL, NULL);
	tell();
	seen(fd);
	large(fd);
	limits(fd);
	as_daemon(l);
	other_rights(fd, l);
	close(fd);
	close(l);
}

static void mirror(int fd)
{
	char buf[8];
	ssize_t n;

	while ((n = read(fd, buf, 4)) > 0)
		if (write(fd, buf, (size_t)n) != n)
			break;
	close(fd);
}

static void *mirror_in_background(void *fd)
{
	mirror((int)(intptr_t)fd);
	return NULL;
}

static void client(void)
{
	pthread_t thread;
	int fd;

	await();
	fd = connect_to(PORT);
	await();
	pthread_create(&thread, NULL, mirror_in_background, (void *)(intptr_t)fd);
	mirror(connect_to(PORT)); /* of the daemon */
	mirror(connect_to(PORT));
	mirror(connect_to(PORT));
	pthread_join(thread, NULL);
	say("all mirrored");
}

int main(void)
{
	struct rlimit r;

	getrlimit(RLIMIT_NOFILE, &r);
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
	return roles(server, client);
}
