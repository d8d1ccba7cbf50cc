/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rendezvous: how two processes that talk to each other over a local address find out that both run here, and
 * get memory that only the two share (the wire).
 *
 * A listening socket also listens on an abstract Unix socket named after its address (unix(7)): such names belong
 * to a network namespace, as the address does, and die with their owner. Anybody can take a name, so before the
 * connecting side says anything it asks the kernel who owns the TCP or UDP port (diag.c) and who made the Unix
 * listener (SO_PEERCRED, which for a listener holds whoever called listen()). If /proc shows that this process holds
 * the very socket that the kernel would deliver to, all is well, also when it has given up its rights since. Else it
 * must be the same user, and where /proc lets us look, an ancestor or a child must hold that socket, or the process
 * another one of that port (SO_REUSEPORT: the kernel names one of several). Both sides then apply the knob PEERS: same
 * user, or root on either side.
 *
 * Both sides say which stack they are (a random number) and look whether they have a live wire to each other's: same
 * stack, pid and user. Only if not, the connecting side makes one and is its end 0. All waiting is bounded by
 * timeout_ms; no failure leaves a descriptor open. handshake.c has the messages and the checks of what comes in.
 *
 * Doorbells are eventfds, and a write to one blocks when whoever shares it has filled it and cleared O_NONBLOCK: that
 * belongs to the open file, so each holder can. They are shared only with users who are trusted anyway (the same, and
 * root). All others are rung by a byte on the wire's connection: that send has MSG_DONTWAIT, which nobody can take
 * back.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/bytes.h"
#include "host/handshake.h"

#define BACKLOG 128
#define RETRY_MS 1      /* while the other side's backlog is full */
#define ANCESTORS_MAX 4 /* whose descriptors may stand for a process's own */

/* --- names --- */

static bool wants_v6(int family)
{
	return family == 6 || family == AF_INET6;
}

static void address_text(const uint8_t addr[16], char out[INET6_ADDRSTRLEN])
{
	if (is_v4(addr))
		inet_ntop(AF_INET, addr + 12, out, INET6_ADDRSTRLEN);
	else
		inet_ntop(AF_INET6, addr, out, INET6_ADDRSTRLEN);
}

/* Abstract: a zero byte, then the name without one at its end. */
static socklen_t set_name(struct sockaddr_un *un, const char *name)
{
	size_t len = strlen(name);
	memset(un, 0, sizeof(*un));
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path + 1, name, len);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len);
}

static socklen_t endpoint_name(struct sockaddr_un *un, enum sock_proto proto, const char *address, uint16_t port)
{
	char name[sizeof(un->sun_path) - 1];
	snprintf(name, sizeof(name), RDV_PREFIX "%s/%s/%u", proto == SOCK_TCP ? "tcp" : "udp", address, port);
	return set_name(un, name);
}

static int unix_socket(void)
{
	int fd = host_sys.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd < 0 ? -errno : fd;
}

/* One descriptor kept for refusing when the table is full: a connection that can't even be accepted would keep the
 * listening descriptor readable for ever, and its maker waiting. */
static _Atomic int spare = -1;

static void refill_spare(void)
{
	if (atomic_load(&spare) >= 0)
		return;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	int high = host_fd_high(fd);
	if (high < 0) {
		host_sys.close(fd);
		return;
	}
	int none = -1;
	if (!atomic_compare_exchange_strong(&spare, &none, high))
		host_fd_close(high);
}

