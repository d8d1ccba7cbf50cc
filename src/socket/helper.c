/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The helper: one thread per process that does what must happen while the program's threads do not call in. It answers
 * rendezvous, notices that a peer (its wire hangs up) or a process of the tree (its pidfd) is gone, and takes over
 * frames and timers.
 *
 * Two states. Looking: every LOOK_MS it compares each stack's lock.acquired with what it saw last. If it changed, the
 * program does its work itself. If none did, the helper takes in what there is, arms the helper's doorbell of each vNIC
 * where no thread sleeps, and falls asleep until a doorbell, an event, or the next timer. Asleep it costs nothing. It
 * says so in helper_asleep, and until when in helper_deadline; a thread that sets an earlier timer wakes it
 * (stack_leave), and one that wakes up leaves the doorbells armed for it (wait.c). So a program that only looks at its
 * own clock now and then leaves the helper alone. Setting helper_asleep and then looking at lock.acquired once more,
 * against the thread that enters and then looks at helper_asleep, loses no wake-up: both have a full barrier between.
 *
 * All signals are blocked in this thread. After fork the child has no helper; it starts one when it needs it.
 */
#define _GNU_SOURCE
#include "socket/helper.h"

#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "host/host.h"
#include "host/knobs.h"
#include "socket/backing.h"
#include "socket/handshakes.h"
#include "socket/kick.h"
#include "socket/net.h"
#include "socket/raw.h"
#include "socket/relatives.h"
#include "socket/sockets.h"
#include "socket/wire.h"

#define LOOK_MS 10
#define ALARM_US 1000
#define STACK_BYTES (256 * 1024)
#define EVENTS 16
#define FDS_TRACKED 65536

enum watched {
	WATCH_BELL = 1,
	WATCH_LIFE,
	WATCH_RENDEZVOUS,
	WATCH_PROCESS,
	WATCH_HANDSHAKE,
	WATCH_RELATIVES,
	WATCH_DAEMON,
	WATCH_NEWS,
	WATCH_NETWORK,
	WATCH_ALARM
};

static pthread_mutex_t state_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t pidfd_lock = PTHREAD_MUTEX_INITIALIZER; /* of pidfd_of */
static bool running;
static _Atomic int epfd = -1;
static uint32_t belled;            /* stacks whose doorbell is registered */
static uint32_t armed;             /* networks whose descriptors are registered */
static int alarm_fd = -1;          /* a timer: kicks are held (kick.h) */
static _Atomic uint32_t alarm_set; /* it will go off */
_Thread_local bool helper_self;
bool helper_owed;
static pthread_mutex_t working = PTHREAD_MUTEX_INITIALIZER; /* while the helper is awake */
static _Atomic vsock_t rendezvous_of[FDS_TRACKED];          /* rendezvous descriptor -> the socket it listens for */

static uint64_t tag(enum watched kind, uint32_t stack, uint32_t small, uint32_t gen)
{
	return (uint64_t)kind << 56 | (uint64_t)(stack & 0xff) << 48 | (uint64_t)(small & 0xffff) << 32 | gen;
}

static int watch(int fd, uint32_t events, uint64_t what)
{
	struct epoll_event ev = {.events = events, .data.u64 = what};

	if (epfd < 0 || fd < 0)
		return -EBADF;
	if (host_sys.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev) == 0)
		return 0;
	if (errno == EEXIST && host_sys.epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &ev) == 0)
		return 0;
	return -errno;
}

/* --- kicks that are held --- */

static int make_alarm(void)
{
	atomic_store(&alarm_set, 0);
	return host_fd_own(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
}

bool helper_alarm(void)
{
	static const struct itimerspec soon = {.it_value.tv_nsec = ALARM_US * 1000};

	if (!__atomic_load_n(&running, __ATOMIC_ACQUIRE) || alarm_fd < 0)
		return false;
	if (atomic_load(&alarm_set) || atomic_exchange(&alarm_set, 1))
		return true;
	if (timerfd_settime(alarm_fd, 0, &soon, NULL) == 0)
		return true;
	atomic_store(&alarm_set, 0);
	return false;
}

/* Whoever held a frame before this has posted it; whoever does after it sets the alarm anew. True: all are gone. */
static bool alarm_off(void)
{
	bool left = false;

	atomic_store(&alarm_set, 0);
	for (uint32_t i = 0; i < atomic_load(&attached_count); i++)
		left |= kick_stack(attached[i]);
	return !left;
}

/* --- what it does --- */

/* True if this process is the one to answer for the listener: in a tree, only those who accept on it. As long as nobody
 * has, the clients wait: a connection over a wire that is made now could be accepted by nobody else. */
static bool answers(vsock_t v, bool *alive)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	bool yes;

	*alive = k != NULL;
	if (!k)
		return false;
	if (k->interest || k->proto == SOCK_TCP)
		yes = k->interest >> a->slot & 1 || !((k->interest | k->holders) & ~(1ull << a->slot));
	else
		yes = true;
	stack_leave(a);
	return yes;
}

