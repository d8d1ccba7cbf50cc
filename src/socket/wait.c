/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Waiting (wait.h). A waiting thread goes through up to three phases:
 *
 *   1. It spins on the event queues of its stacks: no lock, no clock, no system call for the first microseconds.
 *   2. It spins on, but looks at the clock, at signals, at the kernel's descriptors, and gives its core away now and
 *      then (sched_yield); at once if the other end runs on the same core (the control line says where).
 *   3. It sleeps on an epoll descriptor of its own, in which the doorbells of all stacks are registered
 *      edge-triggered. Doorbells are never read, so one write wakes every sleeper, and none is lost; but of processes
 *      that share a stack only one sleeper, who then wakes the others that it concerns (bells.h). Where a stop and
 *      continuation by signals does no harm (they end epoll_wait, but not poll) one epoll_pwait does it: what is to
 *      be watched of the kernel's is registered there too, and stays until the thread waits for something else. Else
 *      a ppoll, and an epoll_pwait to take the doorbell's event.
 *
 * How long it spins adapts per thread: a spin that succeeds, or a sleep that turns out short, raises the limit to
 * knob SPIN_US; each long sleep halves it. So a program that waits for rare events, or more busy programs than
 * cores, soon do not spin at all (wait_sleepy), but for a microsecond now and then.
 *
 * No wake-up is lost. Going to sleep: count as a sleeper and arm the vNICs (under the lock), then look once more. Who
 * posts a frame looks at `armed` after its release of the lock; who takes in news for others looks at the sleepers
 * after that. Each pair has full barriers between its two steps.
 *
 * Signals: the counts of handler runs tell (wait_signals). A handler that runs between the last look at them and the
 * sleep finds wait_near_sleep set and rings for this process, which ends the sleep at once. So a sleep needs no
 * change of the signal mask.
 */
#define _GNU_SOURCE
#include "socket/wait.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host/host.h"
#include "host/knobs.h"
#include "socket/bells.h"
#include "socket/helper.h"
#include "socket/kick.h"
#include "socket/net.h"
#include "socket/process.h"
#include "socket/raw.h"

#define LOOK_EVERY 64u /* spins between looks at the clock and the like */
#define PURE_US 4u     /* no system call before */
#define SAME_CORE_YIELDS 12u
#define TRY_EVERY 16u           /* sleeps of a thread that does not spin */
#define ALONE_SLEEP_US 1000000u /* where a relative may be woken in our place (bells.h) */
#define BLIND_SLEEP_US 1000u    /* without an epoll descriptor of our own (none to be had) */
#define FDS_TRACKED 65536
#define BUSY_WAITS 64u /* without a sleep: then the networks' rings are not waited for until the next one */
#define SIGSET_BYTES 8 /* of the kernel's sigset_t */
#define SLEEP_EVENTS 16
#define KERNEL_BEDS 32u /* threads that may register one; the kernel counts the ways from a socket to all of them */
#define VAIN_MAX 8u

/* What a thread remembers between waits. */
struct waiter {
	int epfd;         /* plus 1; 0: none yet */
	uint32_t watched; /* stacks registered in it */
	uint64_t alone;   /* bit per stack: of the threads of the tree its doorbell wakes only one (bells.h) */
	uint32_t bells;   /* how often bells had been made by then */
	uint32_t rings;   /* networks' rings registered in it (net_wakes) */
	uint32_t busy;    /* waits since the last sleep */
	uint32_t vain;    /* sleeps in turn that ended for nothing */
	uint32_t spin_us; /* current limit, plus 1; 0: not set yet */
	uint32_t naps;    /* long sleeps since it spins no more */
	int kernel_fd;    /* registered in it, of that id (struct wait); 0: none */
	uint64_t kernel_id, refused_id;
	uint32_t closings; /* at its registration: if it is the same, the number still means the same */
};
static _Thread_local struct waiter self;
_Thread_local bool wait_same_core, wait_sleepy, wait_half_refused;
_Thread_local volatile bool wait_near_sleep;
_Thread_local volatile bool wait_cancelled;

static _Atomic uint64_t thread_epfds[FDS_TRACKED / 64]; /* to close them in a forked child */
static pthread_key_t at_thread_exit;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static _Atomic uint32_t bells_made, kernel_beds, kernel_closings;
static _Atomic uint64_t kernel_ids;
static _Atomic bool no_pwait2; /* it is there since Linux 5.11 */

