/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The child's side of orphan.h: it takes a dead program's stack over and runs it until its connections have ended.
 *
 *   1. What was given is mapped; then the door to the kernel is shut (seccomp(2)).
 *   2. If a thread died holding the stack's lock, what it was changing may be half done: what is whole is kept
 *      (engine/salvage.c), the peers of the rest are told that it is over (RST).
 *   3. Wires end: their other ends have seen the death by themselves.
 *   4. Every socket is closed as exit closes it: unread data means RST, else what send() took follows, then FIN.
 *      SO_LINGER does not wait in an exit (inet_release in Linux), but linger 0 resets.
 *   5. The loop: frames, timers, kicks. The engine's own limits are those of Linux's orphans: 8 retransmissions without
 *      an answer (tcp_orphan_retries), tcp_fin_timeout in FIN-WAIT-2, TIME-WAIT.
 *
 * When viaductd dies its end of the pipe is closed. The loop goes on; who connects to the listening socket and is of
 * our user is the next viaductd: it is shown the vNICs, and gives a new view and what pins the programs from now on.
 * With nobody there, and nothing left but TIME-WAIT, the loop ends: filters without an owner shall not stay for that.
 *
 * Nothing here is trusted but the estate, which viaductd wrote. The engine checks every index that it takes out of the
 * stack; should that not be enough, this process can be made to crash, to burn its time, or to send what the dead could
 * have sent.
 */
#include "daemon/orphan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/bytes.h"
#include "engine/route.h"
#include "engine/tcp_internal.h"
#include "host/host.h"
#include "host/xsk.h"

#define LIFE_S 1200 /* wall clock: longer than any connection that still gets answers needs for a full buffer */
#define CPU_S 20    /* and this of the processor: a full buffer takes a fraction of a second */
#define SLEEP_MAX_MS 1000
#define POLL_BUDGET 256
#define BURSTS 64           /* between two looks at the clock */
#define STRANGERS_US 100000 /* so long the next one waits who is not viaductd */

#define RINGS (TENANT_VNICS * DAEMON_QUEUES_MAX)

struct orphan {
	struct engine e;
	struct stack *s;
	struct xdp_port port[RINGS];
	struct pollfd wake[RINGS + 2]; /* the sockets; then the words, and who comes to hear them */
	uint32_t rings, pid, uid;
	int words, keep;    /* words -1: viaductd is gone */
	bool heard;         /* viaductd wants to hear words */
	uint64_t listen_us; /* not before */
	struct orphan_estate estate;
	bool waits_said;
	uint8_t *fate; /* [socket]: room for engine_salvage */
};

/* --- 1: what was given --- */

static int map_stack(struct orphan *o)
{
	struct stat st;
	void *mem;

	/* what could be cut short under us could kill us: no harm, but no good either */
	if (!(fcntl(ORPHAN_FD_MEMORY, F_GET_SEALS) & F_SEAL_SHRINK) || fstat(ORPHAN_FD_MEMORY, &st))
		return -EPROTO;
	mem = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, ORPHAN_FD_MEMORY, 0);
	if (mem == MAP_FAILED)
		return -errno;
	o->s = mem;
	if (stack_check(mem, (size_t)st.st_size))
		return -EPROTO;
	engine_attach(&o->e, o->s);
	o->fate = calloc(1, o->s->cfg.max_socks);
	return o->fate ? 0 : -ENOMEM;
}

static void map_view(struct orphan *o, int fd)
{
	void *view = mmap(NULL, sizeof(struct netview), PROT_READ, MAP_SHARED, fd, 0);

	if (view == MAP_FAILED)
		return;
	if (netview_check(view, sizeof(struct netview)))
		munmap(view, sizeof(struct netview));
	else
		o->e.view = view;
}

/* The stack's vNIC that was made of this queue. */
static uint32_t find_vnic(const struct orphan *o, uint32_t ifindex, uint32_t queue)
{
	for (uint32_t i = 0; i < VNIC_MAX; i++) {
		const struct vnic_state *st = stack_vnic(o->s, i);

		if (o->s->vnic_used[i / 64] >> i % 64 & 1 && st->provider == VNIC_PROV_XDP && st->ifindex == ifindex &&
		    st->queue == queue && !st->dead)
			return i;
	}
	return VNIC_NONE;
}

