/* SPDX-License-Identifier: BSD-2-Clause */
/* See view.h. */
#define _GNU_SOURCE
#include "cli/view.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/host.h"

#define SOCKS_PER_READ 64u
#define MEMFD_LINK "/memfd:" STACK_MEMFD_NAME " (deleted)"

/* --- finding --- */

static bool known(const struct views *v, uint64_t inode)
{
	for (unsigned i = 0; i < v->count; i++)
		if (v->list[i].inode == inode)
			return true;
	return false;
}

/* Takes fd over. */
static void add_view(struct views *v, int fd)
{
	struct stat st;
	struct stack *s = NULL;
	struct view *more = NULL;
	if (fstat(fd, &st) < 0 || known(v, st.st_ino)) {
		close(fd);
		return;
	}
	s = aligned_alloc(_Alignof(struct stack), sizeof(*s));
	bool good = s && pread(fd, s, sizeof(*s), 0) == (ssize_t)sizeof(*s) && st.st_size > 0 &&
		    stack_check(s, (size_t)st.st_size) == 0;
	if (good)
		more = reallocarray(v->list, v->count + 1, sizeof(*more));
	if (!more) {
		v->foreign += s && !good;
		free(s);
		close(fd);
		return;
	}
	uint32_t socks = s->sock_pool.mark < s->cfg.max_socks ? s->sock_pool.mark : s->cfg.max_socks;
	v->list = more;
	v->list[v->count++] = (struct view){.s = s, .fd = fd, .inode = st.st_ino, .socks = socks};
}

int views_of_process(struct views *v, pid_t pid)
{
	char path[40], link[64];
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	DIR *d = opendir(path);
	if (!d)
		return -errno;
	for (struct dirent *e; (e = readdir(d));) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof(link));
		if (n != (ssize_t)strlen(MEMFD_LINK) || memcmp(link, MEMFD_LINK, (size_t)n))
			continue;
		int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0)
			add_view(v, fd);
	}
	closedir(d);
	return 0;
}

void views_of_all(struct views *v)
{
	DIR *d = opendir("/proc");
	if (!d)
		return;
	for (struct dirent *e; (e = readdir(d));) {
		int pid = atoi(e->d_name);
		if (pid > 0 && views_of_process(v, pid) == -EACCES)
			v->denied++;
	}
	closedir(d);
}

void views_free(struct views *v)
{
	for (unsigned i = 0; i < v->count; i++) {
		close(v->list[i].fd);
		free(v->list[i].s);
	}
	free(v->list);
	*v = (struct views){0};
}

/* --- reading --- */

static bool read_part(const struct view *w, void *out, size_t len, uint64_t off)
{
	return pread(w->fd, out, len, (off_t)off) == (ssize_t)len;
}

static bool in_use(const struct sock *k)
{
	return k->proto == SOCK_TCP || k->proto == SOCK_UDP;
}

void view_each_sock(const struct view *w, void (*each)(void *arg, uint32_t index, const struct sock *k), void *arg)
{
	struct sock *batch = aligned_alloc(_Alignof(struct sock), SOCKS_PER_READ * sizeof(*batch));
	if (!batch)
		return;
	for (uint32_t i = 1; i < w->socks; i += SOCKS_PER_READ) {
		uint32_t n = w->socks - i < SOCKS_PER_READ ? w->socks - i : SOCKS_PER_READ;
		if (!read_part(w, batch, n * sizeof(*batch), w->s->off_socks + (uint64_t)i * sizeof(*batch)))
			break;
		for (uint32_t j = 0; j < n; j++)
			if (in_use(&batch[j]))
				each(arg, i + j, &batch[j]);
	}
	free(batch);
}

bool view_sock(const struct view *w, uint32_t index, struct sock *out)
{
	return index && index < w->socks &&
	       read_part(w, out, sizeof(*out), w->s->off_socks + (uint64_t)index * sizeof(*out)) && in_use(out);
}

bool view_vnic(const struct view *w, uint32_t index, struct vnic_state *out)
{
	return index < VNIC_MAX && read_part(w, out, sizeof(*out), w->s->off_vnics + (uint64_t)index * sizeof(*out)) &&
	       out->provider != VNIC_PROV_NONE;
}