int rdv_listen(enum sock_proto proto, int family, const struct endpoint *local, bool v6only)
{
	char text[INET6_ADDRSTRLEN];
	const char *address = text;
	struct sockaddr_un un;
	address_text(local->addr, text);
	if (is_any(local->addr) && wants_v6(family) && !is_v4(local->addr))
		address = v6only ? "*6only" : "*6";
	else if (is_any(local->addr))
		address = "*4";
	socklen_t len = endpoint_name(&un, proto, address, local->port);
	int fd = unix_socket();
	if (fd < 0)
		return fd;
	if (host_sys.bind(fd, (struct sockaddr *)&un, len) < 0 || host_sys.listen(fd, BACKLOG) < 0) {
		int err = -errno;
		host_sys.close(fd);
		return err;
	}
	int high = host_fd_high(fd);
	if (high < 0)
		host_sys.close(fd);
	else
		refill_spare();
	return high;
}

/* --- whom we deal with --- */

static int peer_credentials(int fd, struct ucred *cred)
{
	socklen_t len = sizeof(*cred);
	if (host_sys.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, cred, &len) < 0)
		return -errno;
	return len == sizeof(*cred) ? 0 : -EPROTO;
}

static bool peer_allowed(uint32_t uid, bool any_user)
{
	return any_user || uid == geteuid() || uid == 0 || geteuid() == 0;
}

#define GROUP_MAX 256 /* sockets that share a port */

enum holds { HOLDS_NO, HOLDS_YES, HOLDS_UNKNOWN };

/* The inode that "socket:[123]" names, 0 if it is none. */
static uint64_t socket_inode(int dir_fd, const char *entry)
{
	char link[64];
	ssize_t n = readlinkat(dir_fd, entry, link, sizeof(link) - 1);
	if (n < 0)
		return 0;
	link[n] = 0;
	unsigned long long inode;
	return sscanf(link, "socket:[%llu]", &inode) == 1 ? inode : 0;
}

static bool is_among(uint64_t inode, const uint64_t *inodes, int count)
{
	for (int i = 0; i < count; i++)
		if (inodes[i] == inode)
			return true;
	return false;
}

/* Does the process hold one of these sockets? */
static enum holds process_holds(pid_t pid, const uint64_t *inodes, int count)
{
	char path[40];
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	DIR *d = opendir(path);
	if (!d)
		return HOLDS_UNKNOWN;
	enum holds found = HOLDS_NO;
	for (struct dirent *e; found == HOLDS_NO && (e = readdir(d));) {
		uint64_t inode = socket_inode(dirfd(d), e->d_name);
		if (inode && is_among(inode, inodes, count))
			found = HOLDS_YES;
	}
	closedir(d);
	return found;
}

/* The first len - 1 bytes of a file of /proc; without them an empty text. */
static void read_proc(const char *path, char *text, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : host_sys.read(fd, text, len - 1);
	if (fd >= 0)
		host_sys.close(fd);
	text[n > 0 ? n : 0] = 0;
}

static pid_t parent_of(pid_t pid)
{
	char path[40], text[512];
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	read_proc(path, text, sizeof(text));
	/* pid (name, which may contain anything) state ppid */
	const char *after = strrchr(text, ')');
	int ppid = 0;
	return after && sscanf(after + 1, " %*c %d", &ppid) == 1 ? ppid : 0;
}

static bool ancestor_holds(pid_t pid, uint64_t inode)
{
	for (int i = 0; i < ANCESTORS_MAX && (pid = parent_of(pid)) > 1; i++)
		if (process_holds(pid, &inode, 1) == HOLDS_YES)
			return true;
	return false;
}

/* Its workers answer where it closed its own descriptor: a master that has executed its program anew keeps none. */
static bool child_holds(pid_t pid, uint64_t inode)
{
	char path[64], text[4096], *p = text, *end;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	read_proc(path, text, sizeof(text));
	for (long child; (child = strtol(p, &end, 10)) > 0 && *end == ' '; p = end)
		if (process_holds((pid_t)child, &inode, 1) == HOLDS_YES)
			return true;
	return false;
}