static int map_queue(struct orphan *o, const struct daemon_vnic *d, uint32_t q, int umem, int xsk,
		     const struct xdp_port *mapped)
{
	uint32_t i = find_vnic(o, d->ifindex, q);
	struct xdp_port *p = &o->port[o->rings];
	int rc;

	if (i == VNIC_NONE)
		return -ENOENT;
	if (mapped)
		*p = mapped[q];
	rc = mapped ? 0 : xsk_map(xsk, umem, d, q, p);
	if (rc)
		return rc;
	rc = xdp_reattach(&o->e.vnic[i], stack_vnic(o->s, i), p);
	if (rc) {
		xsk_unmap(p);
		return rc;
	}
	o->wake[o->rings++] = (struct pollfd){.fd = xsk, .events = POLLIN};
	return 0;
}

static int map_vnics(struct orphan *o, const struct xdp_port *const rings[TENANT_VNICS])
{
	const struct orphan_estate *estate = &o->estate;
	int fd = ORPHAN_FD_VNICS;

	if (pread(ORPHAN_FD_ESTATE, &o->estate, sizeof(o->estate), 0) != (ssize_t)sizeof(o->estate) ||
	    estate->magic != ORPHAN_MAGIC || estate->vnics > TENANT_VNICS)
		return -EPROTO;
	for (uint32_t v = 0; v < estate->vnics; v++) {
		const struct daemon_vnic *d = &estate->vnic[v];
		int umem = fd++;

		if (d->queues > DAEMON_QUEUES_MAX)
			return -EPROTO;
		/* one that can't be had is dead to its connections */
		for (uint32_t q = 0; q < d->queues; q++)
			map_queue(o, d, q, umem, fd++, rings ? rings[v] : NULL);
	}
	return o->rings ? 0 : -ENOENT;
}

static void limit(int what, rlim_t most)
{
	struct rlimit r = {most, most};

	setrlimit(what, &r);
}

/* What is left of the kernel: look at the clock (and who one is, for it), wait, kick, say something, go; and for the
 * next viaductd: let it in, ask who it is, exchange what it gives for what we had. No new socket, no name. */
static const uint32_t calls[] = {
    __NR_accept4,  __NR_getsockopt,    __NR_close,  __NR_munmap, __NR_sendto,          __NR_sendmsg,
    __NR_recvfrom, __NR_recvmsg,
#ifdef __NR_poll
    __NR_poll,
#endif
    __NR_ppoll,    __NR_clock_gettime, __NR_getpid, __NR_write,  __NR_restart_syscall, __NR_exit_group,
};
#define CALLS (sizeof(calls) / sizeof(calls[0]))
#define MAP 4

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#else
#error "which architecture do system calls have here?"
#endif

/* Sanitizers make calls of their own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

static int shut_the_door(void)
{
	static const struct sock_filter head[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	};
	static const struct sock_filter refuse = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	static const struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	/* to map for reading alone */
	static const struct sock_filter map[] = {
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mmap, 0, 3),
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PROT_READ, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_filter program[4 + 2 * CALLS + MAP + 1];
	struct sock_fprog filter = {.len = sizeof(program) / sizeof(program[0]), .filter = program};

	memcpy(program, head, sizeof(head));
	for (uint32_t i = 0; i < CALLS; i++) {
		program[4 + 2 * i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1);
		program[5 + 2 * i] = allow;
	}
	memcpy(program + 4 + 2 * CALLS, map, sizeof(map));
	program[4 + 2 * CALLS + MAP] = refuse;
	return SANITIZED || !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) ? 0 : -errno;
}

/* --- what is said --- */

static void lose(struct orphan *o)
{
	close(o->words);
	o->words = -1;
	o->heard = o->waits_said = false;
}

static void say(struct orphan *o, const struct orphan_word *w)
{
	struct pollfd p = {.fd = o->words, .events = POLLOUT};

	while (o->heard && write(o->words, w, sizeof(*w)) < 0) {
		if (errno != EAGAIN && errno != EINTR)
			lose(o);
		else
			poll(&p, 1, SLEEP_MAX_MS);
	}
}

static void say_flow(struct orphan *o, const struct sock *k)
{
	struct orphan_word w = {.type = ORPHAN_FLOW,
				.flow = {.proto = IPPROTO_TCP,
					 .family = is_v4(k->local.addr) ? 4 : 6,
					 .local_port = k->local.port,
					 .remote_port = k->remote.port}};

	memcpy(w.flow.local, k->local.addr, 16);
	memcpy(w.flow.remote, k->remote.addr, 16);
	say(o, &w);
}