struct waiting {
	struct wait *w;
	uint32_t signals[2];
	uint32_t news;
	uint64_t deadline_us; /* UINT64_MAX: none */
	uint64_t wake_us;     /* the end of this sleep: the deadline, or earlier */
	uint64_t kernel_us;   /* when the kernel's descriptors were looked at last */
};

bool wait_poll_stacks(void)
{
	uint32_t n = atomic_load_explicit(&attached_count, memory_order_acquire);
	bool any = false;

	for (uint32_t i = 0; i < n; i++) {
		struct attached *a = attached[i];

		if (!stack_pending(a))
			continue;
		stack_enter(a);
		any |= stack_poll(a, clock_us()) > 0;
		stack_leave(a);
	}
	return any;
}

/* Something may have changed for us: a frame waits, or another thread or process has taken news in. */
static bool stirred(const struct waiting *x)
{
	uint32_t n = atomic_load_explicit(&attached_count, memory_order_relaxed);

	if (atomic_load_explicit(&process_news, memory_order_relaxed) != x->news)
		return true;
	for (uint32_t i = 0; i < n; i++) {
		const struct attached *a = attached[i];
		const struct stack_proc *p = &a->s->proc[a->slot];

		if (stack_pending(a))
			return true;
		if (__atomic_load_n(&a->s->procs, __ATOMIC_RELAXED) > 1 &&
		    __atomic_load_n(&p->dirty_tail, __ATOMIC_RELAXED) !=
			__atomic_load_n(&p->dirty_head, __ATOMIC_RELAXED))
			return true;
	}
	return false;
}

static bool look(struct waiting *x)
{
	struct wait *w = x->w;

	x->news = atomic_load(&process_news);
	if (!w->takes_in || atomic_load_explicit(&attached_count, memory_order_relaxed) > 1)
		wait_poll_stacks();
	return w->ready(w->arg);
}

static bool cancelled(void)
{
	int state;

	if (__builtin_expect(!wait_cancelled, 1))
		return false;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	pthread_setcancelstate(state, NULL);
	return state == PTHREAD_CANCEL_ENABLE;
}

static bool interrupted(const struct waiting *x)
{
	return cancelled() || wait_signals[0] != x->signals[0] || (!x->w->restart && wait_signals[1] != x->signals[1]);
}

/* --- the kernel's descriptors --- */

/* True: the wait is over. */
static bool kernel_look(struct waiting *x)
{
	struct wait *w = x->w;
	struct pollfd p[2] = {{.fd = w->kernel_fd, .events = POLLIN},
			      {.fd = w->watch_events ? w->watch_fd : -1, .events = (short)w->watch_events}};

	if ((p[0].fd < 0 && p[1].fd < 0) || host_sys.poll(p, 2, 0) <= 0)
		return false;
	w->kernel_ready = p[0].revents != 0;
	if (p[1].revents)
		w->watch_ready = true;
	return w->kernel_ready || (p[1].revents && look(x));
}

static bool kernel_watched(const struct waiting *x)
{
	return x->w->kernel_fd >= 0 || x->w->watch_events;
}

/* --- where the other end runs --- */

/* Say where we run, and whether one of the other ends was last seen on the same core. */
static bool on_same_core(void)
{
	uint32_t cpu = (uint32_t)sched_getcpu() + 1, n = atomic_load_explicit(&attached_count, memory_order_relaxed);
	bool same = false;

	for (uint32_t i = 0; i < n; i++) {
		struct attached *a = attached[i];

		uint32_t active = __atomic_load_n(&a->active, __ATOMIC_ACQUIRE);

		for (uint32_t j = 0; j < active; j++) {
			struct vnic_ctrl *c = __atomic_load_n(&a->view[j].ctrl, __ATOMIC_RELAXED);
			const struct vnic_ctrl *peer = __atomic_load_n(&a->view[j].peer, __ATOMIC_RELAXED);

			if (__atomic_load_n(&c->cpu, __ATOMIC_RELAXED) != cpu)
				__atomic_store_n(&c->cpu, cpu, __ATOMIC_RELAXED);
			same |= __atomic_load_n(&peer->cpu, __ATOMIC_RELAXED) == cpu;
		}
	}
	return same;
}