/* Exists and is no zombie. */
static bool lives(uint32_t pid)
{
	char path[40], text[256];
	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = 0;
	const char *name_end = strrchr(text, ')');
	return name_end && name_end[1] && name_end[2] != 'Z' && name_end[2] != 'X';
}

bool view_orphan(const struct view *w)
{
	for (unsigned i = 0; i < PROC_MAX; i++)
		if (w->s->proc[i].pid && lives(w->s->proc[i].pid))
			return false;
	return true;
}

struct stack_fdinfo view_fdinfo(const struct view *w, int fd)
{
	struct stack_fdinfo info = {0};
	if (fd < 0 || (uint32_t)fd >= w->s->cfg.max_fdinfo ||
	    !read_part(w, &info, sizeof(info), w->s->off_fdinfo + (uint64_t)fd * sizeof(info)))
		return (struct stack_fdinfo){0};
	return info;
}

/* --- /proc --- */

void proc_name(pid_t pid, char out[32])
{
	char path[40], name[32];
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, name, sizeof(name) - 1);
	if (fd >= 0)
		close(fd);
	while (n > 0 && name[n - 1] == '\n')
		n--;
	safe_text(n > 0 ? name : "?", n > 0 ? (size_t)n : 1, out, 32);
}

bool proc_exists(pid_t pid)
{
	char path[40];
	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	return access(path, F_OK) == 0;
}

/* --- text --- */

void endpoint_text(const struct endpoint *ep, char *out, size_t len)
{
	static const uint8_t zero[16];
	char text[INET6_ADDRSTRLEN];
	bool v4 = IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)ep->addr);
	if (!memcmp(ep->addr + (v4 ? 12 : 0), zero, v4 ? 4 : 16)) {
		snprintf(out, len, ep->port ? "*:%u" : "-", ep->port);
		return;
	}
	inet_ntop(v4 ? AF_INET : AF_INET6, ep->addr + (v4 ? 12 : 0), text, sizeof(text));
	snprintf(out, len, v4 ? "%s:%u" : "[%s]:%u", text, ep->port);
}

const char *state_text(const struct sock *k)
{
	if (k->proto != SOCK_TCP)
		return "-";
	return k->tcp.state && k->tcp.state < TCP_STATES ? tcp_state_name[k->tcp.state] : "?";
}

const char *provider_text(unsigned provider)
{
	switch (provider) {
	case VNIC_PROV_LOCAL:
		return "local";
	case VNIC_PROV_XDP:
		return "xdp";
	case VNIC_PROV_CHARDEV:
		return "chardev";
	case VNIC_PROV_VERBS:
		return "verbs";
	case VNIC_PROV_SIM:
		return "sim";
	default:
		return "?";
	}
}

/* Interfaces have names in the network namespace that the process is in. */
static bool same_network(uint32_t pid)
{
	char path[40];
	struct stat ours, its;
	snprintf(path, sizeof(path), "/proc/%u/ns/net", pid);
	return stat("/proc/self/ns/net", &ours) == 0 && stat(path, &its) == 0 && ours.st_ino == its.st_ino;
}

void vnic_text(const struct view *w, const struct vnic_state *v, char *out, size_t len)
{
	char name[32];
	if (!vnic_is_network(v)) {
		proc_name((pid_t)v->peer_pid, name);
		snprintf(out, len, "%s (%u)", name, v->peer_pid);
		return;
	}
	if (!same_network(w->s->creator_pid) || !if_indextoname(v->ifindex, name))
		snprintf(name, sizeof(name), "number %u", v->ifindex);
	if (v->provider == VNIC_PROV_XDP)
		snprintf(out, len, "interface %s, queue %u", name, v->queue);
	else
		snprintf(out, len, "interface %s", name);
}

void safe_text(const char *from, size_t from_len, char *out, size_t len)
{
	size_t i = 0;
	for (; i < from_len && i + 1 < len && from[i]; i++)
		out[i] = from[i] >= ' ' && from[i] < 127 ? from[i] : '?';
	out[i] = 0;
}