/* True if the maker of the Unix listener owns the port in the kernel. */
static bool owns_port(const struct ucred *cred, enum sock_proto proto, int family, const struct endpoint *remote)
{
	uint32_t uid;
	uint64_t inode, group[GROUP_MAX];
	if (diag_port_owner(proto, family, remote, &uid, &inode) < 0)
		return false;
	enum holds h = process_holds(cred->pid, &inode, 1);
	if (h == HOLDS_YES || uid != cred->uid)
		return h == HOLDS_YES;
	if (h == HOLDS_UNKNOWN || ancestor_holds(cred->pid, inode) || child_holds(cred->pid, inode))
		return true;
	int count = diag_port_inodes(proto, remote->port, group, GROUP_MAX);
	return process_holds(cred->pid, group, count) == HOLDS_YES;
}

/* --- the connecting side --- */

/* A connection to this name. connect() on a Unix socket is done at once or would have to wait for room in
 * the listener's backlog, which a nonblocking socket reports as EAGAIN. */
static int connect_name(int fd, const struct sockaddr_un *un, socklen_t len, int64_t deadline_ms)
{
	while (host_sys.connect(fd, (const struct sockaddr *)un, len) < 0) {
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (handshake_now_ms() >= deadline_ms)
			return -ETIMEDOUT;
		if (errno == EAGAIN)
			host_sys.poll(NULL, 0, RETRY_MS);
	}
	return 0;
}

/* A socket of ours with a name that tools know, which tells the pid of each message's sender. */
static int connecting_socket(const uint8_t nonce[16])
{
	char name[64] = RDV_PREFIX "wire/";
	struct sockaddr_un un;
	int on = 1;
	for (int i = 0; i < 16; i++)
		snprintf(name + strlen(name), 3, "%02x", nonce[i]);
	socklen_t len = set_name(&un, name);
	int fd = unix_socket();
	if (fd < 0)
		return fd;
	if (host_sys.bind(fd, (struct sockaddr *)&un, len) < 0 ||
	    host_sys.setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0) {
		int err = -errno;
		host_sys.close(fd);
		return err;
	}
	return fd;
}

static void close_all(const int *fds, int count)
{
	for (int i = 0; i < count; i++)
		if (fds[i] >= 0)
			host_sys.close(fds[i]);
}

/* Hand the descriptors to *out, moved up; -1 stays. fds: memfd, doorbells, life. All are closed on failure. */
static int finish(int fds[4], const struct rdv_link *link, int end, struct rdv_wire *out)
{
	int high[4];
	for (int i = 0; i < 4; i++) {
		high[i] = fds[i] < 0 ? -1 : host_fd_high(fds[i]);
		if (high[i] >= 0 || fds[i] < 0)
			continue;
		int err = high[i];
		for (int j = 0; j < i; j++)
			host_fd_close(high[j]);
		close_all(fds + i, 4 - i);
		return err;
	}
	*out = (struct rdv_wire){
	    .memfd = high[0],
	    .doorbell = {high[1], high[2]},
	    .life_fd = high[3],
	    .end = end,
	    .link = *link,
	};
	return 0;
}

/* The doorbells that came: both or none. Those of who is not trusted are not kept. */
static int check_doorbells(int fds[2], int count, uint32_t uid, int ours)
{
	if (count != 0 && count != 2)
		return -EPROTO;
	for (int i = 0; i < count; i++)
		if (doorbell_check(fds[i], ours) < 0)
			return -EPROTO;
	if (!rdv_trusted(uid)) {
		close_all(fds, 2);
		fds[0] = fds[1] = -1;
	}
	return 0;
}

/* Send ours, wait for the answer, which is of this kind or the other. How many descriptors came with it. */
static int converse(int fd, struct hello *h, const int *give, int count, int *fds, int max, enum hello_kind kind,
		    enum hello_kind other, int64_t deadline_ms, struct ucred *sender)
{
	int rc = hello_send(fd, h, give, count);
	/* If it has hung up already, it may have said why. */
	if (rc && rc != -EPIPE && rc != -ECONNRESET)
		return rc;
	int n = hello_receive(fd, h, fds, max, deadline_ms, sender);
	if (n < 0) /* it hung up before it said anything: a process that is ending */
		return n == -ECONNRESET || n == -EPIPE ? -ECONNREFUSED : n;
	rc = hello_check(h, kind, other);
	if (rc == 0)
		return n;
	close_all(fds, n);
	return rc;
}