/* --- spinning --- */

enum outcome { GO_ON, DONE, INTERRUPTED, TIMED_OUT };

static uint32_t spin_limit(void)
{
	uint32_t max = (uint32_t)knob[K_SPIN_US];

	if (!self.spin_us || self.spin_us - 1 > max)
		self.spin_us = max + 1;
	return self.spin_us - 1;
}

static void spin_adapt(bool worth_it)
{
	uint32_t max = (uint32_t)knob[K_SPIN_US], now = spin_limit();

	now = worth_it ? max : now / 2;
	if (!now && max && ++self.naps % TRY_EVERY == 0)
		now = 1; /* times may have changed, and sleeps be long only because the machine is busy */
	wait_sleepy = !now;
	self.spin_us = now + 1;
}

/* The look that phase 2 takes every now and then. */
static enum outcome occasional(struct waiting *x, uint64_t elapsed_us, uint64_t *now_us)
{
	if (interrupted(x))
		return INTERRUPTED;
	if (x->deadline_us != UINT64_MAX || kernel_watched(x)) {
		*now_us = clock_us();
		if (*now_us >= x->deadline_us)
			return TIMED_OUT;
		if (kernel_watched(x) && elapsed_us >= PURE_US && *now_us - x->kernel_us >= knob[K_POLL_KERNEL_US]) {
			x->kernel_us = *now_us;
			if (kernel_look(x))
				return DONE;
			x->w->looked = true;
		}
	}
	return GO_ON;
}

static enum outcome spin(struct waiting *x)
{
	uint64_t start = clock_cycles(), per_us = clock_cycles_per_us(), limit = spin_limit(), now_us = 0;
	uint32_t yields = 0;

	if (!limit)
		return GO_ON;
	for (uint32_t i = 1;; i++) {
		uint64_t elapsed;
		enum outcome o;

		if (stirred(x) && look(x))
			return DONE;
		wait_relax();
		if (i % LOOK_EVERY && !wait_same_core)
			continue;
		elapsed = (clock_cycles() - start) / per_us;
		o = occasional(x, elapsed, &now_us);
		if (o != GO_ON)
			return o;
		wait_same_core = on_same_core();
		if (elapsed >= limit || (wait_same_core && yields >= SAME_CORE_YIELDS))
			return GO_ON;
		if (elapsed >= PURE_US || wait_same_core) {
			raw_call(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
			yields++;
		}
	}
}

/* --- sleeping --- */

static void close_thread_epfd(void *arg)
{
	int fd = (int)(intptr_t)arg - 1;

	if (self.kernel_id)
		atomic_fetch_sub(&kernel_beds, 1);
	self.kernel_id = 0;
	atomic_fetch_and(&thread_epfds[fd / 64], ~(1ull << fd % 64));
	host_fd_close(fd);
}

bool wait_has_bed(void)
{
	return self.epfd != 0;
}

void wait_give_way(void)
{
	if (!self.epfd)
		return;
	pthread_setspecific(at_thread_exit, NULL);
	close_thread_epfd((void *)(intptr_t)self.epfd);
	self.epfd = 0;
	self.watched = 0;
}

uint64_t wait_kernel_id(void)
{
	return atomic_fetch_add(&kernel_ids, 1) + 1;
}

void wait_kernel_closing(void)
{
	atomic_fetch_add(&kernel_closings, 1);
}

static void make_key(void)
{
	pthread_key_create(&at_thread_exit, close_thread_epfd);
}

static int watch_doorbell(int epfd, int fd, uint32_t how)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET | how};

	return host_sys.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev) < 0 && errno != EEXIST ? -errno : 0;
}

/* A process that has no entry of its own, as the table is full, is reached by the doorbell in any case. */
static int watch_stack(int epfd, const struct attached *a)
{
	int bell = bells_of(a, a->slot), ret;

	if (bell != a->doorbell[0] && a->s->proc[a->slot].pid == (uint32_t)getpid())
		self.alone |= 1ull << a->index;
	ret = watch_doorbell(epfd, a->doorbell[0], self.alone >> a->index & 1 ? EPOLLEXCLUSIVE : 0);
	return ret < 0 || bell == a->doorbell[0] ? ret : watch_doorbell(epfd, bell, 0);
}

