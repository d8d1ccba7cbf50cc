/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viaduct explain: every socket descriptor of a process, and who serves it.
 *
 * The backing socket's inode says which accelerated socket a descriptor is, in any of the stacks that the process has
 * open, whatever the number (dup, fork). For the others the stack's table of descriptors has the reason; it is
 * written by the stack's creator and holds for its children too, as far as they inherited the number. What no stack
 * knows was there before, or is of a family that viaduct leaves alone: /proc/PID/net tells which.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/view.h"
#include "host/host.h"
#include "socket/reason.h"

/* An accelerated socket by its inode. */
struct known {
	uint64_t inode;
	uint32_t index;
	const struct view *view;
};

enum net_kind { NET_UNKNOWN, NET_INET, NET_UNIX, NET_OURS };

/* A kernel socket of /proc/PID/net. */
struct net_socket {
	uint64_t inode;
	enum net_kind kind;
};

struct table {
	struct known *list;
	size_t count, room;
	const struct view *view; /* the one being read */
	struct net_socket *net;  /* read once, when the first is asked for: the kernel walks all it has for each file */
	size_t net_count, net_room;
	bool net_read;
};

static void remember(void *arg, uint32_t index, const struct sock *k)
{
	struct table *t = arg;
	if (!k->inode)
		return;
	if (t->count == t->room) {
		size_t room = t->room ? 2 * t->room : 256;
		struct known *more = reallocarray(t->list, room, sizeof(*more));
		if (!more)
			return;
		t->list = more;
		t->room = room;
	}
	t->list[t->count++] = (struct known){k->inode, index, t->view};
}

static int by_inode(const void *a, const void *b)
{
	const struct known *x = a, *y = b;
	return (x->inode > y->inode) - (x->inode < y->inode);
}

static const struct known *find_inode(const struct table *t, uint64_t inode)
{
	struct known key = {.inode = inode};
	return t->count ? bsearch(&key, t->list, t->count, sizeof(key), by_inode) : NULL;
}

/* --- what /proc/PID/net knows of a socket --- */

static void remember_net(struct table *t, uint64_t inode, enum net_kind kind)
{
	if (t->net_count == t->net_room) {
		size_t room = t->net_room ? 2 * t->net_room : 256;
		struct net_socket *more = reallocarray(t->net, room, sizeof(*more));
		if (!more)
			return;
		t->net = more;
		t->net_room = room;
	}
	t->net[t->net_count++] = (struct net_socket){inode, kind};
}

/* The inode is the field-th word of each line of /proc/PID/net/FILE; the last word of a Unix socket's is its name. */
static void read_net_file(struct table *t, pid_t pid, const char *file, int field, enum net_kind kind)
{
	char path[64], *line = NULL;
	size_t size = 0;
	snprintf(path, sizeof(path), "/proc/%d/net/%s", (int)pid, file);
	FILE *f = fopen(path, "re");
	while (f && getline(&line, &size, f) > 0) {
		char *save = NULL, *word = strtok_r(line, " \t\n", &save);
		for (int i = 0; word && i < field; i++)
			word = strtok_r(NULL, " \t\n", &save);
		uint64_t inode = word ? strtoull(word, NULL, 10) : 0;
		const char *name = word ? strtok_r(NULL, "\n", &save) : NULL;
		bool ours = kind == NET_UNIX && name && !strncmp(name, "@" RDV_PREFIX, 1 + strlen(RDV_PREFIX));
		if (inode)
			remember_net(t, inode, ours ? NET_OURS : kind);
	}
	free(line);
	if (f)
		fclose(f);
}

static int by_net_inode(const void *a, const void *b)
{
	const struct net_socket *x = a, *y = b;
	return (x->inode > y->inode) - (x->inode < y->inode);
}

static enum net_kind net_kind_of(struct table *t, pid_t pid, uint64_t inode)
{
	static const char *const inet[] = {"tcp", "tcp6", "udp", "udp6"};
	struct net_socket key = {.inode = inode};
	if (!t->net_read) {
		t->net_read = true;
		read_net_file(t, pid, "unix", 6, NET_UNIX);
		for (unsigned i = 0; i < sizeof(inet) / sizeof(inet[0]); i++)
			read_net_file(t, pid, inet[i], 9, NET_INET);
		if (t->net_count)
			qsort(t->net, t->net_count, sizeof(*t->net), by_net_inode);
	}
	const struct net_socket *found =
	    t->net_count ? bsearch(&key, t->net, t->net_count, sizeof(key), by_net_inode) : NULL;
	return found ? found->kind : NET_UNKNOWN;
}

/* --- one descriptor --- */

static bool has_network(const struct view *w)
{
	struct vnic_state v;
	for (uint32_t i = 0; i < VNIC_MAX; i++)
		if (view_vnic(w, i, &v) && vnic_is_network(&v))
			return true;
	return false;
}