/* MAKE and MADE. Closes fd on failure. */
static int make_together(int fd, const struct rdv_self *self, struct rdv_link *link, const uint8_t nonce[16],
			 int64_t deadline_ms, struct rdv_wire *out)
{
	int fds[4] = {-1, -1, -1, fd};
	struct ucred sender = {0};
	struct hello h;
	int rc = wire_memfd_make();
	if (rc >= 0) {
		fds[0] = rc;
		hello_fill(&h, HELLO_MAKE, nonce, self->stack);
		int give[3] = {fds[0], self->doorbell[0], self->doorbell[1]};
		rc = converse(fd, &h, give, rdv_trusted(link->uid) ? 3 : 1, fds + 1, 2, HELLO_MADE, HELLO_MADE,
			      deadline_ms, &sender);
	}
	if (rc >= 0)
		rc = check_doorbells(fds + 1, rc, link->uid, self->doorbell[0]);
	if (!rc && (memcmp(h.nonce, nonce, sizeof(h.nonce)) || memcmp(h.stack, link->stack, sizeof(h.stack)) ||
		    (sender.pid && (uint32_t)sender.pid != link->pid)))
		rc = -EPROTO;
	if (rc < 0) {
		close_all(fds, 4);
		return rc;
	}
	memcpy(link->nonce, nonce, sizeof(link->nonce));
	return finish(fds, link, 0, out);
}

/* The handshake on a connected, verified socket. Unless it gives a wire, fd is closed. */
static int introduce(int fd, const struct ucred *cred, const struct rdv_self *self, const uint8_t nonce[16],
		     int64_t deadline_ms, struct rdv_wire *out)
{
	struct rdv_link link;
	struct ucred sender = {0};
	struct hello h;
	hello_fill(&h, HELLO_ASK, nonce, self->stack);
	int rc = converse(fd, &h, NULL, 0, NULL, 0, HELLO_KNOWN, HELLO_NEW, deadline_ms, &sender);
	if (rc < 0) {
		host_sys.close(fd);
		return rc;
	}
	/* Whoever answers may be a child of the listener's maker. */
	link.pid = (uint32_t)(sender.pid ? sender.pid : cred->pid);
	link.uid = sender.pid ? sender.uid : cred->uid;
	memcpy(link.stack, h.stack, sizeof(link.stack));
	memcpy(link.nonce, h.nonce, sizeof(link.nonce));
	if (h.kind == HELLO_KNOWN && self->find && self->find(self->arg, &link, true)) {
		host_sys.close(fd);
		*out = (struct rdv_wire){.memfd = -1, .doorbell = {-1, -1}, .life_fd = -1, .link = link};
		return RDV_KNOWN;
	}
	return make_together(fd, self, &link, nonce, deadline_ms, out);
}

/* One candidate name. */
static int try_name(enum sock_proto proto, int family, const struct endpoint *remote, const char *address,
		    const struct rdv_self *self, int64_t deadline_ms, struct rdv_wire *out, bool *squatted)
{
	struct sockaddr_un un;
	struct ucred cred;
	uint8_t nonce[16];
	socklen_t len = endpoint_name(&un, proto, address, remote->port);
	if (getrandom(nonce, sizeof(nonce), 0) != (ssize_t)sizeof(nonce))
		return -EIO;
	int fd = connecting_socket(nonce);
	if (fd < 0)
		return fd;
	int rc = connect_name(fd, &un, len, deadline_ms);
	if (!rc)
		rc = peer_credentials(fd, &cred);
	if (!rc && !owns_port(&cred, proto, family, remote)) {
		*squatted = true;
		rc = -EPERM;
	}
	if (!rc && !peer_allowed(cred.uid, self->any_user))
		rc = -EPERM;
	if (!rc)
		return introduce(fd, &cred, self, nonce, deadline_ms, out);
	host_sys.close(fd);
	return rc;
}