static int watch_doorbells(int epfd, uint32_t from)
{
	uint32_t n = atomic_load(&attached_count);
	int ret = 0;

	for (uint32_t i = from; i < n && ret == 0; i++)
		ret = watch_stack(epfd, attached[i]);
	return ret < 0 ? ret : (int)n;
}

/* The rings of networks, which are the kernel's: it wakes whoever waits for their descriptors. One that is gone says
 * so and is left out. */
static void watch_rings(void)
{
	uint32_t n = net_wakes();

	for (; self.rings < n; self.rings++) {
		struct epoll_event ev = {.events = EPOLLIN | EPOLLET};

		host_sys.epoll_ctl(self.epfd - 1, EPOLL_CTL_ADD, net_wake_fd(self.rings), &ev);
	}
}

/* As long as they are registered the kernel takes the way to us for each frame, both ways: an eighth of a stream's
 * throughput. Not worth it for a thread that hardly sleeps. */
static void unwatch_rings(void)
{
	self.vain = 0;
	while (self.rings)
		host_sys.epoll_ctl(self.epfd - 1, EPOLL_CTL_DEL, net_wake_fd(--self.rings), &(struct epoll_event){0});
}

/* The kernel_fd of an earlier wait does not wake us any more. If one was closed since, the number may not be it. */
static void forget_kernel(void)
{
	if (self.closings != atomic_load(&kernel_closings)) {
		wait_give_way();
		return;
	}
	host_sys.epoll_ctl(self.epfd - 1, EPOLL_CTL_DEL, self.kernel_fd, &(struct epoll_event){0});
	atomic_fetch_sub(&kernel_beds, 1);
	self.kernel_id = 0;
}

static void watch_kernel(const struct wait *w)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = w->kernel_id};

	if (self.refused_id == w->kernel_id || atomic_load_explicit(&kernel_beds, memory_order_relaxed) >= KERNEL_BEDS)
		return;
	self.closings = atomic_load(&kernel_closings);
	if (host_sys.epoll_ctl(self.epfd - 1, EPOLL_CTL_ADD, w->kernel_fd, &ev) < 0) {
		self.refused_id = w->kernel_id; /* sets in sets in sets */
		return;
	}
	atomic_fetch_add(&kernel_beds, 1);
	self.kernel_fd = w->kernel_fd;
	self.kernel_id = w->kernel_id;
}

/* This thread's epoll descriptor with all doorbells in it, or -1. What is to be watched of the kernel's is in it if
 * self.kernel_id says so. */
static int thread_epfd(const struct wait *w)
{
	int fd, n;

	pthread_once(&key_once, make_key);
	if (self.kernel_id && (self.kernel_id != w->kernel_id || self.kernel_fd != w->kernel_fd))
		forget_kernel();
	if (self.bells != atomic_load(&bells_made))
		wait_give_way();
	if (!self.epfd) {
		self.bells = atomic_load(&bells_made);
		fd = host_sys.epoll_create1(EPOLL_CLOEXEC);
		fd = fd < 0 ? fd : host_fd_high(fd);
		if (fd < 0)
			return -1;
		self.epfd = fd + 1;
		self.watched = self.rings = 0;
		self.alone = 0;
		atomic_fetch_or(&thread_epfds[fd / 64], 1ull << fd % 64);
		pthread_setspecific(at_thread_exit, (void *)(intptr_t)self.epfd);
	}
	if (self.watched != atomic_load(&attached_count)) {
		n = watch_doorbells(self.epfd - 1, self.watched);
		if (n < 0)
			return -1;
		self.watched = (uint32_t)n;
	}
	if (self.rings != net_wakes())
		watch_rings();
	if (w->kernel_id && !self.kernel_id)
		watch_kernel(w);
	return self.epfd - 1;
}

