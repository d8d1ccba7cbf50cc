/* SPDX-License-Identifier: BSD-2-Clause */
/* See orphan.h: viaductd's side. */
#include "daemon/orphan.h"
#include "daemon/rings.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define FDS_MAX (ORPHAN_FD_VNICS + TENANT_VNICS * (1 + DAEMON_QUEUES_MAX))
#define FDS_ASIDE 1000   /* where they wait to be put into their order */
#define WAITING_MAX 8    /* orphans that only wait */
#define WORDS_AT_ONCE 64 /* then others have their turn */
#define END_MS 100       /* a child that is killed closes its sockets within */

/* --- starting it --- */

/* One that was never bound has no connections. */
static bool is_used(const struct tenant_vnic *v)
{
	return v->ifindex && v->port.bound;
}

static int make_estate(const struct tenant *t)
{
	struct orphan_estate estate = {.magic = ORPHAN_MAGIC};
	int fd;

	for (uint32_t i = 0; i < TENANT_VNICS; i++)
		if (is_used(&t->vnic[i]))
			estate.vnic[estate.vnics++] = t->vnic[i].about;
	if (!estate.vnics)
		return -ENOENT;
	fd = memfd_create("viaduct:estate", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (pwrite(fd, &estate, sizeof(estate), 0) != (ssize_t)sizeof(estate)) {
		close(fd);
		return -EIO;
	}
	return fd;
}

/* A name under which nobody has been found before. */
static int make_name(void)
{
	static uint32_t turn;
	static uint64_t mine;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), n;

	if (fd < 0)
		return -errno;
	if (!mine && getrandom(&mine, sizeof(mine), 0) != (ssize_t)sizeof(mine))
		mine = (uint64_t)getpid();
	n = snprintf(sa.sun_path + 1, sizeof(sa.sun_path) - 1, ORPHAN_NAME "%016llx.%u", (unsigned long long)mine,
		     turn++);
	if (!bind(fd, (struct sockaddr *)&sa, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)))
		return fd;
	n = -errno;
	close(fd);
	return n;
}

/* The child's descriptors, in order from ORPHAN_FD_ESTATE on. Returns their number. */
static uint32_t list_fds(const struct tenant *t, int estate, int words, int listener, int *fds)
{
	uint32_t n = 0;

	fds[n++] = estate;
	fds[n++] = t->memory;
	fds[n++] = mirror_view_fd(t->house->mirror);
	fds[n++] = words;
	fds[n++] = listener;
	fds[n++] = steer_keep(t->house->steer);
	for (uint32_t i = 0; i < TENANT_VNICS; i++) {
		if (!is_used(&t->vnic[i]))
			continue;
		fds[n++] = t->vnic[i].port.umem;
		for (uint32_t q = 0; q < t->vnic[i].about.queues; q++)
			fds[n++] = t->vnic[i].port.xsk[q];
	}
	return n;
}

static int drop_all_capabilities(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {0};

	/* without new privileges the file's and root's own come not back */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_capset, &head, none))
		return -errno;
	return 0;
}

static void forget_others(const struct tenant *t)
{
	for (uint32_t i = 0; i < STEER_STACKS; i++) {
		const struct tenant *other = t->house->tenant[i];

		for (uint32_t v = 0; other && other != t && v < TENANT_VNICS; v++)
			if (other->vnic[v].ifindex)
				rings_forget(other->vnic[v].rings, other->vnic[v].about.queues);
	}
}

/* Before Linux 6.4: it can have the rings only from us, who have mapped them (rings.h), and so no fresh execution. */
static _Noreturn void go_on(const struct tenant *t)
{
	const struct xdp_port *rings[TENANT_VNICS];
	uint32_t n = 0;

	forget_others(t);
	for (uint32_t i = 0; i < TENANT_VNICS; i++)
		if (is_used(&t->vnic[i]))
			rings[n++] = t->vnic[i].rings;
	_exit(orphan_main(rings));
}

/* In the child: system calls only, for the daemon has other threads. */
static _Noreturn void become_orphan(const struct tenant *t, const int *fds, uint32_t n)
{
	static char name[] = "viaductd", argument[] = ORPHAN_ARGUMENT;
	char *argv[] = {name, argument, NULL}, *envp[] = {NULL};
	int aside[FDS_MAX];
	sigset_t nothing;
	int null = open("/dev/null", O_RDWR);

	sigemptyset(&nothing);
	sigprocmask(SIG_SETMASK, &nothing, NULL);
	/* whoever waits for the end of what viaductd says is not to wait for us */
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
#ifndef __SANITIZE_ADDRESS__
	dup2(null, STDERR_FILENO);
#endif
	for (uint32_t i = 0; i < n; i++)
		aside[i] = fcntl(fds[i], F_DUPFD, FDS_ASIDE);
	for (uint32_t i = 0; i < n; i++)
		if (aside[i] < 0 || dup2(aside[i], ORPHAN_FD_ESTATE + (int)i) < 0)
			_exit(1);
	syscall(SYS_close_range, ORPHAN_FD_ESTATE + n, ~0u, 0);
	if (drop_all_capabilities())
		_exit(1);
	if (!t->house->kernel.maps_bound)
		go_on(t);
	execve("/proc/self/exe", argv, envp);
	_exit(1);
}

