/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making this process's own stack, the process table of a stack, and the slow half of the door (process.h).
 *
 * The own stack is made at the first call that needs it: a memfd (whose name tools look for in /proc/PID/fd), mapped
 * shared and without reservation, so that only what is used takes memory; and two eventfds.
 */
#define _GNU_SOURCE
#include "socket/process.h"
#include "socket/large.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/host.h"
#include "host/rules.h"
#include "host/knobs.h"
#include "host/sysctl.h"
#include "socket/bells.h"
#include "socket/kick.h"
#include "socket/net.h"
#include "socket/proc_info.h"
#include "socket/wire.h"

#define NEWS_BURST 64u
#define TAKEN 0x80000000u /* take_edges: the socket is ours */

struct attached *attached[VS_STACKS_MAX];
_Atomic uint32_t attached_count;
struct attached *own_stack;
_Atomic uint32_t process_waiting, process_any_sleepers, process_news, helper_asleep;
_Atomic uint64_t helper_deadline;
_Thread_local uint32_t wait_self;
void (*wait_on_news)(vsock_t v, uint32_t edges);

static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER, settling = PTHREAD_MUTEX_INITIALIZER;
static bool failed;             /* said once; not tried again */
static struct attached *home;   /* process_home, when it is decided */
static struct attached *lender; /* after fork: the parent's */

static void name_program(struct stack *s)
{
	snprintf(s->program, sizeof(s->program), "%.63s", program_invocation_short_name);
	snprintf(s->rules, sizeof(s->rules), "%.127s", rules_file());
}