/* Count as a sleeper of every stack, and arm its vNICs. */
static void sleeper_enter(const struct wait *w)
{
	for (uint32_t i = 0; i < self.watched; i++) {
		struct attached *a = attached[i];
		struct sock *k;

		stack_enter(a);
		a->s->proc[a->slot].sleepers++;
		a->s->proc[a->slot].naps++;
		tcp_flush_acks(&a->e);
		k = w->sock && vs_stack_of(w->sock) == i ? vs_sock(a, w->sock) : NULL;
		if (k)
			k->waiters++;
		for (uint32_t j = 0; j < a->active; j++)
			if (a->view[j].ctrl->armed != VNIC_ARMED_THREAD)
				vnic_arm(&a->e.vnic[a->vnic[j]], VNIC_ARMED_THREAD);
		stack_leave(a);
	}
	if (!w->sock)
		atomic_fetch_add(&process_any_sleepers, 1);
	atomic_thread_fence(memory_order_seq_cst);
}

/* The doorbell may have woken this thread alone for a wire that this process has not mapped. From now on it wakes it
 * together with others. */
static void hear_with_others(const struct attached *a)
{
	self.alone &= ~(1ull << a->index);
	host_sys.epoll_ctl(self.epfd - 1, EPOLL_CTL_DEL, a->doorbell[0], &(struct epoll_event){0});
	watch_doorbell(self.epfd - 1, a->doorbell[0], 0);
}

/* No thread of this process sleeps on the stack any more. Disarm only where nobody else does: a doorbell rung for
 * nothing costs less than one that is missed. With the lock. */
static void disarm(struct attached *a, uint32_t idle)
{
	for (uint32_t j = 0; a->s->procs == 1 && j < a->active; j++)
		if (__atomic_load_n(&a->view[j].ctrl->armed, __ATOMIC_RELAXED) != idle)
			vnic_arm(&a->e.vnic[a->vnic[j]], idle);
}

/* A helper that sleeps is to be woken from now on; what came before, for which another doorbell rang, we take in. So we
 * do with what came for others, who were not woken because we were. */
static void sleeper_leave(const struct wait *w, uint32_t stacks)
{
	if (!w->sock)
		atomic_fetch_sub(&process_any_sleepers, 1);
	for (uint32_t i = 0; i < stacks; i++) {
		struct attached *a = attached[i];
		struct bells_due others;
		bool more = false, blind = false, alone = self.alone >> i & 1;
		struct sock *k;
		uint32_t left, idle;

		others.who = 0;
		stack_enter(a);
		left = a->s->proc[a->slot].sleepers ? --a->s->proc[a->slot].sleepers : 0;
		k = w->sock && vs_stack_of(w->sock) == i ? vs_sock(a, w->sock) : NULL;
		if (k && k->waiters)
			k->waiters--;
		idle = atomic_load(&helper_asleep) ? VNIC_ARMED_HELPER : VNIC_ARMED_NO;
		if (!left)
			disarm(a, idle);
		if ((alone || idle == VNIC_ARMED_HELPER) && stack_pending(a))
			more = stack_poll(a, clock_us()) >= POLL_BUDGET;
		if (alone) {
			blind = !bells_see_all_wires(a);
			if (blind || more)
				bells_look(a, &others, true);
		}
		stack_leave(a);
		if (more)
			process_helper_kick();
		if (blind)
			hear_with_others(a);
		bells_ring(a, &others);
	}
}

static struct timespec timespec_of(uint64_t us)
{
	return (struct timespec){.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000};
}

static uint64_t us_left(const struct waiting *x)
{
	uint64_t now = clock_us();

	return x->wake_us > now ? x->wake_us - now : 0;
}

/* All in one system call. -ENOSYS: not here. */
static long sleep_in_one(struct waiting *x, int epfd, const sigset_t *mask)
{
	struct epoll_event ev[SLEEP_EVENTS] = {0};
	struct wait *w = x->w;
	struct timespec ts;
	long n;

	if (epfd < 0 || w->watch_events || !(w->restart || w->as_epoll) ||
	    (w->kernel_fd >= 0 && (!w->kernel_id || self.kernel_id != w->kernel_id)))
		return -ENOSYS;
	if (x->wake_us == UINT64_MAX || x->wake_us != x->deadline_us) {
		long ms = x->wake_us == UINT64_MAX ? -1 : (long)ALONE_SLEEP_US / 1000;

		n = raw_call(SYS_epoll_pwait, epfd, (long)ev, SLEEP_EVENTS, ms, (long)mask, SIGSET_BYTES);
	} else {
		if (atomic_load_explicit(&no_pwait2, memory_order_relaxed))
			return -ENOSYS;
		ts = timespec_of(us_left(x));
		n = raw_call(SYS_epoll_pwait2, epfd, (long)ev, SLEEP_EVENTS, (long)&ts, (long)mask, SIGSET_BYTES);
		if (n < 0 && n != -EINTR) { /* the kernel has not got it, or a sandbox has not heard of it */
			atomic_store(&no_pwait2, true);
			return -ENOSYS;
		}
	}
	for (long i = 0; i < n; i++)
		w->kernel_ready |= ev[i].data.u64 != 0;
	w->slept = n >= 0 && n < SLEEP_EVENTS && !w->kernel_ready;
	return n;
}

