/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Programs that this process executes (execve) or spawns (posix_spawn), and the sockets that they get from it.
 *
 * The giver writes down what it hands over (socket/handover.h) in a memfd, lets that and the descriptors that it names
 * stay open over execve, and tells the memfd's number in the heir's environment (VARIABLE). The library in the heir
 * maps all of it before the program begins, and finds by their inodes which of its descriptors are these sockets.
 *
 * A program that gets sockets gets the library too: where the new environment names no LD_PRELOAD (nginx makes a new
 * one for the binary it upgrades to) ours is added, with the knobs that this process was started with; without it, the
 * sockets would be dead. Only VIADUCT_ENABLE=0 is respected.
 *
 * A program that can't load the library (static, setuid, of another architecture) gets nothing: this process lets go of
 * the connections as if it had closed them, so that their peers hear of it, and says so on standard error. Listeners go
 * on in the kernel.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "calls.h"
#include "fdtable.h"
#include "heirs.h"
#include "host/elf.h"
#include "host/knobs.h"
#include "socket/helper.h"
#include "socket/kick.h"

#define VARIABLE "LIBVIADUCT_HANDOVER"
#define KNOB_PREFIX "VIADUCT_"
#define PRELOAD "LD_PRELOAD"
#define SCRIPT_DEPTH 4
#define ADDED_MAX 64 /* variables that we add */

static char *added[ADDED_MAX];                             /* LD_PRELOAD and the knobs; NULL at the end */
static pthread_mutex_t giving = PTHREAD_MUTEX_INITIALIZER; /* descriptors are open for an heir just now */

/* --- is it one? --- */

/* The file that is executed: name it. False: there is none. */
static bool find_file(const char *file, bool search, char name[PATH_MAX])
{
	const char *path = getenv("PATH"), *end;

	if (!search || strchr(file, '/'))
		return snprintf(name, PATH_MAX, "%s", file) < PATH_MAX && access(name, X_OK) == 0;
	for (path = path ? path : "/bin:/usr/bin"; *path; path = *end ? end + 1 : end) {
		int len;

		end = strchrnul(path, ':');
		len = snprintf(name, PATH_MAX, "%.*s%s%s", (int)(end - path), path, end == path ? "" : "/", file);
		if (len > 0 && len < PATH_MAX && access(name, X_OK) == 0)
			return true;
	}
	return false;
}

/* Would ld.so load a library into it? */
static bool loads_libraries(const char *file)
{
	char interp[2][PATH_MAX];
	struct stat st;

	if (stat(file, &st) < 0 || (st.st_mode & S_ISUID && st.st_uid != getuid()) ||
	    (st.st_mode & S_ISGID && st.st_mode & S_IXGRP && st.st_gid != getgid()))
		return false;
	for (int depth = 0; depth < SCRIPT_DEPTH; depth++) {
		char *found = interp[depth % 2];
		int kind = elf_inspect(file, found, PATH_MAX);

		if (kind == EXE_SCRIPT)
			file = found;
		else
			return kind == EXE_DYNAMIC || kind == EXE_TEXT || kind == -EACCES;
	}
	return false;
}

static const char *variable(char *const env[], const char *name)
{
	size_t len = strlen(name);

	for (; env && *env; env++)
		if (!strncmp(*env, name, len) && (*env)[len] == '=')
			return *env + len + 1;
	return NULL;
}

static bool switched_off(char *const env[])
{
	const char *enable = variable(env, KNOB_PREFIX "ENABLE");

	return enable && (!strcmp(enable, "0") || !strcmp(enable, "off") || !strcmp(enable, "no"));
}

/* --- its environment --- */

/* One that names what is handed over, and the library with its knobs where it does not. In memory of its own: we may be
 * in a child of a program with threads. NULL: no memory. */