/* Memory and descriptors of a; on failure whatever was made is released. */
static int map_stack(struct attached *a, const struct stack_config *cfg)
{
	void *mem;
	int ret;

	a->len = stack_size(cfg);
	a->memfd = host_fd_own(memfd_create(STACK_MEMFD_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING));
	if (a->memfd < 0)
		return a->memfd;
	/* viaductd, too, maps it: it must not become shorter under it */
	if (ftruncate(a->memfd, (off_t)a->len) < 0 ||
	    host_sys.fcntl(a->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		return -errno;
	mem = mmap(NULL, a->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, a->memfd, 0);
	if (mem == MAP_FAILED)
		return -errno;
	ret = stack_format(mem, a->len, cfg);
	if (ret < 0) {
		munmap(mem, a->len);
		return ret;
	}
	a->s = mem;
	for (int i = 0; i < 2; i++) {
		a->doorbell[i] = host_fd_own(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
		if (a->doorbell[i] < 0)
			return a->doorbell[i];
	}
	return 0;
}

static void unmap_stack(struct attached *a)
{
	if (a->s)
		munmap(a->s, a->len);
	host_fd_close(a->memfd);
	host_fd_close(a->doorbell[0]);
	host_fd_close(a->doorbell[1]);
	munmap(a, sizeof(*a));
}

struct attached *process_new_stack(const struct stack_config *cfg)
{
	uint32_t n = atomic_load(&attached_count);
	struct attached *a;

	if (n >= VS_STACKS_MAX)
		return NULL;
	a = mmap(NULL, sizeof(*a), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (a == MAP_FAILED)
		return NULL;
	a->memfd = a->doorbell[0] = a->doorbell[1] = -1;
	if (map_stack(a, cfg) < 0) {
		unmap_stack(a);
		return NULL;
	}
	a->index = n;
	a->s->creator_pid = (uint32_t)getpid();
	if (getrandom(a->s->id, sizeof(a->s->id), 0) != (ssize_t)sizeof(a->s->id)) {
		unmap_stack(a);
		return NULL;
	}
	name_program(a->s);
	engine_attach(&a->e, a->s);
	a->e.flushes = true;
	a->slot = process_slot_alloc(a->s, (uint32_t)getpid());
	process_slot_name(a->s, a->slot, (uint32_t)getpid());
	attached[n] = a;
	atomic_store_explicit(&attached_count, n + 1, memory_order_release);
	return a;
}

/* Nobody can make it shorter than what we map. */
static struct stack *map_foreign(int memfd, const uint8_t id[16], size_t *len)
{
	int seals = host_sys.fcntl(memfd, F_GET_SEALS);
	struct stat st;
	void *mem;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(memfd, &st) < 0 || st.st_size < (off_t)sizeof(struct stack))
		return NULL;
	*len = (size_t)st.st_size;
	mem = mmap(NULL, *len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd, 0);
	if (mem == MAP_FAILED)
		return NULL;
	if (stack_check(mem, *len) == 0 && !memcmp(((struct stack *)mem)->id, id, sizeof(((struct stack *)mem)->id)))
		return mem;
	munmap(mem, *len);
	return NULL;
}

struct attached *process_attach(int memfd, const int doorbell[2], uint32_t slot, const uint8_t id[16])
{
	uint32_t n = atomic_load(&attached_count);
	struct attached *a;

	if (n >= VS_STACKS_MAX || memfd < 0)
		return NULL;
	a = mmap(NULL, sizeof(*a), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (a == MAP_FAILED)
		return NULL;
	a->s = map_foreign(memfd, id, &a->len);
	if (!a->s) {
		munmap(a, sizeof(*a));
		return NULL;
	}
	a->index = n;
	a->slot = slot;
	a->memfd = memfd;
	a->doorbell[0] = doorbell[0];
	a->doorbell[1] = doorbell[1];
	engine_attach(&a->e, a->s);
	a->e.flushes = true;
	attached[n] = a;
	atomic_store_explicit(&attached_count, n + 1, memory_order_release);
	return a;
}

void process_settle(struct attached *a)
{
	name_program(a->s);
	__atomic_store_n(&own_stack, a, __ATOMIC_RELEASE);
	__atomic_store_n(&home, a, __ATOMIC_RELEASE);
}

static void say_failed(void)
{
	static const char text[] =
	    "viaduct: no memory or descriptors for a stack; the kernel serves this program's sockets "
	    "(look at ulimit -n and -v)\n";

	failed = true;
	if (knob[K_LOG])
		(void)!host_sys.write(STDERR_FILENO, text, sizeof(text) - 1);
}

struct attached *process_own_stack(void)
{
	struct attached *a = __atomic_load_n(&own_stack, __ATOMIC_ACQUIRE);
	struct stack_config cfg = {0};

	if (a || failed)
		return a;
	quiet_lock(&making);
	a = own_stack;
	if (!a && !failed) {
		clock_init();
		knobs_defaults_for_stack(&cfg);
		sysctls_apply(&cfg.defaults);
		a = process_new_stack(&cfg);
		if (!a)
			say_failed();
		__atomic_store_n(&own_stack, a, __ATOMIC_RELEASE);
	}
	quiet_unlock(&making);
	return a;
}

/* It may be dead without any helper's having heard of it yet. */
static bool is_alive(const struct stack_proc *p)
{
	struct thread_info info;

	return p->pid && proc_thread_info(p->pid, p->pid, &info) == 0 && info.start_time == p->start_time &&
	       info.state != 'Z' && info.state != 'X';
}

/* The place is ours if it was as we knew it. */
static bool take_place(struct attached *a, uint32_t known)
{
	struct stack *s = a->s;
	bool yes;

	stack_enter(a);
	/* a process table that is full has no entry for us (fork.c) */
	yes = s->lodger == known && s->proc[a->slot].pid == (uint32_t)getpid();
	if (yes)
		s->lodger = a->slot + 1;
	stack_leave(a);
	return yes;
}

/*
 * True: we lodge there now. Meanwhile somebody may clear away a dead lodger, and his entry may be another's then: what
 * was seen of the place counts only if it is still the same.
 */
static bool move_in(struct attached *a)
{
	uint32_t known = __atomic_load_n(&a->s->lodger, __ATOMIC_RELAXED), before;

	for (int tries = 0; tries < (int)PROC_MAX; tries++) {
		bool is_free = !known || known > PROC_MAX || known == a->slot + 1 || !is_alive(&a->s->proc[known - 1]);

		if (is_free && take_place(a, known))
			return true;
		before = known;
		known = __atomic_load_n(&a->s->lodger, __ATOMIC_RELAXED);
		if (known == before)
			return false;
	}
	return false;
}

struct attached *process_settled(void)
{
	return __atomic_load_n(&home, __ATOMIC_ACQUIRE);
}

struct attached *process_home(void)
{
	struct attached *a = process_settled();

	if (a)
		return a;
	quiet_lock(&settling);
	a = home;
	if (!a) {
		a = lender && net_lends(lender) && move_in(lender) ? lender : process_own_stack();
		__atomic_store_n(&home, a, __ATOMIC_RELEASE);
	}
	quiet_unlock(&settling);
	return a;
}

/* --- the process table --- */

uint32_t process_slot_alloc(struct stack *s, uint32_t pid)
{
	for (uint32_t i = 0; i < PROC_MAX; i++) {
		struct stack_proc *p = &s->proc[i];

		if (p->pid)
			continue;
		p->pid = pid;
		__atomic_store_n(&p->gen, p->gen + 1, __ATOMIC_RELAXED);
		p->start_time = 0;
		p->sleepers = 0;
		p->has_bell = 0;
		p->dirty_head = p->dirty_tail = 0;
		p->dirty_overflow = 0;
		p->looked = 0;
		__atomic_store_n(&s->procs, s->procs + 1, __ATOMIC_RELAXED);
		return i;
	}
	return PROC_MAX;
}

void process_slot_name(struct stack *s, uint32_t slot, uint32_t pid)
{
	struct thread_info info = {0};

	proc_thread_info(pid, pid, &info);
	s->proc[slot].start_time = info.start_time;
	s->proc[slot].pid = pid;
}

void process_after_fork(void)
{
	pthread_mutex_init(&making, NULL);
	pthread_mutex_init(&settling, NULL);
	lender = home;
	home = NULL;
	own_stack = NULL;
	failed = false;
}

void process_slot_drop(struct attached *a, uint32_t slot, uint64_t now_us)
{
	struct stack *s = a->s;
	uint64_t bit = 1ull << slot;

	if (slot >= PROC_MAX || !s->proc[slot].pid)
		return;
	for (uint32_t i = 1; i < s->sock_pool.mark && i < s->cfg.max_socks; i++) {
		struct sock *k = sock_at(s, i);

		if (!k)
			continue;
		k->dirty_mask &= ~bit; /* outlives the socket (engine/sock.c) */
		if (k->proto == SOCK_FREE)
			continue;
		k->interest &= ~bit;
		if (!(k->holders & bit))
			continue;
		k->holders &= ~bit;
		if (k->holders)
			continue;
		if (k->proto == SOCK_TCP)
			tcp_close(&a->e, k, now_us);
		else
			udp_close(&a->e, k);
	}
	s->proc[slot].pid = 0;
	if (s->lodger == slot + 1)
		s->lodger = 0;
	__atomic_store_n(&s->procs, s->procs - 1, __ATOMIC_RELAXED);
}

/* --- news --- */

struct news {
	vsock_t v;
	uint32_t edges;
};

/* Clears its dirty bit in any case: that outlives the socket (engine/sock.c). 0: not ours. */
static uint32_t take_edges(struct attached *a, struct sock *k)
{
	uint64_t bit = 1ull << a->slot;
	uint32_t edges = k->edges | (k->edge_rdhup ? EV_RDHUP : 0);

	k->dirty_mask &= ~bit;
	if (!k->dirty_mask) {
		k->edges = 0;
		k->edge_rdhup = 0;
	}
	return k->proto != SOCK_FREE && k->holders & bit ? edges | TAKEN : 0;
}

static uint32_t level(struct attached *a, struct sock *k)
{
	return k->proto == SOCK_TCP ? tcp_poll(&a->e, k) : udp_poll(&a->e, k);
}

/* Spinning threads look at it without the lock. */
static void set_head(struct stack_proc *p, uint32_t head)
{
	__atomic_store_n(&p->dirty_head, head, __ATOMIC_RELAXED);
}

/* Some news were lost: every socket of ours is news. The scan goes on where it stopped (p->looked). */
static uint32_t drain_all(struct attached *a, struct news *out, bool *wake)
{
	struct stack_proc *p = &a->s->proc[a->slot];
	uint32_t n = 0, i = p->looked ? p->looked : 1;

	if (!p->looked)
		set_head(p, p->dirty_tail);
	for (; i < a->s->sock_pool.mark && n < NEWS_BURST; i++) {
		struct sock *k = sock_at(a->s, i);
		uint32_t edges = k ? take_edges(a, k) : 0;

		if (!edges)
			continue;
		out[n].v = vs_name(a, k);
		out[n++].edges = (edges & ~TAKEN) | level(a, k);
		*wake |= k->waiters != 0;
	}
	p->looked = n == NEWS_BURST ? i : 0;
	if (!p->looked)
		p->dirty_overflow = 0;
	return n;
}

static uint32_t drain(struct attached *a, struct news *out, bool *wake)
{
	struct stack_proc *p = &a->s->proc[a->slot];
	uint32_t n = 0;

	if (p->dirty_overflow)
		return drain_all(a, out, wake);
	if (p->dirty_tail - p->dirty_head > DIRTY_RING)
		set_head(p, p->dirty_tail - DIRTY_RING);
	while (p->dirty_head != p->dirty_tail && n < NEWS_BURST) {
		struct sock *k = sock_at(a->s, p->dirty[p->dirty_head % DIRTY_RING]);
		uint32_t edges = k ? take_edges(a, k) : 0;

		set_head(p, p->dirty_head + 1);
		if (!edges)
			continue;
		out[n].v = vs_name(a, k);
		out[n++].edges = edges & ~TAKEN;
		*wake |= k->waiters != 0;
	}
	return n;
}

/* A thread leaves the stack while the helper sleeps: by when must the helper look? A timer may have been set. Doorbells
 * have been left armed for the helper (wait.c); but where several processes share a stack their threads leave them
 * alone. With the lock. */
uint64_t process_deadline(const struct attached *a)
{
	return a->s->procs > 1 && a->active ? 0 : engine_deadline(&a->e);
}

/* After the release: the other ends that sleep. */
void stack_ring(struct attached *a, const uint16_t *posted, uint32_t n)
{
	bool first = large_mine && large_mine->full; /* what found no room there comes behind */

	if (first)
		large_send();
	for (uint32_t i = 0; i < n; i++) {
		struct vnic *v = &a->e.vnic[posted[i]];
		uint32_t kind = v->ops ? vnic_take_armed(v) : VNIC_ARMED_NO;

		if (kick_due(v))
			kick_posted(a, posted[i]);
		if (kind && v->doorbell_fd[kind - 1] >= 0)
			bells_ring_fd(v->doorbell_fd[kind - 1]);
		else if (kind)
			rdv_ring(v->life_fd, (uint8_t)kind);
	}
	if (large_mine) {
		kick_flush();
		large_send();
	}
}

static void leave_slow(struct attached *a, const uint16_t *posted, uint32_t n, const struct bells_due *due)
{
	struct stack_proc *p = &a->s->proc[a->slot];
	struct news news[NEWS_BURST];
	uint32_t count, all = 0;
	bool wake = false, more;

	do {
		count = drain(a, news, &wake);
		more = p->dirty_overflow || p->dirty_head != p->dirty_tail;
		lock_release(a->s);
		stack_ring(a, posted, n);
		n = 0;
		if (wait_on_news)
			for (uint32_t i = 0; i < count; i++)
				wait_on_news(listener_program_name(news[i].v), news[i].edges);
		all += count;
		if (more && lock_take(a->s))
			stack_repair(a);
	} while (more);
	/* A thread that is about to sleep counts itself, then looks at its sockets; we told its sockets, then count. */
	if (all)
		atomic_fetch_add(&process_news, 1);
	if (wake || (all && atomic_load(&process_any_sleepers)))
		bells_ring_own(a);
	bells_ring(a, due);
}

void stack_leave_with_work(struct attached *a)
{
	uint16_t posted[VNIC_MAX];
	uint32_t n = 0, large = 0;
	struct bells_due due;
	/* 0: as early as can be, if it has fallen asleep by the time that we look again */
	uint64_t deadline = 0;

	for (uint32_t i = 0; i < a->active; i++) {
		struct vnic_state *st = a->e.vnic[a->vnic[i]].st;

		if (st->posted) {
			st->posted = 0;
			posted[n++] = a->vnic[i];
		}
	}
	if (__builtin_expect(atomic_load_explicit(&helper_asleep, memory_order_relaxed), 0))
		deadline = process_deadline(a);
	if (__builtin_expect(a->large_used, 0))
		large = large_take(a);
	if (n && capture_on(a->s))
		for (uint32_t i = 0; i < n; i++)
			capture_sent(&a->e, posted[i]);
	due.who = a->s->procs > 1 ? bells_look(a, &due, false) : 0;
	if (__builtin_expect(stack_news_wanted(a, wait_self) || a->s->proc[a->slot].dirty_overflow, 0) || due.who) {
		leave_slow(a, posted, n, &due);
	} else {
		lock_release(a->s);
		if (n | large)
			stack_ring(a, posted, n);
	}
	process_helper_expect(deadline);
}

void wait_wake_all(void)
{
	atomic_fetch_add(&process_news, 1);
	for (uint32_t i = 0; i < atomic_load(&attached_count); i++)
		bells_ring_own(attached[i]);
}