int rdv_connect(enum sock_proto proto, int family, const struct endpoint *remote, const struct rdv_self *self,
		int timeout_ms, struct rdv_wire *out, bool *squatted)
{
	static const uint8_t loopback4[4] = {127, 0, 0, 1};
	int64_t deadline_ms = handshake_now_ms() + timeout_ms;
	struct endpoint to = *remote;
	bool v4 = is_v4(to.addr), ignored = false;
	if (!squatted)
		squatted = &ignored;
	*squatted = false;
	/* connect() to the unspecified address reaches this machine's loopback. */
	if (is_any(to.addr) && v4)
		memcpy(to.addr + 12, loopback4, 4);
	else if (is_any(to.addr))
		to.addr[15] = 1;
	char text[INET6_ADDRSTRLEN];
	address_text(to.addr, text);
	const char *const names[] = {text, v4 ? "*4" : "*6only", "*6"};
	int result = -ECONNREFUSED;
	for (int i = 0; i < 3; i++) {
		int rc = try_name(proto, v4 ? 4 : family, &to, names[i], self, deadline_ms, out, squatted);
		if (rc >= 0) {
			*squatted = false;
			return rc;
		}
		/* A squatter on one name does not keep us from the owner on another. */
		if (rc != -ECONNREFUSED)
			result = rc;
		if (rc != -ECONNREFUSED && rc != -EPERM)
			break;
	}
	return result;
}

/* --- the accepting side --- */

/* Tell the peer why not, as far as it listens; it needs no answer. */
static void refuse(int fd, const uint8_t nonce[16], int status)
{
	struct hello h;
	hello_refuse(&h, nonce, status);
	hello_send(fd, &h, NULL, 0);
}

/* The table is full: accept with the spare descriptor, only to refuse. */
static int refuse_for_want_of_descriptors(int listen_fd)
{
	static const uint8_t no_nonce[16];
	int s = atomic_exchange(&spare, -1);
	if (s < 0)
		return -EMFILE;
	host_fd_close(s);
	int fd = host_sys.accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0) {
		refuse(fd, no_nonce, -EPROTO);
		host_sys.close(fd);
	}
	refill_spare();
	return fd < 0 ? -EMFILE : -EPROTO;
}

int rdv_accept_begin(int listen_fd, bool any_user)
{
	static const uint8_t no_nonce[16];
	struct ucred cred;
	int fd = host_sys.accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0 && errno == EMFILE)
		return refuse_for_want_of_descriptors(listen_fd);
	if (fd < 0)
		return errno == EINTR || errno == ECONNABORTED ? -EAGAIN : -errno;
	int rc = peer_credentials(fd, &cred);
	if (!rc && !peer_allowed(cred.uid, any_user))
		rc = -EPERM;
	if (!rc)
		return fd;
	refuse(fd, no_nonce, rc == -EPERM ? -EPERM : -EPROTO);
	host_sys.close(fd);
	return rc == -EPERM ? rc : -EPROTO;
}

void rdv_accept_refuse(int fd, int status)
{
	static const uint8_t no_nonce[16];
	refuse(fd, no_nonce, status);
	host_fd_close(fd);
}

/* ASK: whether a wire leads there already. */
static int answer_ask(int fd, const struct hello *h, const struct rdv_self *self, struct rdv_link *link)
{
	bool known = link->pid && self->find && self->find(self->arg, link, false);
	struct hello answer;
	hello_fill(&answer, known ? HELLO_KNOWN : HELLO_NEW, known ? link->nonce : h->nonce, self->stack);
	int rc = hello_send(fd, &answer, NULL, 0);
	return rc < 0 ? rc : -EAGAIN;
}

