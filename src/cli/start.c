/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Before a program runs: start viaductd for the network, where it is missing and may be started. One per network
 * namespace; started so, it leaves when nobody has used it for a while (its option --transient).
 *
 * Only root has what it needs. Without it nothing fails: the kernel serves what goes to other machines, and
 * `viaduct explain` says why.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/start.h"
#include "host/knobs.h"
#include "host/viaductd.h"

#define READY_MS 3000 /* loading programs into the kernel takes a part of a second */
#define STEP_MS 5

/* Is there anything but the loopback interface? */
static bool has_network(void)
{
	struct ifaddrs *all;
	bool found = false;

	if (getifaddrs(&all) < 0)
		return false;
	for (const struct ifaddrs *i = all; i; i = i->ifa_next)
		found |= (i->ifa_flags & IFF_UP) && !(i->ifa_flags & IFF_LOOPBACK);
	freeifaddrs(all);
	return found;
}

static bool answers(void)
{
	int fd = viaductd_connect();

	if (fd >= 0)
		close(fd);
	return fd != -ENOENT; /* whoever has the name: a second one could not start */
}

bool start_find_viaductd(char path[PATH_MAX])
{
	static const char *const places[] = {"", "../sbin/", "../libexec/viaduct/", "../libexec/"};
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return false;
	self[n] = 0;
	*strrchr(self, '/') = 0;
	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		char place[PATH_MAX];

		if (snprintf(place, sizeof(place), "%s/%sviaductd", self, places[i]) < PATH_MAX &&
		    access(place, X_OK) == 0) {
			memcpy(path, place, sizeof(place));
			return true;
		}
	}
	return false;
}

/* A child of nobody's, with none of our descriptors, directory or terminal. */
static void become_daemon(const char *path)
{
	int null = open("/dev/null", O_RDWR);

	if (setsid() < 0 || fork() != 0 || null < 0 || chdir("/") < 0)
		_exit(0);
	for (int i = 0; i < 3; i++)
		dup2(null, i);
	closefrom(3);
	clearenv();
	execl(path, path, "--transient", (char *)NULL);
	_exit(1);
}

void start_viaductd(void)
{
	char path[PATH_MAX];
	pid_t child;

	if (knob[K_NETWORK] == NETWORK_OFF || !knob[K_ENABLE] || geteuid() != 0 || !has_network() || answers() ||
	    !start_find_viaductd(path))
		return;
	child = fork();
	if (child == 0)
		become_daemon(path);
	if (child > 0)
		waitpid(child, NULL, 0);
	for (int waited = 0; waited < READY_MS && !answers(); waited += STEP_MS)
		usleep(STEP_MS * 1000);
}