static long sleep_in_kernel(struct waiting *x, int epfd, const sigset_t *mask)
{
	struct wait *w = x->w;
	struct pollfd p[3] = {
	    {.fd = epfd, .events = POLLIN},
	    {.fd = w->kernel_fd, .events = POLLIN},
	    {.fd = w->watch_events ? w->watch_fd : -1, .events = (short)w->watch_events},
	};
	struct epoll_event drop[8];
	uint64_t left = UINT64_MAX;
	struct timespec ts;
	long n = sleep_in_one(x, epfd, mask);

	if (n != -ENOSYS)
		return n;
	if (x->wake_us != UINT64_MAX)
		left = us_left(x);
	if (epfd < 0 && left > BLIND_SLEEP_US)
		left = BLIND_SLEEP_US;
	ts = timespec_of(left);
	n = raw_call(SYS_ppoll, (long)p, 3, left == UINT64_MAX ? 0 : (long)&ts, (long)mask, SIGSET_BYTES, 0);
	if (n > 0 && (p[0].revents & POLLIN))
		host_sys.epoll_pwait(epfd, drop, 8, 0, NULL);
	w->slept = n >= 0 && !p[1].revents;
	if (n > 0 && p[1].revents)
		w->kernel_ready = true;
	if (n > 0 && p[2].revents)
		w->watch_ready = true;
	return n;
}

/* Frames that come for other processes of the tree wake us as well. If they did so often, and nothing came for us, we
 * leave those rings to them, who take in what is ours, too, and ring; their helpers and ours do when nobody else does.
 */
static void slept_in_vain(void)
{
	if (self.vain == VAIN_MAX || ++self.vain < VAIN_MAX)
		return;
	for (uint32_t i = 0; i < self.rings; i++)
		if (__atomic_load_n(&net_wake_stack(i)->s->procs, __ATOMIC_RELAXED) > 1)
			host_sys.epoll_ctl(self.epfd - 1, EPOLL_CTL_DEL, net_wake_fd(i), NULL);
}

/* Something was for us, or for another thread of this process: all rings are ours to watch. */
static void slept_well(void)
{
	if (self.vain >= VAIN_MAX)
		self.rings = 0;
	self.vain = 0;
}

/* When to look again though nothing happens. */
static uint64_t wake_time(const struct waiting *x)
{
	uint64_t soon = self.alone ? clock_us() + ALONE_SLEEP_US : UINT64_MAX;

	return soon < x->deadline_us ? soon : x->deadline_us;
}

/* Nothing happened, but a relative that was woken in our place may have been stopped, or killed, before it could take
 * in what had come. GO_ON: sleep on; TIMED_OUT: not so. */
static enum outcome look_up(struct waiting *x)
{
	for (uint64_t left = self.alone; left; left &= left - 1) {
		struct attached *a = attached[__builtin_ctzll(left)];
		bool all;

		stack_enter(a);
		if (stack_pending(a))
			stack_poll(a, clock_us());
		all = bells_see_all_wires(a) && !stack_pending(a);
		stack_leave(a);
		if (!all) /* sleeper_leave tells the others */
			return TIMED_OUT;
	}
	if (x->wake_us == x->deadline_us)
		return TIMED_OUT;
	return look(x) ? DONE : GO_ON;
}

/* One sleep: until something happened, whatever it was. */
static enum outcome sleep_once(struct waiting *x)
{
	struct wait *w = x->w;
	enum outcome o = GO_ON;
	uint64_t start;
	uint32_t stacks, news;
	int epfd = thread_epfd(w);
	long n = 0;