static void answer_rendezvous(int fd)
{
	vsock_t v = fd < FDS_TRACKED ? atomic_load(&rendezvous_of[fd]) : VS_NONE;
	struct attached *a = v ? vs_attached(v) : NULL;
	bool alive = false;

	if (!a || !answers(v, &alive)) {
		helper_forget_fd(fd);
		return;
	}
	handshakes_begin(v, fd, epfd, tag(WATCH_HANDSHAKE, 0, 0, 0));
}

/* Whom we watch. Every relative hears of a death in its own time: the entry may be another process's by then, whose
 * generation is another. */
static struct {
	int fd; /* 0: none */
	uint32_t gen;
} pidfd_of[VS_STACKS_MAX][PROC_MAX];

/* With pidfd_lock. fd 0: nobody is watched there any more. */
static void watch_entry(uint32_t stack, uint32_t slot, int fd, uint32_t gen)
{
	int old = pidfd_of[stack][slot].fd;

	if (old) {
		host_sys.epoll_ctl(epfd, EPOLL_CTL_DEL, old, NULL);
		host_fd_close(old);
	}
	pidfd_of[stack][slot].fd = fd;
	pidfd_of[stack][slot].gen = gen;
	if (fd)
		watch(fd, EPOLLIN | EPOLLRDHUP, tag(WATCH_PROCESS, stack, slot, gen));
}

static void process_died(uint32_t stack, uint32_t slot, uint32_t gen)
{
	struct attached *a = process_stack(stack);

	quiet_lock(&pidfd_lock);
	if (pidfd_of[stack % VS_STACKS_MAX][slot].gen == gen)
		watch_entry(stack % VS_STACKS_MAX, slot, 0, gen);
	quiet_unlock(&pidfd_lock);
	if (!a)
		return;
	stack_enter(a);
	if (a->s->proc[slot].gen == gen)
		process_slot_drop(a, slot, clock_us());
	stack_leave(a);
	net_relative_gone(a);
}

