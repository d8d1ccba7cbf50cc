/* SPDX-License-Identifier: BSD-2-Clause */
/* viaduct check: the kernel, the user and what may be started, limits, and the file of rules. See check.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cli/check.h"
#include "cli/cli.h"
#include "host/knobs.h"
#include "host/rules.h"

#define KERNEL(major, minor) ((major) << 8 | (minor))
#define KERNEL_LEAST KERNEL(5, 18)  /* XDP programs for frames of several buffers */
#define KERNEL_SHARED KERNEL(6, 4)  /* rings of an AF_XDP socket that another process has bound can be mapped */
#define KERNEL_SCATTER KERNEL(6, 6) /* XDP_USE_SG */

#define NOFILE_WANTED 1024u
#define UMEM_BYTES (16u << 20) /* of one queue: 4096 chunks of 4 KiB */

#ifndef CAP_BPF
#define CAP_BPF 39
#endif

bool check_cap(const struct check *c, int cap)
{
	return c->caps >> cap & 1;
}

/* --- the kernel --- */

static void check_socket(struct check *c)
{
	int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		close(fd);
	if (fd < 0 && errno == EAFNOSUPPORT)
		check_add(c, LEVEL_LACK, "boot a kernel built with CONFIG_XDP_SOCKETS=y", "it has no AF_XDP sockets");
	else
		check_add(c, LEVEL_OK, NULL, "it has AF_XDP sockets");
}

void check_kernel(struct check *c)
{
	struct utsname u;
	unsigned major = 0, minor = 0;
	c->section = "kernel";
	uname(&u);
	sscanf(u.release, "%u.%u", &major, &minor);
	c->version = KERNEL(major, minor);
	if (c->version >= KERNEL_LEAST)
		check_add(c, LEVEL_OK, NULL, "Linux %.60s", u.release);
	else
		check_add(c, LEVEL_LACK, "boot Linux 5.18 or newer; 6.6 or newer is better",
			  "Linux %.60s does not take viaductd's XDP programs", u.release);
	if (c->version >= KERNEL_LEAST && c->version < KERNEL_SHARED)
		check_add(c, LEVEL_NOTE, "boot Linux 6.4 or newer",
			  "connections of a program that ends after viaductd was restarted are reset, not finished");
	check_socket(c);
	if (access("/sys/kernel/btf/vmlinux", R_OK) == 0)
		check_add(c, LEVEL_OK, NULL, "it describes its types (BTF)");
	else
		check_add(
		    c, LEVEL_NOTE, "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y",
		    "it does not describe its types (BTF): sharing an interface with other XDP programs may fail");
	if (c->version >= KERNEL_SCATTER)
		check_add(c, LEVEL_OK, NULL, "frames may span several buffers (XDP_USE_SG): any MTU will do");
	else
		check_add(
		    c, LEVEL_NOTE, "boot Linux 6.6 or newer",
		    "frames can't span several buffers (XDP_USE_SG): interfaces with an MTU above 3498 are left out");
}

/* --- the user --- */

/* viaductd lies beside this very program. */
static bool find_viaductd(char path[PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - sizeof("viaductd"));
	if (n < 0)
		return false;
	path[n] = 0;
	char *slash = strrchr(path, '/');
	memcpy(slash + 1, "viaductd", sizeof("viaductd"));
	return access(path, X_OK) == 0;
}

static void read_caps(struct check *c)
{
	char line[256];
	FILE *f = fopen("/proc/self/status", "re");
	while (f && fgets(line, sizeof(line), f)) {
		unsigned long long caps;
		if (sscanf(line, "CapEff: %llx", &caps) == 1)
			c->caps = caps;
	}
	if (f)
		fclose(f);
}