/* MAKE: map what it made. */
static int answer_make(int fd, const struct hello *h, int fds[4], int count, const struct rdv_self *self,
		       const struct rdv_link *link)
{
	struct hello answer;
	int rc = wire_memfd_check(fds[0]);
	if (!rc)
		rc = check_doorbells(fds + 1, count - 1, link->uid, self->doorbell[0]);
	if (rc < 0)
		return rc;
	hello_fill(&answer, HELLO_MADE, h->nonce, self->stack);
	return hello_send(fd, &answer, self->doorbell, rdv_trusted(link->uid) ? 2 : 0);
}

/* One message. -EAGAIN: it was answered, more must come. */
static int accept_until(int fd, const struct rdv_self *self, int64_t deadline_ms, struct rdv_wire *out)
{
	int fds[4] = {-1, -1, -1, fd};
	struct rdv_link link;
	struct ucred cred;
	struct hello h;
	int rc, n = hello_receive(fd, &h, fds, 3, deadline_ms, NULL);
	if (n == -ETIMEDOUT)
		return n;
	rc = n < 0 ? n : hello_check(&h, HELLO_ASK, HELLO_MAKE);
	if (!rc)
		rc = peer_credentials(fd, &cred);
	if (!rc) {
		link = (struct rdv_link){.pid = (uint32_t)cred.pid, .uid = cred.uid};
		memcpy(link.nonce, h.nonce, sizeof(link.nonce));
		memcpy(link.stack, h.stack, sizeof(link.stack));
		if ((h.kind == HELLO_ASK) != (n == 0))
			rc = -EPROTO;
		else
			rc = n ? answer_make(fd, &h, fds, n, self, &link) : answer_ask(fd, &h, self, &link);
	}
	if (rc == -EAGAIN)
		return rc;
	if (!rc)
		return finish(fds, &link, 1, out);
	close_all(fds, 3);
	rdv_accept_refuse(fd, -EPROTO);
	return rc == -EMFILE ? rc : -EPROTO;
}

int rdv_accept_step(int fd, const struct rdv_self *self, struct rdv_wire *out)
{
	int rc = accept_until(fd, self, 0, out);
	return rc == -ETIMEDOUT ? -EAGAIN : rc;
}

int rdv_accept(int listen_fd, const struct rdv_self *self, int timeout_ms, struct rdv_wire *out)
{
	int64_t deadline_ms = handshake_now_ms() + timeout_ms;
	int fd = rdv_accept_begin(listen_fd, self->any_user), rc;
	if (fd < 0)
		return fd;
	do
		rc = accept_until(fd, self, deadline_ms, out);
	while (rc == -EAGAIN);
	if (rc == -ETIMEDOUT) {
		rdv_accept_refuse(fd, -EPROTO);
		rc = -EPROTO;
	}
	return rc;
}

/* --- ringing by the connection --- */

#define RINGS_MAX 64 /* taken in at once: more than an honest peer has sent */

bool rdv_trusted(uint32_t uid)
{
	return uid == geteuid() || uid == 0;
}

void rdv_ring(int life_fd, uint8_t kind)
{
	struct iovec iov = {&kind, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	/* A full queue is one that the other end has not looked at: it is rung already. */
	(void)!host_sys.sendmsg(life_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

uint32_t rdv_rung(int life_fd)
{
	uint32_t kinds = 0;
	for (int i = 0; i < RINGS_MAX; i++) {
		uint8_t kind = 0;
		struct iovec iov = {&kind, 1};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1}; /* descriptors beside it are closed */
		if (host_sys.recvmsg(life_fd, &msg, MSG_DONTWAIT) <= 0)
			break;
		kinds |= kind < 32 ? 1u << kind : 0;
	}
	return kinds;
}
