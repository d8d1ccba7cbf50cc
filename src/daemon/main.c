/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viaductd: lets programs under viaduct use the interfaces of one network namespace. docs/design/network.md tells how;
 * include/viaduct/daemon.h is what they ask.
 *
 * Privileges that only the start needs (loading programs, limits) are dropped before the first request is read; what
 * stays is in privileges.c. The listening socket is made here, or comes from systemd (sd_listen_fds(3)).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/closer.h"
#include "daemon/orphan.h"
#include "daemon/privileges.h"
#include "daemon/server.h"
#include "daemon/veth.h"

static int say(int rc, const char *what)
{
	fprintf(stderr, "viaductd: %s: %s\n", what, strerror(-rc));
	return rc;
}

/* From systemd: descriptor 3. -1: none. */
static int inherited_listener(void)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	int type = 0, listens = 0;
	socklen_t len = sizeof(int);

	if (!pid || !count || strtol(pid, NULL, 10) != (long)getpid() || strtol(count, NULL, 10) != 1)
		return -1;
	if (getsockopt(3, SOL_SOCKET, SO_TYPE, &type, &len) ||
	    getsockopt(3, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) || type != SOCK_SEQPACKET || !listens)
		return -1;
	return fcntl(3, F_SETFD, FD_CLOEXEC) || fcntl(3, F_SETFL, O_NONBLOCK) ? -1 : 3;
}

static int make_listener(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(DAEMON_NAME));
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	memcpy(sa.sun_path + 1, DAEMON_NAME, strlen(DAEMON_NAME));
	if (fd >= 0 && !bind(fd, (struct sockaddr *)&sa, len))
		return fd;
	int rc = -errno;

	if (fd >= 0)
		close(fd);
	return rc;
}

static int stop_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static bool allowed(const char *name, uint32_t ifindex, void *house)
{
	(void)ifindex;
	return !veth_is_ours(name) && policy_interface(&((struct house *)house)->policy, name);
}

static int look_at_kernel(void *house)
{
	((struct house *)house)->kernel = port_kernel();
	return 0;
}

static int house_open(struct house *h)
{
	const char *why;
	int rc;

	h->sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (h->sock < 0)
		return say(-errno, "no sockets");
	h->netns = socket_netns(h->sock);
	h->descriptors = privileges_descriptors();
	rc = steer_start(&h->steer, h->policy.share, h->policy.native, &why);
	if (rc)
		return say(rc, why);
	rc = cellar_start(&h->cellar);
	if (rc)
		return say(
		    rc,
		    "no network namespace for the processes' own interfaces (CAP_SYS_ADMIN is needed at the start)");
	cellar_call(h->cellar, look_at_kernel, h);
	h->filters = filters_new(h->steer);
	h->groups = h->filters ? groups_new(h->filters) : NULL;
	rc = h->groups ? house_adopt(h) : -ENOMEM;
	if (rc)
		return say(rc, "the filters of an earlier viaductd can't be read");
	rc = mirror_start(&h->mirror);
	if (rc)
		return say(rc, "the kernel does not tell its routes");
	mirror_allow(h->mirror, allowed, h);
	mirror_run(h->mirror);
	return 0;
}

static int drop(void *house)
{
	return privileges_drop(((struct house *)house)->policy.share);
}

/* The name comes first, so that a second viaductd ends at once; who connects is refused until all is there, and comes
 * again: to wait would look as if we hung. */
static int run(struct house *h)
{
	int stop, rc, listener = inherited_listener();
	struct server *server;

	if (listener < 0)
		listener = make_listener();
	if (listener < 0)
		return say(listener, listener == -EADDRINUSE ? "one is running in this network namespace"
							     : "can't listen for programs");
	privileges_start();
	rc = house_open(h);
	if (rc)
		return rc;
	/* each thread has its own */
	rc = cellar_call(h->cellar, drop, h);
	if (!rc)
		rc = drop(h);
	if (rc)
		return say(rc, "privileges can't be dropped");
	rc = closer_start();
	if (rc)
		return say(rc, "no threads");
	stop = stop_signals();
	rc = server_start(&server, h, listener);
	if (!rc)
		rc = listen(listener, 128) ? -errno : 0;
	if (rc)
		return say(rc, "can't serve");
	rc = server_run(server, stop);
	server_stop(server);
	return rc;
}

int main(int argc, char **argv)
{
	static struct house house;
	int rc;

	if (argc == 2 && !strcmp(argv[1], ORPHAN_ARGUMENT))
		return orphan_main(NULL);
	rc = policy_read(&house.policy, argc, argv);
	if (rc)
		return rc > 0 ? 0 : 2;
	return run(&house) ? 1 : 0;
}