void check_user(struct check *c)
{
	static const struct {
		int cap;
		const char *name;
	} needed[] = {{CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {CAP_NET_RAW, "CAP_NET_RAW"}, {CAP_BPF, "CAP_BPF"}};
	char path[PATH_MAX], lacking[64] = "";
	const struct passwd *p = getpwuid(geteuid());
	bool installed = find_viaductd(path);
	c->section = "you";
	read_caps(c);
	for (unsigned i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (!check_cap(c, needed[i].cap) && !check_cap(c, CAP_SYS_ADMIN))
			snprintf(lacking + strlen(lacking), sizeof(lacking) - strlen(lacking), "%s%s",
				 *lacking ? ", " : "", needed[i].name);
	c->may_start = installed && !*lacking;
	if (!installed)
		check_add(c, LEVEL_NOTE, "install viaductd beside viaduct", "there is no viaductd beside this program");
	if (!*lacking)
		check_add(c, LEVEL_OK, NULL, "%s (%u) has the rights that viaductd needs%s", p ? p->pw_name : "user",
			  (unsigned)geteuid(), c->may_start ? ": \"viaduct run\" starts it where none runs" : "");
	else
		check_add(c, LEVEL_OK, NULL, "%s (%u) can't start viaductd (that takes %s), and need not if it runs",
			  p ? p->pw_name : "user", (unsigned)geteuid(), lacking);
}

/* --- limits --- */

/* Of a process, from /proc/PID/limits: soft limit in bytes. */
static bool memlock_of(unsigned pid, unsigned long long *out)
{
	char path[40], line[256], word[32];
	bool found = false;
	snprintf(path, sizeof(path), "/proc/%u/limits", pid);
	FILE *f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f)) {
		found = sscanf(line, "Max locked memory %31s", word) == 1;
		*out = found && strcmp(word, "unlimited") ? strtoull(word, NULL, 10) : ULLONG_MAX;
	}
	if (f)
		fclose(f);
	return found;
}

static void check_memlock(struct check *c)
{
	unsigned long long bytes;
	unsigned pid = c->daemon ? c->status.pid : (unsigned)getpid();
	if (!c->daemon && (!c->may_start || check_cap(c, CAP_IPC_LOCK)))
		return;
	if (!memlock_of(pid, &bytes) || (c->daemon && c->status.uid == 0))
		return;
	if (bytes >= UMEM_BYTES)
		check_add(c, LEVEL_OK, NULL, "viaductd may lock enough memory for a stack's buffers (memlock)");
	else
		check_add(c, LEVEL_LACK,
			  c->daemon ? "restart viaductd with LimitMEMLOCK=infinity" : "ulimit -l unlimited",
			  "viaductd may lock %llu KiB of memory (memlock), and a stack's buffers take %u KiB a queue",
			  bytes >> 10, UMEM_BYTES >> 10);
}

void check_limits(struct check *c)
{
	struct rlimit files;
	c->section = "limits";
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		if (files.rlim_cur >= NOFILE_WANTED)
			check_add(c, LEVEL_OK, NULL, "a program may have %llu descriptors (nofile)",
				  (unsigned long long)files.rlim_cur);
		else
			check_add(c, LEVEL_NOTE, "ulimit -n 65536",
				  "a program may have %llu descriptors (nofile); viaduct takes a few dozen of them",
				  (unsigned long long)files.rlim_cur);
	}
	check_memlock(c);
}

/* --- rules --- */

struct rules_file {
	struct check *check;
	const char *path;
	size_t len;
	enum level level;
	char text[RULES_TEXT_MAX];
};

static void add_error(void *arg, const struct rules_error *e)
{
	const struct rules_file *f = arg;
	char out[400];
	rules_explain(f->path, f->text, f->len, e, out, sizeof(out));
	check_add(f->check, f->level, NULL, "%s", out);
}

void check_rules(struct check *c, const char *path)
{
	static struct rules_file f;
	static struct rules r;
	const char *set = getenv("VIADUCT_RULES");
	bool asked = path || set;
	c->section = "rules";
	f.check = c;
	f.path = path ? path : set ? set : RULES_FILE_DEFAULT;
	int n = rules_read(f.path, f.text, sizeof(f.text));
	if (n == -ENOENT && !asked) {
		check_add(c, LEVEL_OK, NULL, "there is no %s; the built-in rule is \"kernel port=53\" (DNS)", f.path);
		return;
	}
	if (n < 0) {
		check_add(c, LEVEL_LACK, NULL, "can't read %s: %s; nothing would be accelerated", f.path, strerror(-n));
		return;
	}
	f.len = (size_t)n;
	f.level = LEVEL_LACK;
	if (rules_parse(&r, f.text, f.len, add_error, &f))
		return;
	check_add(c, LEVEL_OK, NULL, "%s: %u rule%s", f.path, r.count, r.count == 1 ? "" : "s");
	f.level = LEVEL_NOTE;
	rules_unreachable(&r, add_error, &f);
}
