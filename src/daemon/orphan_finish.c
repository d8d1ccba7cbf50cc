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
#define BURSTS 64 /* between two looks at the clock */

#define RINGS (TENANT_VNICS * DAEMON_QUEUES_MAX)

struct orphan {
	struct engine e;
	struct stack *s;
	struct xdp_port port[RINGS];
	struct pollfd wake[RINGS]; /* the sockets */
	uint32_t rings, pid;
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

static void map_view(struct orphan *o)
{
	void *view = mmap(NULL, sizeof(struct netview), PROT_READ, MAP_SHARED, ORPHAN_FD_VIEW, 0);

	if (view != MAP_FAILED && !netview_check(view, sizeof(struct netview)))
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

static int map_queue(struct orphan *o, const struct daemon_vnic *d, uint32_t q, int umem, int xsk)
{
	uint32_t i = find_vnic(o, d->ifindex, q);
	struct xdp_port *p = &o->port[o->rings];
	int rc;

	if (i == VNIC_NONE)
		return -ENOENT;
	*p = (struct xdp_port){.chunk_size = d->chunk_size,
			       .rx_first = d->queue[q].rx_first,
			       .rx_count = d->queue[q].rx_count,
			       .tx_first = d->queue[q].tx_first,
			       .tx_count = d->queue[q].tx_count};
	rc = xsk_map(xsk, umem, d->umem_size, d->ring_size, p);
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

static int map_vnics(struct orphan *o)
{
	struct orphan_estate estate;
	int fd = ORPHAN_FD_VNICS;

	if (pread(ORPHAN_FD_ESTATE, &estate, sizeof(estate), 0) != (ssize_t)sizeof(estate) ||
	    estate.magic != ORPHAN_MAGIC || estate.vnics > TENANT_VNICS)
		return -EPROTO;
	for (uint32_t v = 0; v < estate.vnics; v++) {
		const struct daemon_vnic *d = &estate.vnic[v];
		int umem = fd++;

		if (d->queues > DAEMON_QUEUES_MAX)
			return -EPROTO;
		/* one that can't be had is dead to its connections */
		for (uint32_t q = 0; q < d->queues; q++)
			map_queue(o, d, q, umem, fd++);
	}
	return o->rings ? 0 : -ENOENT;
}

static void limit(int what, rlim_t most)
{
	struct rlimit r = {most, most};

	setrlimit(what, &r);
}

/* What is left of the kernel: look at the clock (and who one is, for it), wait, kick, say something, go. */
static const uint32_t calls[] = {
    __NR_sendto, __NR_sendmsg,       __NR_recvfrom, __NR_recvmsg,
#ifdef __NR_poll
    __NR_poll,
#endif
    __NR_ppoll,  __NR_clock_gettime, __NR_getpid,   __NR_write,   __NR_restart_syscall, __NR_exit_group,
};
#define CALLS (sizeof(calls) / sizeof(calls[0]))

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
	struct sock_filter program[4 + 2 * CALLS + 1];
	struct sock_fprog filter = {.len = sizeof(program) / sizeof(program[0]), .filter = program};

	memcpy(program, head, sizeof(head));
	for (uint32_t i = 0; i < CALLS; i++) {
		program[4 + 2 * i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1);
		program[5 + 2 * i] = allow;
	}
	program[4 + 2 * CALLS] = refuse;
	return SANITIZED || !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) ? 0 : -errno;
}

/* --- what is said --- */

static void say(const struct orphan_word *w)
{
	struct pollfd p = {.fd = ORPHAN_FD_WORDS, .events = POLLOUT};

	while (write(ORPHAN_FD_WORDS, w, sizeof(*w)) < 0 && (errno == EAGAIN || errno == EINTR))
		poll(&p, 1, SLEEP_MAX_MS);
}

static void say_flow(const struct sock *k)
{
	struct orphan_word w = {.type = ORPHAN_FLOW,
				.flow = {.proto = IPPROTO_TCP,
					 .family = is_v4(k->local.addr) ? 4 : 6,
					 .local_port = k->local.port,
					 .remote_port = k->remote.port}};

	memcpy(w.flow.local, k->local.addr, 16);
	memcpy(w.flow.remote, k->remote.addr, 16);
	say(&w);
}

static void say_flows(const struct orphan *o)
{
	struct stack *s = o->s;
	struct orphan_word ready = {.type = ORPHAN_READY};

	for (uint32_t i = 1; i < s->sock_pool.mark && i < s->cfg.max_socks; i++) {
		const struct sock *k = sock_at(s, i);

		if (k->proto == SOCK_TCP && k->remote.port)
			say_flow(k);
	}
	say(&ready);
}

static void say_wants(struct orphan *o)
{
	struct neigh_want want;

	while (route_wanted(&o->e, &want)) {
		struct orphan_word w = {.type = ORPHAN_RESOLVE, .ifindex = want.ifindex};

		memcpy(w.addr, want.addr, 16);
		say(&w);
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
static void look_at_waiting(struct orphan *o)
{
	struct orphan_word w = {.type = ORPHAN_WAITS};

	if (o->waits_said || o->s->tw_count < o->s->sock_pool.in_use)
		return;
	o->waits_said = true;
	say(&w);
}

static int sleep_ms(const struct orphan *o, uint64_t now_us)
{
	uint64_t deadline = engine_deadline(&o->e);

	if (deadline <= now_us)
		return 0;
	return deadline - now_us < SLEEP_MAX_MS * 1000u ? (int)((deadline - now_us) / 1000 + 1) : SLEEP_MAX_MS;
}

static void run(struct orphan *o)
{
	uint64_t now_us = clock_us(), end_us = now_us + LIFE_S * 1000000ull;

	while (o->s->sock_pool.in_use && now_us < end_us) {
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
		poll(o->wake, o->rings, frames ? 0 : sleep_ms(o, now_us));
		clock_recalibrate();
		now_us = clock_us();
		if (now_us < o->s->now_us)
			now_us = o->s->now_us;
	}
	kick(o);
}

int orphan_main(void)
{
	static struct orphan o;
	int rc;

	o.pid = (uint32_t)getpid();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "viaductd-finish");
	signal(SIGPIPE, SIG_IGN);
	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_FSIZE, 0);
	limit(RLIMIT_NPROC, 0);
	limit(RLIMIT_CPU, CPU_S);
	clock_init();
	rc = map_stack(&o);
	if (!rc)
		rc = map_vnics(&o);
	if (rc)
		return 1;
	map_view(&o);
	rc = shut_the_door();
	if (rc)
		return 1;
	take_over(&o);
	say_flows(&o);
	run(&o);
	_exit(0);
}