static int start(struct tenant *t, int estate, int words, int listener)
{
	int fds[FDS_MAX];
	uint32_t n = list_fds(t, estate, words, listener, fds);
	pid_t pid;

	pid = fork();
	if (pid == 0)
		become_orphan(t, fds, n);
	if (pid < 0)
		return -errno;
	t->orphan_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (t->orphan_fd < 0) {
		int err = -errno;

		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return err;
	}
	t->orphan = pid;
	return 0;
}

int orphan_adopt(struct tenant *t)
{
	int estate = make_estate(t), words[2], listener, rc;

	if (estate < 0)
		return estate;
	listener = make_name();
	rc = listener < 0 ? listener : pipe2(words, O_CLOEXEC | O_NONBLOCK) ? -errno : 0;
	if (!rc) {
		rc = start(t, estate, words[1], listener);
		close(words[1]);
		if (rc)
			close(words[0]);
		else
			t->orphan_words = words[0];
	}
	if (listener >= 0)
		close(listener);
	close(estate);
	return rc;
}

static bool has_ended(const struct tenant *t, int timeout_ms)
{
	struct pollfd p = {.fd = t->orphan_fd, .events = POLLIN};

	return poll(&p, 1, timeout_ms) == 1;
}

bool orphan_is_over(const struct tenant *t)
{
	return has_ended(t, 0);
}

/* One that an earlier viaductd has started is not ours to wait for: init does. */
void orphan_end(struct tenant *t)
{
	if (!t->orphan)
		return;
	syscall(SYS_pidfd_send_signal, t->orphan_fd, SIGKILL, NULL, 0);
	has_ended(t, END_MS);
	while (waitpid(t->orphan, NULL, 0) < 0 && errno == EINTR)
		;
	close(t->orphan_fd);
	if (t->orphan_words >= 0)
		close(t->orphan_words);
	t->orphan = 0;
	t->orphan_waits = 0;
}

/* Has it the device's own queues? Those behind veths of their own are in nobody's way. */
static bool has_queues(const struct tenant *t, uint32_t device)
{
	for (uint32_t v = 0; v < TENANT_VNICS; v++)
		if (t->vnic[v].ifindex && t->vnic[v].where.ifindex == device &&
		    t->vnic[v].about.mode == DAEMON_MODE_DIRECT)
			return true;
	return false;
}

bool orphan_make_room(struct house *h, uint32_t device)
{
	for (uint32_t i = 0; i < STEER_STACKS; i++) {
		struct tenant *t = h->tenant[i];

		if (t && t->orphan_waits && has_queues(t, device)) {
			tenant_free(t);
			return true;
		}
	}
	return false;
}

/* t only waits from now on. Each costs its buffers and its ports, so when there are too many the first gives way: its
 * peers have got everything, and should one of them repeat its FIN, the kernel answers. */
static void wait_on(struct tenant *t)
{
	static uint64_t turn;
	struct tenant *first = NULL;
	uint32_t waiting = 0;

	if (t->orphan_waits)
		return;
	t->orphan_waits = ++turn;
	for (uint32_t i = 0; i < STEER_STACKS; i++) {
		struct tenant *other = t->house->tenant[i];

		if (!other || !other->orphan_waits)
			continue;
		waiting++;
		if (!first || other->orphan_waits < first->orphan_waits)
			first = other;
	}
	if (waiting > WAITING_MAX)
		tenant_free(first);
}

/* --- its words --- */

/* Filters for whole ports would keep the next program from them; what goes on has its own by now. */
static void drop_ports(struct tenant *t)
{
	for (uint32_t id = 1; id <= t->filter_high; id++)
		if (t->filter[id - 1].keys && !t->filter[id - 1].key[0].remote_port)
			tenant_filter_del(t, id);
}

static void obey(struct tenant *t, const struct orphan_word *w)
{
	const char *why;

	switch ((enum orphan_word_type)w->type) {
	case ORPHAN_FLOW:
		/* no socket is shown: it must be of a port that the dead had */
		if (!w->flow.remote_port || w->flow.flags & DAEMON_FILTER_SHARED)
			break;
		if (t->memory < 0 || tenant_filter_add(t, &w->flow, -1, &why) < 0)
			tenant_filter_inherit(t, &w->flow);
		break;
	case ORPHAN_READY:
		drop_ports(t);
		/* what an earlier viaductd had for it and it did not name */
		if (t->number == TENANT_NO_NUMBER)
			break;
		filters_sweep(t->house->filters, t->number);
		steer_table_clear(t->house->steer, t->number);
		break;
	case ORPHAN_RESOLVE:
		mirror_resolve(t->house->mirror, w->ifindex, w->addr);
		break;
	case ORPHAN_WAITS:
		wait_on(t);
		break;
	}
}

void orphan_hear(struct tenant *t)
{
	struct orphan_word w;

	for (int i = 0; i < WORDS_AT_ONCE; i++) {
		ssize_t n = read(t->orphan_words, &w, sizeof(w));

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n != (ssize_t)sizeof(w)) { /* closed, or nonsense: its end is told by the pidfd */
			close(t->orphan_words);
			t->orphan_words = -1;
			return;
		}
		obey(t, &w);
	}
}