static void handle(const struct epoll_event *ev)
{
	uint64_t what = ev->data.u64;
	uint32_t stack = what >> 48 & 0xff, small = what >> 32 & 0xffff, gen = (uint32_t)what;
	struct attached *a = process_stack(stack);

	switch (what >> 56) {
	case WATCH_LIFE:
		if (a && (ev->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
			wire_gone(a, small % VNIC_MAX, gen);
		else if (a)
			wire_rung(a, small % VNIC_MAX, gen);
		break;
	case WATCH_RENDEZVOUS:
		answer_rendezvous((int)gen);
		break;
	case WATCH_RELATIVES:
		if (a)
			relatives_answer(a, (int)gen);
		break;
	case WATCH_HANDSHAKE:
		handshakes_step(gen);
		break;
	case WATCH_DAEMON:
		if (a && (ev->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
			net_daemon_gone(a);
		break;
	case WATCH_NEWS:
		if (a) {
			net_moved(a);
			listeners_look_again(a);
		}
		break;
	case WATCH_ALARM:
		(void)alarm_off(); /* what is left the next net_tick tries again */
		break;
	case WATCH_PROCESS:
		process_died(stack, small % PROC_MAX, gen);
		break;
	}
}

/* Take in all there is and fire what is due. */
static void take_over(struct attached *a)
{
	bool more;

	do {
		stack_enter(a);
		lock_unseen(a->s);
		more = stack_poll(a, clock_us()) >= POLL_BUDGET;
		stack_leave(a);
	} while (more);
}

/* Arm the helper's doorbells where no thread sleeps; the next deadline. All under one hold of the lock, so what a
 * thread does before counts in the deadline, and what it does after shows in lock.acquired. */
static uint64_t settle(struct attached *a)
{
	uint64_t deadline;

	stack_enter(a);
	lock_unseen(a->s);
	for (uint32_t i = 0; i < a->active; i++)
		if (__atomic_load_n(&a->view[i].ctrl->armed, __ATOMIC_RELAXED) == VNIC_ARMED_NO)
			vnic_arm(&a->e.vnic[a->vnic[i]], VNIC_ARMED_HELPER);
	tcp_flush_acks(&a->e);
	a->seen_acquired = atomic_load(&a->s->lock.acquired);
	deadline = engine_deadline(&a->e);
	stack_leave(a);
	return deadline;
}

/* Has the program been here since the last look? */
static bool stack_active(struct attached *a)
{
	uint32_t acquired = atomic_load(&a->s->lock.acquired);
	bool active = acquired != a->seen_acquired;

	a->seen_acquired = acquired;
	return active;
}

/*
 * True if the program works with one of its stacks. Where nobody does is ours meanwhile: a child may have closed its
 * end of a connection while it serves its parent's. Where somebody does he may care for his own socket alone, or only
 * look: what has been left lying and what is due (a delayed ACK that another thread's peer waits for) is taken here.
 */
static bool program_active(uint64_t *deadline)
{
	uint32_t n = atomic_load(&attached_count), busy = 0;
	bool active[VS_STACKS_MAX];

	*deadline = UINT64_MAX;
	for (uint32_t i = 0; i < n; i++)
		busy += active[i] = stack_active(attached[i]);
	for (uint32_t i = 0; i < n && busy; i++) {
		uint64_t d;

		take_over(attached[i]);
		if (active[i]) {
			attached[i]->seen_acquired = atomic_load(&attached[i]->s->lock.acquired);
			continue;
		}
		d = settle(attached[i]);
		if (d < *deadline)
			*deadline = d;
	}
	return busy;
}

static int ms_until(uint64_t deadline)
{
	uint64_t now = clock_us();

	if (deadline == UINT64_MAX)
		return -1;
	if (deadline <= now)
		return 0;
	deadline = (deadline - now + 999) / 1000;
	return deadline > INT_MAX ? INT_MAX : (int)deadline;
}

/* Frames of a network wake the helper from now on. One that has come already does at once. */
static void arm_networks(void)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = tag(WATCH_NETWORK, 0, 0, 0)};

	for (uint32_t i = 0; i < net_wakes(); i++)
		if (i >= armed || (host_sys.epoll_ctl(epfd, EPOLL_CTL_MOD, net_wake_fd(i), &ev) < 0 && errno == ENOENT))
			host_sys.epoll_ctl(epfd, EPOLL_CTL_ADD, net_wake_fd(i), &ev);
	armed = net_wakes();
}

/* The program looks itself: as long as their descriptors are with us the kernel takes the way to us for each frame. */
static void disarm_networks(void)
{
	while (armed)
		host_sys.epoll_ctl(epfd, EPOLL_CTL_DEL, net_wake_fd(--armed), &(struct epoll_event){0});
}

/* A stack that has come to another viaductd, or again to one that was slow, first asks for the filters of listeners
 * that have none: it may have made one whose answer we did not wait for, with connections by now. */
static uint64_t tick_networks(void)
{
	uint64_t next = net_tick();
	bool again = false;

	for (uint32_t i = 0; i < atomic_load(&attached_count); i++) {
		if (!net_came_again(attached[i]))
			continue;
		listeners_look_again(attached[i]);
		net_named(attached[i]);
		again = true;
	}
	return again ? net_tick() : next;
}

/* Nobody called in since the last look. Milliseconds to sleep, -1 without end. */
static int fall_asleep(void)
{
	uint32_t n = atomic_load(&attached_count);
	uint64_t deadline = UINT64_MAX, reap = wire_reap(), trim = backing_trim(), net = tick_networks();

	for (uint32_t i = 0; i < n; i++) {
		uint64_t d;

		take_over(attached[i]);
		d = settle(attached[i]);
		if (d < deadline)
			deadline = d;
	}
	if (reap && clock_us() + reap < deadline)
		deadline = clock_us() + reap;
	if (trim && clock_us() + trim < deadline)
		deadline = clock_us() + trim;
	if (net && clock_us() + net < deadline)
		deadline = clock_us() + net;
	arm_networks();
	for (uint32_t i = 0; i < n; i++)
		if (stack_pending(attached[i]))
			return 0;
	atomic_store(&helper_deadline, deadline);
	atomic_store(&helper_asleep, 1);
	for (uint32_t i = 0; i < n; i++) {
		if (atomic_load(&attached[i]->s->lock.acquired) != attached[i]->seen_acquired) {
			atomic_store(&helper_asleep, 0);
			return LOOK_MS;
		}
	}
	return ms_until(deadline);
}

static void watch_bells(void)
{
	while (belled < atomic_load(&attached_count)) {
		watch(attached[belled]->doorbell[1], EPOLLIN | EPOLLET, tag(WATCH_BELL, belled, 0, 0));
		belled++;
	}
}

static void *helper_main(void *arg)
{
	struct epoll_event ev[EVENTS];
	int timeout = 0, expiry;
	uint64_t due_us = 0, deadline; /* end of the timeout; the next timer of a stack that nobody works with */

	(void)arg;
	prctl(PR_SET_NAME, "viaduct");
	helper_self = true;
	for (;;) {
		int n = host_sys.epoll_pwait(epfd, ev, EVENTS, timeout, NULL);

		quiet_lock(&working);
		/* An alarm alone changes nothing of what the program is found to do, and does not wake us. */
		if (n == 1 && ev[0].data.u64 >> 56 == WATCH_ALARM && alarm_off()) {
			timeout = ms_until(due_us);
			quiet_unlock(&working);
			continue;
		}
		atomic_store(&helper_asleep, 0);
		watch_bells();
		for (int i = 0; i < n; i++)
			handle(&ev[i]);
		clock_recalibrate();
		expiry = handshakes_expire();
		tick_networks();
		wire_reap(); /* also for a program that never lets us fall asleep */
		timeout = program_active(&deadline) ? LOOK_MS : fall_asleep();
		if (timeout == LOOK_MS)
			disarm_networks();
		if (timeout == LOOK_MS && ms_until(deadline) >= 0 && ms_until(deadline) < timeout)
			timeout = ms_until(deadline);
		if (expiry >= 0 && (timeout < 0 || expiry < timeout))
			timeout = expiry;
		due_us = timeout < 0 ? UINT64_MAX : clock_us() + (uint64_t)timeout * 1000;
		quiet_unlock(&working);
	}
	return NULL;
}

void helper_pause(void)
{
	quiet_lock(&working);
}

void helper_resume(void)
{
	quiet_unlock(&working);
}

/* Whoever sets a timer finds a helper that sleeps for ever, and wakes it: process_helper_kick. */
void helper_owe(void)
{
	if (__atomic_load_n(&running, __ATOMIC_ACQUIRE))
		return;
	helper_owed = true;
	atomic_store(&helper_deadline, UINT64_MAX);
	atomic_store(&helper_asleep, 1);
}

/* --- starting it, and what it watches --- */

static void watch_inherited(struct attached *a)
{
	for (uint32_t i = 0; i < a->active; i++)
		helper_watch_life(a, a->vnic[i]);
	for (uint32_t i = 0; i < PROC_MAX; i++)
		if (i != a->slot && a->s->proc[i].pid)
			helper_watch_process(a, i);
}

static int make_thread(void)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, old;
	int ret;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	host_sys.sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&thread, &attr, helper_main, NULL);
	host_sys.sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -ret;
}