static void print_accelerated(int fd, const struct view *w, uint32_t index)
{
	struct sock k;
	struct vnic_state v;
	char local[64], remote[64], end[64];
	if (!view_sock(w, index, &k)) {
		printf("fd %d: accelerated, and just being closed.\n", fd);
		return;
	}
	endpoint_text(&k.local, local, sizeof(local));
	endpoint_text(&k.remote, remote, sizeof(remote));
	printf("fd %d: %s %s", fd, k.proto == SOCK_TCP ? "tcp" : "udp", local);
	if (k.proto == SOCK_TCP && k.tcp.state == TCP_LISTEN) {
		printf(": accelerated. It listens; clients that run under viaduct come over shared memory, %sothers "
		       "through the kernel.\n",
		       has_network(w) ? "those on the network over the stack's vNICs, " : "");
		return;
	}
	if (k.remote.port)
		printf(" to %s", remote);
	if (k.proto == SOCK_UDP && k.flags & SOCKF_KERNEL_ROUTE) {
		printf(": the kernel's. %s\n", reason_sentence[REASON_OPTION]);
		return;
	}
	if (k.vnic < VNIC_MAX && view_vnic(w, k.vnic, &v)) {
		vnic_text(w, &v, end, sizeof(end));
		printf(": accelerated, over vNIC %u (%s) %s %s", k.vnic, provider_text(v.provider),
		       vnic_is_network(&v) ? "of" : "with", end);
	} else {
		fputs(": accelerated, not connected to a vNIC", stdout);
	}
	printf(k.proto == SOCK_TCP ? ", %s.\n" : ".\n", state_text(&k));
}

/* Which rule it was. */
static void rule_text(const struct stack *s, unsigned line, char where[192])
{
	char file[sizeof(s->rules) + 1];
	safe_text(s->rules, sizeof(s->rules), file, sizeof(file));
	snprintf(where, 192, " It is in %s%s, line %u.", *file ? "" : "the built-in rules", file, line);
}

/* The reason that a stack has for this descriptor, REASON_COUNT if none has one. Of the process's own stack first.
 * where: a second sentence, or "". */
static enum reason known_reason(const struct views *v, pid_t pid, int fd, char where[192])
{
	*where = 0;
	for (int own = 1; own >= 0; own--) {
		for (unsigned i = 0; i < v->count; i++) {
			struct stack_fdinfo info = view_fdinfo(&v->list[i], fd);
			if ((v->list[i].s->creator_pid == (uint32_t)pid) != own)
				continue;
			if (info.kind != FD_KERNEL_SOCKET || info.reason >= REASON_COUNT || info.reason == REASON_NONE)
				continue;
			if (info.reason == REASON_RULE)
				rule_text(v->list[i].s, info.detail, where);
			return info.reason;
		}
	}
	return REASON_COUNT;
}

/* What was refused to an accelerated socket. */
static void print_refused(const struct views *v, pid_t pid, int fd)
{
	for (unsigned i = 0; i < v->count; i++) {
		struct stack_fdinfo info = view_fdinfo(&v->list[i], fd);
		if (v->list[i].s->creator_pid == (uint32_t)pid && info.kind == FD_ACCELERATED &&
		    info.reason == REASON_NOT_PASSED)
			printf("      %s\n", reason_sentence[info.reason]);
	}
}

/* Does the process hold the socket? A descriptor inherited from the stack's creator may have been closed there. */
static bool holds(const struct view *v, pid_t pid, uint32_t index)
{
	struct sock k;
	bool known = view_sock(v, index, &k);
	for (unsigned i = 0; known && i < PROC_MAX; i++)
		if (v->s->proc[i].pid == (uint32_t)pid && k.holders >> i & 1)
			return true;
	return false;
}

/* Where the table of descriptors says that it is accelerated although no socket has the inode: most connections. */
static const struct view *listed_as_accelerated(const struct views *v, pid_t pid, int fd, uint32_t *index)
{
	for (unsigned i = 0; i < v->count; i++) {
		struct stack_fdinfo info = view_fdinfo(&v->list[i], fd);
		for (unsigned j = 0; info.kind == FD_ACCELERATED && j < v->count; j++)
			if (stack_id_tag(v->list[j].s->id) == info.detail && holds(&v->list[j], pid, info.sock)) {
				*index = info.sock;
				return &v->list[j];
			}
	}
	return NULL;
}

/* A backing socket that is kept for another connection. */
static bool listed_as_own(const struct views *v, pid_t pid, int fd)
{
	for (unsigned i = 0; i < v->count; i++)
		if (v->list[i].s->creator_pid == (uint32_t)pid && view_fdinfo(&v->list[i], fd).kind == FD_OWN)
			return true;
	return false;
}