	stacks = self.watched;
	sleeper_enter(w);
	wait_near_sleep = true;
	news = atomic_load(&process_news);
	if (look(x))
		o = DONE;
	else if (interrupted(x))
		o = INTERRUPTED;
	else {
		self.busy = 0;
		start = clock_us();
		do {
			x->wake_us = wake_time(x);
			n = sleep_in_kernel(x, epfd, w->sigmask);
		} while (n == 0 && (o = look_up(x)) == GO_ON);
		spin_adapt(clock_us() - start < 2 * knob[K_SPIN_US]);
	}
	wait_near_sleep = false;
	sleeper_leave(w, stacks);
	if (o == DONE || o == INTERRUPTED)
		return o;
	if (w->kernel_ready || look(x)) {
		slept_well();
		return DONE;
	}
	if (atomic_load(&process_news) != news)
		slept_well();
	else if (n > 0)
		slept_in_vain();
	/* A handler that does not count itself (no trampoline): then only who asked for a restart goes on. */
	if (interrupted(x) || (n == -EINTR && !w->restart))
		return INTERRUPTED;
	return x->deadline_us != UINT64_MAX && clock_us() >= x->deadline_us ? TIMED_OUT : GO_ON;
}

static enum outcome wait_long(struct waiting *x)
{
	enum outcome o;

	if (look(x)) /* from here on others tell us (process_waiting); what they took in before, we see now */
		return DONE;
	o = spin(x);
	if (o == DONE)
		spin_adapt(true);
	while (o == GO_ON)
		o = sleep_once(x);
	return o;
}

int wait_for(struct wait *w)
{
	struct waiting x = {.w = w, .signals = {wait_signals[0], wait_signals[1]}, .deadline_us = UINT64_MAX};
	enum outcome o;

	w->kernel_ready = w->looked = false;
	kick_end();
	if (__builtin_expect(self.rings && ++self.busy >= BUSY_WAITS, 0))
		unwatch_rings();
	if (look(&x))
		return 0;
	if (!w->timeout_us) {
		process_idle();
		return w->kernel_fd >= 0 && kernel_look(&x) ? 0 : -ETIMEDOUT;
	}
	if (w->timeout_us > 0)
		x.deadline_us = clock_us() + (uint64_t)w->timeout_us;
	/* The shortest waits are over before anybody needs to know of them. */
	for (uint32_t i = 0; i < 2 * LOOK_EVERY && knob[K_SPIN_US] && !wait_same_core && !wait_sleepy; i++) {
		if (stirred(&x) && look(&x))
			return 0;
		if (i == IDLE_SPINS)
			process_idle();
		wait_relax();
	}
	if (__builtin_expect(helper_owed, 0))
		(void)helper_start();
	wait_self = 1;
	atomic_fetch_add(&process_waiting, 1);
	o = wait_long(&x);
	atomic_fetch_sub(&process_waiting, 1);
	wait_self = 0;
	switch (o) {
	case INTERRUPTED:
		return -EINTR;
	case TIMED_OUT:
		return -ETIMEDOUT;
	default:
		return 0;
	}
}

/* --- what changes under those who wait --- */

/* Async-signal-safe. */
void wait_nudge(void)
{
	const struct attached *a = process_stack(0);

	if (a)
		bells_ring_own(a);
}

void wait_bells_made(void)
{
	atomic_fetch_add(&bells_made, 1);
}

void wait_after_fork(void)
{
	for (uint32_t i = 0; i < FDS_TRACKED / 64; i++) {
		uint64_t bits = atomic_exchange(&thread_epfds[i], 0);

		for (; bits; bits &= bits - 1)
			host_fd_close((int)(i * 64 + (uint32_t)__builtin_ctzll(bits)));
	}
	memset(&self, 0, sizeof(self));
	atomic_store(&kernel_beds, 0);
	pthread_once(&key_once, make_key);
	pthread_setspecific(at_thread_exit, NULL);
	wait_self = 0;
	wait_near_sleep = false;
	wait_same_core = wait_sleepy = false;
	atomic_store(&process_waiting, 0);
	atomic_store(&process_any_sleepers, 0);
}