int helper_start(void)
{
	int ret = 0;

	if (__atomic_load_n(&running, __ATOMIC_ACQUIRE))
		return 0;
	helper_owed = false;
	atomic_store(&helper_asleep, 0);
	quiet_lock(&state_lock);
	if (!running) {
		int fd = host_sys.epoll_create1(EPOLL_CLOEXEC);

		ret = fd < 0 ? -errno : host_fd_high(fd);
		if (ret >= 0) {
			epfd = ret;
			belled = armed = 0;
			watch_bells();
			alarm_fd = make_alarm();
			watch(alarm_fd, EPOLLIN | EPOLLET, tag(WATCH_ALARM, 0, 0, 0));
			for (uint32_t i = 0; i < atomic_load(&attached_count); i++)
				watch_inherited(attached[i]);
			ret = make_thread();
		}
		if (ret == 0)
			__atomic_store_n(&running, true, __ATOMIC_RELEASE);
	}
	quiet_unlock(&state_lock);
	return ret;
}

void process_helper_kick(void)
{
	static const uint64_t one = 1;
	struct attached *a = process_stack(0);

	if (!a || !atomic_exchange(&helper_asleep, 0))
		return;
	if (__builtin_expect(helper_owed, 0))
		(void)helper_start();
	else
		(void)!host_sys.write(a->doorbell[1], &one, sizeof(one));
}