/* False: it is one of viaduct's own. */
static bool explain_fd(const struct views *v, struct table *t, pid_t pid, int fd, uint64_t inode)
{
	const struct known *k = find_inode(t, inode);
	char where[192];
	enum reason reason = known_reason(v, pid, fd, where);
	uint32_t index;
	if (listed_as_own(v, pid, fd))
		return false;
	if (k) {
		print_accelerated(fd, k->view, k->index);
		print_refused(v, pid, fd);
		return true;
	}
	if (reason != REASON_COUNT) {
		printf("fd %d: the kernel's. %s%s\n", fd, reason_sentence[reason], where);
		return true;
	}
	enum net_kind kind = net_kind_of(t, pid, inode);
	if (kind == NET_OURS)
		return false;
	const struct view *w = kind == NET_UNIX ? NULL : listed_as_accelerated(v, pid, fd, &index);
	if (w) {
		print_accelerated(fd, w, index);
		print_refused(v, pid, fd);
	} else
		printf("fd %d: the kernel's. %s\n", fd,
		       reason_sentence[kind == NET_INET ? REASON_INHERITED : REASON_FAMILY]);
	return true;
}

/* --- all descriptors, by number --- */

struct fd_inode {
	int fd;
	uint64_t inode;
};

static int by_fd(const void *a, const void *b)
{
	return ((const struct fd_inode *)a)->fd - ((const struct fd_inode *)b)->fd;
}

/* An io_uring works on the kernel's sockets: what a program does through one to an accelerated descriptor fails or
 * waits for ever. */
static void explain_rings(pid_t pid)
{
	char path[40];
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	DIR *d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));) {
		char link[64];
		ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);
		link[n > 0 ? n : 0] = 0;
		if (!strcmp(link, "anon_inode:[io_uring]"))
			printf(
			    "fd %s: an io_uring. It reaches files and the kernel's sockets, not accelerated ones: if "
			    "the program uses sockets through it, leave them to the kernel by a rule.\n",
			    e->d_name);
	}
	if (d)
		closedir(d);
}

static struct fd_inode *socket_fds(pid_t pid, size_t *count)
{
	char path[40];
	struct fd_inode *list = NULL;
	size_t room = 0;
	*count = 0;
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	DIR *d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));) {
		char link[64];
		unsigned long long inode;
		ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);
		link[n > 0 ? n : 0] = 0;
		if (sscanf(link, "socket:[%llu]", &inode) != 1)
			continue;
		if (*count == room) {
			room = room ? 2 * room : 256;
			struct fd_inode *more = reallocarray(list, room, sizeof(*more));
			if (!more)
				break;
			list = more;
		}
		list[(*count)++] = (struct fd_inode){atoi(e->d_name), inode};
	}
	if (d)
		closedir(d);
	if (list)
		qsort(list, *count, sizeof(*list), by_fd);
	return list;
}

static void explain_all(const struct views *v, pid_t pid)
{
	struct table t = {0};
	size_t count, shown = 0;
	for (unsigned i = 0; i < v->count; i++) {
		t.view = &v->list[i];
		view_each_sock(t.view, remember, &t);
	}
	if (t.count)
		qsort(t.list, t.count, sizeof(*t.list), by_inode);
	struct fd_inode *fds = socket_fds(pid, &count);
	for (size_t i = 0; i < count; i++)
		shown += explain_fd(v, &t, pid, fds[i].fd, fds[i].inode);
	if (!shown)
		puts("It has no sockets.");
	explain_rings(pid);
	free(fds);
	free(t.list);
	free(t.net);
}

int cmd_explain(int argc, char **argv)
{
	struct views v = {0};
	char name[32];
	int c;
	while ((c = command_option(CMD_explain, argc, argv, 0)) >= 0)
		return c == 'h' ? cmd_help(2, (char *[]){"help", "explain"}) : cli_usage("explain");
	int pid = optind + 1 == argc ? cli_pid(argv[optind]) : -1;
	if (pid < 0) {
		cli_error(EXIT_USAGE, "explain takes one process id");
		return cli_usage("explain");
	}
	if (!proc_exists(pid))
		return cli_error(EXIT_FAILED, "there is no process %d", pid);
	proc_name(pid, name);
	int rc = views_of_process(&v, pid), loaded = proc_accelerated(pid);
	if (rc < 0 || (!v.count && loaded < 0))
		rc = cli_error(EXIT_FAILED, "you may not look into process %d (%s); try as its user or as root", pid,
			       name);
	else if (v.foreign && !v.count)
		rc = cli_error(EXIT_FAILED,
			       "process %d (%s) runs under another version of viaduct; use that version's "
			       "viaduct explain",
			       pid, name);
	else if (!v.count && !loaded)
		rc = cli_error(EXIT_FAILED,
			       "process %d (%s) does not run under viaduct, so the kernel serves all its sockets; "
			       "start it with: viaduct run %s ...",
			       pid, name, name);
	else
		explain_all(&v, pid);
	views_free(&v);
	return rc;
}