static void say_flows(struct orphan *o)
{
	struct stack *s = o->s;
	struct orphan_word ready = {.type = ORPHAN_READY};

	for (uint32_t i = 1; i < s->sock_pool.mark && i < s->cfg.max_socks; i++) {
		const struct sock *k = sock_at(s, i);

		if (k->proto == SOCK_TCP && k->remote.port)
			say_flow(o, k);
	}
	say(o, &ready);
}

static void say_wants(struct orphan *o)
{
	struct neigh_want want;

	while (o->heard && route_wanted(&o->e, &want)) {
		struct orphan_word w = {.type = ORPHAN_RESOLVE, .ifindex = want.ifindex};

		memcpy(w.addr, want.addr, 16);
		say(o, &w);
	}
}

/* --- 2 to 4: taking over --- */

/* A thread died inside. */
static void salvage(struct orphan *o)
{
	for (uint32_t i = 0; i < VNIC_MAX; i++)
		if (o->e.vnic[i].ops)
			xdp_recover(&o->e.vnic[i]);
	engine_salvage(&o->e, o->fate);
}

static void end_wires(struct orphan *o, uint64_t now_us)
{
	for (uint32_t i = 0; i < VNIC_MAX; i++)
		if (o->s->vnic_used[i / 64] >> i % 64 & 1 && !o->e.vnic[i].ops)
			engine_vnic_dead(&o->e, i, now_us);
}

/* Those that a listener has not handed out yet end with it. */
static bool of_a_listener(const struct sock *k)
{
	return k->proto == SOCK_TCP && k->tcp.parent && !k->holders;
}

static void close_sockets(struct orphan *o, bool all, uint64_t now_us)
{
	struct stack *s = o->s;

	for (uint32_t i = 1; i < s->sock_pool.mark && i < s->cfg.max_socks; i++) {
		struct sock *k = sock_at(s, i);

		if (k->proto == SOCK_FREE || k->flags & SOCKF_ORPHAN || (!all && of_a_listener(k)))
			continue;
		k->holders = k->interest = k->dirty_mask = 0;
		if (k->proto == SOCK_TCP)
			tcp_close(&o->e, k, now_us);
		else
			udp_close(&o->e, k);
	}
}

static void take_over(struct orphan *o)
{
	struct stack *s = o->s;
	bool torn = atomic_exchange(&s->lock.owner, o->pid) != 0;
	uint64_t now_us = clock_us();

	for (uint32_t i = 0; i < PROC_MAX; i++)
		s->proc[i].pid = 0;
	s->procs = 0;
	s->now_us = now_us > s->now_us ? now_us : s->now_us;
	if (torn)
		salvage(o);
	route_forget(&o->e); /* the view may be another one than the program's */
	end_wires(o, now_us);
	close_sockets(o, false, now_us);
	close_sockets(o, true, now_us);
}

/* --- 5: the loop --- */

static void kick(struct orphan *o)
{
	for (uint32_t r = 0; r < o->rings; r++)
		xsk_kick(o->wake[r].fd, &o->port[r]);
}

/* All that is left waits for nothing but the end of TIME-WAIT. */
static bool only_waits(const struct orphan *o)
{
	return o->s->tw_count >= o->s->sock_pool.in_use;
}

static void look_at_waiting(struct orphan *o)
{
	struct orphan_word w = {.type = ORPHAN_WAITS};

	if (o->waits_said || !o->heard || !only_waits(o))
		return;
	o->waits_said = true;
	say(o, &w);
}

static int sleep_ms(const struct orphan *o, uint64_t now_us)
{
	uint64_t deadline = engine_deadline(&o->e);

	if (deadline <= now_us)
		return 0;
	return deadline - now_us < SLEEP_MAX_MS * 1000u ? (int)((deadline - now_us) / 1000 + 1) : SLEEP_MAX_MS;
}

/* --- 6: the next viaductd --- */