static char **make_env(struct bequest *b, char *const env[])
{
	bool preloads = variable(env, PRELOAD) != NULL;
	size_t n = 0, at = 0;
	char **to, *text;

	while (env && env[n])
		n++;
	b->env_size = (n + ADDED_MAX + 2) * sizeof(*to) + sizeof(VARIABLE) + 16;
	to = mmap(NULL, b->env_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (to == MAP_FAILED)
		return NULL;
	for (size_t i = 0; i < n; i++)
		if (strncmp(env[i], VARIABLE "=", sizeof(VARIABLE)) != 0)
			to[at++] = env[i];
	for (int i = 0; !preloads && added[i]; i++)
		to[at++] = added[i];
	text = (char *)(to + n + ADDED_MAX + 2);
	snprintf(text, sizeof(VARIABLE) + 16, VARIABLE "=%d", b->memfd);
	to[at] = text;
	return to;
}

/* --- what it gets --- */

static void keep_open(int *fd, void *arg)
{
	(void)arg;
	real.fcntl(*fd, F_SETFD, 0);
}

static void close_on_exec(int *fd, void *arg)
{
	(void)arg;
	real.fcntl(*fd, F_SETFD, FD_CLOEXEC);
}

/* Sockets that are close-on-exec are let go, as the kernel will close their descriptors. */
static void let_go(bool all)
{
	for (int fd = fd_first_ours(0); fd >= 0; fd = fd_first_ours(fd + 1)) {
		int flags = real.fcntl(fd, F_GETFD);

		if (all || flags < 0 || flags & FD_CLOEXEC)
			fd_closing(fd);
	}
}

/* Those that can't go over are let go, too, in an image. How many go. */
static uint32_t add_sockets(struct bequest *b)
{
	for (int fd = fd_first_ours(0); fd >= 0; fd = fd_first_ours(fd + 1)) {
		vsock_t v = fd_vsock(fd);

		if (fd_of_socket(v) != fd) /* a duplicate */
			continue;
		if (handover_add(b->h, v, fd, true) < 0 && b->heir == HEIR_IMAGE)
			fd_closing(fd);
	}
	return b->h->socks;
}

static void say_lost(const char *file)
{
	char text[PATH_MAX + 128];
	int n = snprintf(text, sizeof(text),
			 "viaduct: %s can't load the library (static, setuid, or switched off): connections that it "
			 "inherits end\n",
			 file);

	if (knob[K_LOG] && n > 0 && real.write(STDERR_FILENO, text, (size_t)n) < 0)
		return;
}

static void give(struct bequest *b, char *const env[])
{
	b->h = handover_new(b->heir, &b->memfd);
	if (!b->h)
		return;
	if (!add_sockets(b) || !(b->env = make_env(b, env))) {
		if (b->heir == HEIR_CHILD)
			handover_done(b->h, 0);
		handover_free(b->h, b->memfd);
		b->h = NULL;
		return;
	}
	quiet_lock(&giving);
	if (b->heir == HEIR_IMAGE)
		helper_pause();
	b->locked = true;
	handover_each_fd(b->h, keep_open, NULL);
	real.fcntl(b->memfd, F_SETFD, 0);
}

/* It can't load the library. */
static void lose(const char *file)
{
	say_lost(file);
	let_go(true);
}

char *const *heirs_prepare(struct bequest *b, enum heir heir, const char *file, bool search, char *const env[])
{
	char path[PATH_MAX];

	*b = (struct bequest){.heir = heir, .memfd = -1};
	if (fd_first_ours(0) < 0 || !find_file(file, search, path)) {
		if (heir == HEIR_IMAGE && fd_limit)
			kick_all();
		return env;
	}
	if (heir == HEIR_IMAGE)
		let_go(false);
	if (fd_first_ours(0) >= 0) {
		if (loads_libraries(path) && !switched_off(env))
			give(b, env);
		else if (heir == HEIR_IMAGE)
			lose(path);
	}
	if (heir == HEIR_IMAGE)
		kick_all(); /* nobody is here afterwards who would */
	return b->env ? b->env : env;
}

void heirs_done(struct bequest *b, int pid)
{
	int error = errno;

	if (b->locked) {
		handover_each_fd(b->h, close_on_exec, NULL);
		if (b->heir == HEIR_IMAGE)
			helper_resume();
		quiet_unlock(&giving);
	}
	if (b->h && b->heir == HEIR_CHILD)
		handover_done(b->h, pid);
	if (b->h)
		handover_free(b->h, b->memfd);
	if (b->env)
		munmap(b->env, b->env_size);
	errno = error;
}

/* --- the heir --- */

void heirs_init(void)
{
	int n = 0;

	for (char **e = environ; *e && n < ADDED_MAX - 1; e++)
		if (!strncmp(*e, KNOB_PREFIX, sizeof(KNOB_PREFIX) - 1) || !strncmp(*e, PRELOAD "=", sizeof(PRELOAD)))
			added[n++] = strdup(*e);
}

struct handover *heirs_read(int memfd)
{
	static const char name[] = "/memfd:" HANDOVER_MEMFD_NAME " (deleted)";
	struct handover *h;
	char path[64], link[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", memfd);
	n = readlink(path, link, sizeof(link));
	if (n != sizeof(name) - 1 || memcmp(link, name, sizeof(name) - 1) != 0)
		return NULL;
	h = mmap(NULL, sizeof(*h), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (h != MAP_FAILED && pread(memfd, h, sizeof(*h), 0) == (ssize_t)sizeof(*h))
		return h;
	if (h != MAP_FAILED)
		munmap(h, sizeof(*h));
	return NULL;
}

void heirs_claim(const struct handover *h, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISSOCK(st.st_mode))
		return;
	for (uint32_t i = 0; i < h->socks; i++) {
		vsock_t v = h->sock[i].inode == st.st_ino ? handover_sock_name(h, i) : VS_NONE;

		if (v != VS_NONE && vs_alive(v))
			fd_adopt_socket(fd, v);
	}
}

void heirs_claimed(const struct handover *h)
{
	for (uint32_t i = 0; i < h->socks; i++) {
		vsock_t v = handover_sock_name(h, i);

		if (v != VS_NONE && fd_of_socket(v) < 0)
			handover_unclaimed(v);
	}
}

/* Which of our descriptors are sockets that were handed over, whatever became of their numbers? */
static void claim_all(const struct handover *h)
{
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *d;

	while (dir && (d = readdir(dir)))
		if (d->d_name[0] != '.' && !host_fd_is_ours(atoi(d->d_name)))
			heirs_claim(h, atoi(d->d_name));
	if (dir)
		closedir(dir);
	heirs_claimed(h);
}

void heirs_inherit(void)
{
	const char *text = getenv(VARIABLE);
	struct handover *h;
	int memfd;

	if (!text)
		return;
	memfd = atoi(text);
	unsetenv(VARIABLE);
	h = heirs_read(memfd);
	if (!h)
		return;
	real.close(memfd);
	if (handover_adopt(h) == 0)
		claim_all(h);
	handover_free(h, -1);
}