void helper_watch_life(struct attached *a, uint32_t vnic)
{
	struct vnic *v = &a->e.vnic[vnic];

	watch(v->life_fd, EPOLLIN | EPOLLRDHUP | EPOLLET, tag(WATCH_LIFE, a->index, vnic, v->gen));
}

void helper_watch_daemon(struct attached *a, int fd)
{
	watch(fd, EPOLLRDHUP | EPOLLET, tag(WATCH_DAEMON, a->index, 0, 0));
}

void helper_watch_news(struct attached *a, int fd)
{
	watch(fd, EPOLLIN | EPOLLET, tag(WATCH_NEWS, a->index, 0, 0)); /* never read: each write shows */
}

int helper_watch_listener(vsock_t v, int rdv_fd)
{
	int ret = helper_start();

	if (ret < 0)
		return ret;
	if (rdv_fd >= FDS_TRACKED)
		return -EMFILE;
	atomic_store(&rendezvous_of[rdv_fd], v);
	return watch(rdv_fd, EPOLLIN, tag(WATCH_RENDEZVOUS, vs_stack_of(v), 0, (uint32_t)rdv_fd));
}

void helper_watch_relatives(struct attached *a, int fd)
{
	watch(fd, EPOLLIN, tag(WATCH_RELATIVES, a->index, 0, (uint32_t)fd));
}

void helper_forget_fd(int fd)
{
	if (epfd >= 0 && fd >= 0)
		host_sys.epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
}

void helper_watch_process(struct attached *a, uint32_t slot)
{
	uint32_t gen;
	long fd;

	if (epfd < 0 || slot >= PROC_MAX)
		return;
	gen = __atomic_load_n(&a->s->proc[slot].gen, __ATOMIC_RELAXED);
	fd = raw_call(SYS_pidfd_open, a->s->proc[slot].pid, 0, 0, 0, 0, 0);
	if (fd < 0)
		return;
	fd = host_fd_high((int)fd);
	if (fd < 0)
		return;
	quiet_lock(&pidfd_lock); /* the helper, too, holds it: it can't close the descriptor before we are done */
	watch_entry(a->index, slot, (int)fd, gen);
	quiet_unlock(&pidfd_lock);
}

int helper_watch_far(struct attached *a, uint32_t slot)
{
	int pair[2], high;

	if (helper_start() < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	for (int i = 0; i < 2; i++) {
		high = host_fd_high(pair[i]);
		if (high >= 0)
			pair[i] = high;
	}
	quiet_lock(&pidfd_lock);
	watch_entry(a->index, slot, pair[0], __atomic_load_n(&a->s->proc[slot].gen, __ATOMIC_RELAXED));
	quiet_unlock(&pidfd_lock);
	return pair[1];
}

void helper_after_fork(void)
{
	pthread_mutex_init(&state_lock, NULL);
	pthread_mutex_init(&pidfd_lock, NULL);
	pthread_mutex_init(&working, NULL);
	running = helper_owed = false;
	atomic_store(&helper_asleep, 0);
	if (epfd >= 0)
		host_fd_close(epfd); /* shared with the parent's helper: only our number of it goes */
	epfd = -1;
	if (alarm_fd >= 0)
		host_fd_close(alarm_fd);
	alarm_fd = -1;
	belled = 0;
	for (uint32_t i = 0; i < atomic_load(&attached_count); i++) {
		for (uint32_t j = 0; j < PROC_MAX; j++) {
			if (pidfd_of[i][j].fd)
				host_fd_close(pidfd_of[i][j].fd);
			pidfd_of[i][j].fd = 0;
		}
	}
}