/* vNIC v's descriptors begin at fd. */
static int show(const struct orphan *o, uint32_t v, int fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE((1 + DAEMON_QUEUES_MAX) * sizeof(int))] = {0};
	struct orphan_show about = {.magic = ORPHAN_MAGIC, .vnics = o->estate.vnics, .vnic = o->estate.vnic[v]};
	struct iovec iov = {&about, sizeof(about)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[1 + DAEMON_QUEUES_MAX];

	for (uint32_t i = 0; i < 1 + about.vnic.queues; i++)
		fds[i] = fd + (int)i;
	host_fds_attach(&m, control, fds, 1 + about.vnic.queues);
	return sendmsg(o->words, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static bool is_viaductd(const struct orphan *o, int fd)
{
	struct ucred who;
	socklen_t len = sizeof(who);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) && who.uid == o->uid;
}

static void let_in(struct orphan *o, uint64_t now_us)
{
	int fd = accept4(ORPHAN_FD_LISTEN, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), at = ORPHAN_FD_VNICS;

	if (fd < 0)
		return;
	if (!is_viaductd(o, fd)) {
		close(fd);
		o->listen_us = now_us + STRANGERS_US;
		return;
	}
	o->words = fd;
	for (uint32_t v = 0; v < o->estate.vnics && o->words >= 0; v++) {
		if (show(o, v, at))
			lose(o);
		at += 1 + (int)o->estate.vnic[v].queues;
	}
}

static void use_view(struct orphan *o, int fd)
{
	const struct netview *old = o->e.view;

	map_view(o, fd);
	if (o->e.view == old)
		return;
	if (old)
		munmap((void *)(uintptr_t)old, sizeof(*old));
	route_forget(&o->e);
}

/* It has taken us over. */
static void take_welcome(struct orphan *o)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))];
	uint32_t magic = 0;
	struct iovec iov = {&magic, sizeof(magic)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	int fds[2];

	if (recvmsg(o->words, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(magic) || magic != ORPHAN_MAGIC ||
	    !(c = CMSG_FIRSTHDR(&m)) || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(fds))) {
		lose(o);
		return;
	}
	memcpy(fds, CMSG_DATA(c), sizeof(fds));
	use_view(o, fds[0]);
	close(fds[0]);
	close(o->keep);
	o->keep = fds[1];
	o->heard = true;
	say_flows(o);
}

/* What poll says of the words, and of those who want to hear them. */
static void look_at_viaductd(struct orphan *o, uint64_t now_us)
{
	const struct pollfd *words = &o->wake[o->rings], *listener = words + 1;

	if (o->words >= 0 && words->revents & (POLLERR | POLLHUP))
		lose(o);
	else if (o->words >= 0 && !o->heard && words->revents & POLLIN)
		take_welcome(o);
	else if (o->words < 0 && listener->revents & POLLIN)
		let_in(o, now_us);
}

static void await(struct orphan *o, int timeout_ms, uint64_t now_us)
{
	bool listens = o->words < 0 && now_us >= o->listen_us;

	o->wake[o->rings] = (struct pollfd){.fd = o->words, .events = o->heard ? 0 : POLLIN};
	o->wake[o->rings + 1] = (struct pollfd){.fd = listens ? ORPHAN_FD_LISTEN : -1, .events = POLLIN};
	if (o->words < 0 && timeout_ms > STRANGERS_US / 1000)
		timeout_ms = STRANGERS_US / 1000;
	if (poll(o->wake, o->rings + 2, timeout_ms) > 0)
		look_at_viaductd(o, now_us);
}

static void run(struct orphan *o)
{
	uint64_t now_us = clock_us(), end_us = now_us + LIFE_S * 1000000ull;

	while (o->s->sock_pool.in_use && now_us < end_us && !(o->words < 0 && only_waits(o))) {
		int frames = 0;

		for (int i = 0; i < BURSTS; i++) {
			frames = engine_poll(&o->e, now_us, POLL_BUDGET);
			kick(o);
			if (!frames)
				break;
		}
		engine_tick(&o->e, now_us);
		tcp_flush_acks(&o->e);
		kick(o);
		say_wants(o);
		look_at_waiting(o);
		await(o, frames ? 0 : sleep_ms(o, now_us), now_us);
		clock_recalibrate();
		now_us = clock_us();
		if (now_us < o->s->now_us)
			now_us = o->s->now_us;
	}
	kick(o);
}

int orphan_main(const struct xdp_port *const rings[TENANT_VNICS])
{
	static struct orphan o;
	int rc;

	o.pid = (uint32_t)getpid();
	o.uid = geteuid();
	o.words = ORPHAN_FD_WORDS;
	o.keep = ORPHAN_FD_KEEP;
	o.heard = true;
	listen(ORPHAN_FD_LISTEN, 8);
	prctl(PR_SET_NAME, "viaductd-finish");
	signal(SIGPIPE, SIG_IGN);
	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_FSIZE, 0);
	limit(RLIMIT_NPROC, 0);
	limit(RLIMIT_CPU, CPU_S);
	clock_init();
	rc = map_stack(&o);
	if (!rc)
		rc = map_vnics(&o, rings);
	if (rc)
		return 1;
	map_view(&o, ORPHAN_FD_VIEW);
	rc = shut_the_door();
	if (rc)
		return 1;
	take_over(&o);
	say_flows(&o);
	run(&o);
	_exit(0);
}
