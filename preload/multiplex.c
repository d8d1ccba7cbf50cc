/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * poll and select over accelerated and kernel descriptors together.
 *
 * A call in which nothing is accelerated goes to libc as it is. Otherwise the entries are looked at in three ways:
 * accelerated sockets are asked for their level; kernel descriptors are given to the kernel's poll without waiting; the
 * kernel halves of accelerated sockets (listeners, UDP) also, but only when nothing else is ready, or from time to
 * time. If nothing is ready the thread waits with an epoll descriptor of its own that holds the kernel descriptors.
 * That registration is kept between calls; those of kernel descriptors are confirmed with each wait, because the
 * program may have closed one.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "calls.h"
#include "fdtable.h"
#include "fork.h"
#include "host/host.h"
#include "host/knobs.h"
#include "socket/kick.h"
#include "socket/wait.h"
#include "thread.h"

#define SET_IN (POLLIN | POLLRDNORM)
#define SET_OUT (POLLOUT | POLLWRNORM | POLLWRBAND)
#define ON_STACK 64 /* entries that need no memory of their own */

/* One call. Entries of `fds` keep their order; `kernel` holds those that the kernel must be asked about. */
struct call {
	struct pollfd *fds;
	size_t n;
	struct pollfd *kernel;  /* copies for the kernel's poll */
	uint32_t *kernel_entry; /* which entry each is for */
	size_t kernel_n;        /* plain kernel descriptors come first, */
	size_t halves_n;        /* then the halves of accelerated sockets and sets */
	uint32_t moves;         /* fd_moves when the entries were sorted */
};

_Noreturn void __chk_fail(void);

/* Accelerated sockets and sets that have accelerated members. */
static bool is_ours(int fd)
{
	uint64_t word = fd_word(fd);

	if (fd_word_kind(word) == FD_EPOLL)
		return ep_has_accelerated(fd_epset(fd));
	return fd_word_kind(word) == FD_ACCELERATED;
}

static uint32_t level_of(int fd)
{
	uint32_t level;
	vsock_t v = fd_vsock(fd);
	struct epset *set = fd_epset(fd);

	if (set)
		return ep_readable(set) ? SET_IN : 0;
	if (v == VS_NONE)
		return 0;
	level = vs_poll(v);
	if (level & POLLIN)
		level |= POLLRDNORM;
	if (level & POLLOUT)
		level |= POLLWRNORM;
	return level;
}

static short wanted(const struct pollfd *p)
{
	return p->events | POLLERR | POLLHUP | POLLNVAL;
}

/* The levels of accelerated entries into revents. Number of ready ones. */
static int look_ours(struct call *c)
{
	int ready = 0;

	for (size_t i = 0; i < c->n; i++) {
		c->fds[i].revents = 0;
		if (c->fds[i].fd < 0 || !is_ours(c->fds[i].fd))
			continue;
		c->fds[i].revents = (short)(level_of(c->fds[i].fd) & (uint32_t)wanted(&c->fds[i]));
		ready += c->fds[i].revents != 0;
	}
	return ready;
}

/* Ask the kernel about entries [from, to) of its list and add what it says. Number of entries that became ready. */
static int look_kernel(struct call *c, size_t from, size_t to)
{
	int more = 0;

	if (from == to || real.poll(c->kernel + from, to - from, 0) <= 0)
		return 0;
	for (size_t i = from; i < to; i++) {
		struct pollfd *p = &c->fds[c->kernel_entry[i]];
		short found = (short)(c->kernel[i].revents & wanted(p));

		if (!found)
			continue;
		more += !p->revents;
		p->revents |= found;
	}
	return more;
}

static void list_kernel(struct call *c, int fd, short events, size_t entry)
{
	size_t at = c->kernel_n + c->halves_n;

	c->kernel[at] = (struct pollfd){.fd = fd, .events = events};
	c->kernel_entry[at] = (uint32_t)entry;
}

/* Sort the entries into the kernel's list. */
static void list(struct call *c)
{
	c->moves = atomic_load(&fd_moves);
	c->kernel_n = c->halves_n = 0;
	for (size_t i = 0; i < c->n; i++)
		if (c->fds[i].fd >= 0 && (!is_ours(c->fds[i].fd) || fd_epset(c->fds[i].fd))) {
			list_kernel(c, c->fds[i].fd, c->fds[i].events, i);
			c->kernel_n++;
		}
	for (size_t i = 0; i < c->n; i++) {
		int fd = c->fds[i].fd;
		struct epset *set = fd >= 0 ? fd_epset(fd) : NULL;
		vsock_t v = fd >= 0 ? fd_vsock(fd) : VS_NONE;

		if (set && is_ours(fd) && ep_halves(set) >= 0) {
			list_kernel(c, ep_halves(set), SET_IN, i);
			c->halves_n++;
		} else if (v != VS_NONE) {
			if (c->fds[i].events & (SET_IN | POLLPRI))
				vs_listener_interest(v, fd);
			if (vs_has_kernel_half(v)) {
				list_kernel(c, fd, c->fds[i].events & (SET_IN | POLLPRI | POLLRDHUP), i);
				c->halves_n++;
			}
		}
	}
}

static bool due(void)
{
	static _Thread_local uint64_t looked;
	uint64_t now = clock_cycles();

	if (now - looked < knob[K_POLL_KERNEL_US] * clock_cycles_per_us() && !wait_take_refused())
		return false;
	looked = now;
	return true;
}

/* One look at everything. The halves' turn comes when nothing else is ready, or from time to time. */
static int look(struct call *c, bool halves)
{
	int ready = look_ours(c);

	if (unlikely(c->moves != atomic_load_explicit(&fd_moves, memory_order_relaxed)))
		list(c);
	ready += look_kernel(c, 0, c->kernel_n);
	if (c->halves_n && (halves || due()))
		ready += look_kernel(c, c->kernel_n, c->kernel_n + c->halves_n);
	return ready;
}

/* --- the thread's epoll descriptor --- */

static bool same_watch(const struct watch *w, const struct pollfd *p, vsock_t v)
{
	return w->fd == p->fd && w->events == (uint32_t)(uint16_t)p->events && w->v == v;
}

/* Halves are known by their socket, which never comes again. Anything else may be another file than last time. */
static vsock_t half_of(const struct call *c, size_t i)
{
	return i < c->kernel_n ? VS_NONE : fd_vsock(c->kernel[i].fd);
}

static bool same_set(const struct thread *t, const struct call *c)
{
	if (t->watched_n != c->kernel_n + c->halves_n)
		return false;
	for (size_t i = 0; i < t->watched_n; i++)
		if (!same_watch(&t->watched[i], &c->kernel[i], half_of(c, i)))
			return false;
	return true;
}

/* Watch one more. A descriptor that epoll refuses is a regular file, always ready, which the look before has seen. A
 * second entry for one descriptor widens the first's events. */
static void watch_one(struct thread *t, struct watch w)
{
	struct epoll_event ev = {.events = w.events, .data.u64 = 1};

	if (real.epoll_ctl(t->epfd, EPOLL_CTL_ADD, w.fd, &ev) == 0 || errno != EEXIST)
		return;
	for (size_t i = 0; i < t->watched_n; i++)
		if (t->watched[i].fd == w.fd)
			ev.events |= t->watched[i].events;
	real.epoll_ctl(t->epfd, EPOLL_CTL_MOD, w.fd, &ev);
}

static void confirm(struct thread *t)
{
	for (size_t i = 0; i < t->watched_n; i++) {
		struct epoll_event ev = {.events = t->watched[i].events, .data.u64 = 1};

		if (t->watched[i].v != VS_NONE)
			continue;
		for (size_t k = 0; k < t->watched_n; k++)
			if (t->watched[k].fd == t->watched[i].fd)
				ev.events |= t->watched[k].events;
		if (real.epoll_ctl(t->epfd, EPOLL_CTL_MOD, t->watched[i].fd, &ev) < 0 && errno == ENOENT)
			real.epoll_ctl(t->epfd, EPOLL_CTL_ADD, t->watched[i].fd, &ev);
	}
}

static int make_epfd(struct thread *t)
{
	int fd, high;

	if (t->epfd >= 0 && t->generation == fork_generation)
		return 0;
	if (t->epfd >= 0)
		host_fd_close(t->epfd); /* the parent's */
	t->watched_n = 0;
	t->generation = fork_generation;
	fd = real.epoll_create1(EPOLL_CLOEXEC);
	t->epfd = -1;
	if (fd < 0)
		return -errno;
	high = host_fd_high(fd);
	t->epfd = high < 0 ? fd : high;
	return 0;
}

/* Make the thread's epoll descriptor hold exactly what this call must watch. 0 or -errno. */
static int watch_all(struct thread *t, const struct call *c)
{
	size_t n = c->kernel_n + c->halves_n;
	int r = make_epfd(t);

	if (r < 0)
		return r;
	if (same_set(t, c)) {
		confirm(t);
		return 0;
	}
	for (size_t i = 0; i < t->watched_n; i++)
		real.epoll_ctl(t->epfd, EPOLL_CTL_DEL, t->watched[i].fd, &(struct epoll_event){0});
	t->watched_n = 0;
	if (n > t->watched_room) {
		struct watch *more = realloc(t->watched, n * sizeof *more);

		if (!more)
			return -ENOMEM;
		t->watched = more;
		t->watched_room = n;
	}
	for (size_t i = 0; i < n; i++) {
		struct watch w = {c->kernel[i].fd, (uint16_t)c->kernel[i].events, half_of(c, i)};

		watch_one(t, w);
		t->watched[t->watched_n++] = w;
	}
	return 0;
}

/* --- waiting --- */

static bool ours_ready(void *arg)
{
	const struct call *c = arg;

	for (size_t i = 0; i < c->n; i++) {
		const struct pollfd *p = &c->fds[i];

		if (p->fd >= 0 && is_ours(p->fd) && level_of(p->fd) & (uint32_t)wanted(p))
			return true;
	}
	return c->moves != atomic_load_explicit(&fd_moves, memory_order_relaxed);
}

/* A descriptor that epoll can't watch but poll can (a regular file) is found by the look before: then we don't wait. */
static int wait_ready(struct call *c, int64_t timeout_us, const sigset_t *mask)
{
	uint64_t start = timeout_us > 0 ? clock_us() : 0;
	int64_t left = timeout_us;
	int r, n;

	for (;;) {
		struct wait w = {.ready = ours_ready, .arg = c, .timeout_us = left, .sigmask = mask, .kernel_fd = -1};

		if (c->kernel_n + c->halves_n) {
			struct thread *t = thread_state();

			r = t ? watch_all(t, c) : -ENOMEM;
			if (r < 0)
				return r;
			w.kernel_fd = t->epfd;
		} else if (c->n == 1) {
			w.sock = fd_vsock(c->fds[0].fd);
		}
		r = wait_for_masked(&w);
		n = look(c, w.kernel_ready || r == -ETIMEDOUT);
		if (n)
			return n;
		if (r < 0)
			return r == -ETIMEDOUT ? 0 : r;
		left = wait_left(start, timeout_us);
	}
}

/* poll with at least one accelerated entry. */
static int poll_call(struct call *c, int64_t timeout_us, const sigset_t *mask)
{
	int n;

	list(c);
	kick_end();
	wait_poll_stacks();
	n = look(c, timeout_us == 0);
	if (!n && timeout_us)
		n = wait_ready(c, timeout_us, mask);
	kick_expect(n);
	return n;
}

static int poll_mixed(struct pollfd *fds, size_t n, int64_t timeout_us, const sigset_t *mask)
{
	struct pollfd kernel[2 * ON_STACK];
	uint32_t entry[2 * ON_STACK];
	struct call c = {.fds = fds, .n = n, .kernel = kernel, .kernel_entry = entry};
	size_t size = 2 * n * (sizeof *kernel + sizeof *entry);
	int r;

	if (n <= ON_STACK)
		return poll_call(&c, timeout_us, mask);
	c.kernel = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c.kernel == MAP_FAILED)
		return -ENOMEM;
	c.kernel_entry = (uint32_t *)(c.kernel + 2 * n);
	r = poll_call(&c, timeout_us, mask);
	munmap(c.kernel, size);
	return r;
}

static bool any_ours(const struct pollfd *fds, nfds_t n)
{
	if (!fd_limit || n > fd_limit || bad_pointer(fds))
		return false;
	for (nfds_t i = 0; i < n; i++)
		if (is_ours(fds[i].fd))
			return true;
	return false;
}

/* Microseconds, rounded up; -1: for ever; -EINVAL as the kernel has it. */
static int64_t span_us(const struct timespec *t)
{
	if (!t)
		return -1;
	if (t->tv_sec < 0 || t->tv_nsec < 0 || t->tv_nsec >= 1000000000)
		return -EINVAL;
	if (t->tv_sec > INT32_MAX)
		return -1;
	return t->tv_sec * 1000000 + (t->tv_nsec + 999) / 1000;
}

int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	if (!any_ours(fds, n))
		return real.poll(fds, n, timeout);
	return (int)posix_result(poll_mixed(fds, n, timeout < 0 ? -1 : (int64_t)timeout * 1000, NULL));
}
TWIN_OF(poll, __poll);

int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const __sigset_t *mask)
{
	int64_t us = span_us(timeout);

	if (us == -EINVAL || !any_ours(fds, n))
		return real.ppoll(fds, n, timeout, mask);
	return (int)posix_result(poll_mixed(fds, n, us, mask));
}

int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size)
{
	if (size / sizeof *fds < n)
		__chk_fail();
	return poll(fds, n, timeout);
}

int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const __sigset_t *mask, size_t size)
{
	if (size / sizeof *fds < n)
		__chk_fail();
	return ppoll(fds, n, timeout, mask);
}

/* --- select --- */

#define WORD_BITS (8 * (int)sizeof(long))

/* Sets may be longer than fd_set: programs allocate their own. */
static bool in_set(const fd_set *set, int fd)
{
	return set && ((const unsigned long *)set)[fd / WORD_BITS] >> (fd % WORD_BITS) & 1;
}

static void put_in_set(fd_set *set, int fd)
{
	((unsigned long *)set)[fd / WORD_BITS] |= 1ul << (fd % WORD_BITS);
}

static void clear_set(fd_set *set, int n)
{
	if (set)
		memset(set, 0, (size_t)((n + WORD_BITS - 1) / WORD_BITS) * sizeof(long));
}

static unsigned long set_word(const fd_set *set, int at)
{
	return set ? ((const unsigned long *)set)[at / WORD_BITS] : 0;
}

static bool bad_set(const fd_set *set)
{
	return set && bad_pointer(set);
}

/* Calls `each` word by word: sets are mostly empty. The number of descriptors asked about; with `fds` also lists them.
 */
static int list_sets(int n, const fd_set *in, const fd_set *out, const fd_set *except, struct pollfd *fds, bool *ours)
{
	int count = 0;

	for (int base = 0; base < n; base += WORD_BITS) {
		unsigned long bits = set_word(in, base) | set_word(out, base) | set_word(except, base);

		for (; bits; bits &= bits - 1) {
			int fd = base + __builtin_ctzl(bits);

			if (fd >= n)
				break;
			*ours |= is_ours(fd);
			if (fds)
				fds[count] =
				    (struct pollfd){.fd = fd,
						    .events = (short)((in_set(in, fd) ? SET_IN | POLLRDBAND : 0) |
								      (in_set(out, fd) ? SET_OUT : 0) |
								      (in_set(except, fd) ? POLLPRI : 0))};
			count++;
		}
	}
	return count;
}

/* The results as select gives them: bits set, or -EBADF. */
static int to_sets(const struct pollfd *fds, int count, int n, fd_set *in, fd_set *out, fd_set *except)
{
	int bits = 0;

	for (int i = 0; i < count; i++)
		if (fds[i].revents & POLLNVAL)
			return -EBADF;
	clear_set(in, n);
	clear_set(out, n);
	clear_set(except, n);
	for (int i = 0; i < count; i++) {
		short asked = fds[i].events, got = fds[i].revents;

		if (asked & POLLIN && got & (SET_IN | POLLRDBAND | POLLHUP | POLLERR)) {
			put_in_set(in, fds[i].fd);
			bits++;
		}
		if (asked & POLLOUT && got & (SET_OUT | POLLERR)) {
			put_in_set(out, fds[i].fd);
			bits++;
		}
		if (asked & POLLPRI && got & POLLPRI) {
			put_in_set(except, fds[i].fd);
			bits++;
		}
	}
	return bits;
}

/* POLLHUP wakes poll whatever was asked; for select it counts only for those that asked to read. */
static bool hup_only(const struct pollfd *fds, int count)
{
	for (int i = 0; i < count; i++) {
		short asked = fds[i].events, got = fds[i].revents;

		if (asked & POLLIN && got & (SET_IN | POLLRDBAND | POLLHUP | POLLERR))
			return false;
		if (asked & POLLOUT && got & (SET_OUT | POLLERR))
			return false;
		if ((asked & POLLPRI && got & POLLPRI) || got & POLLNVAL)
			return false;
	}
	return true;
}

/* Sleep in short steps while the only thing to see is a hang-up that nobody asked about. */
static int select_wait(struct pollfd *fds, int count, int64_t us, const sigset_t *mask)
{
	uint64_t start = us > 0 ? clock_us() : 0;
	int64_t left = us;
	int r;

	for (;;) {
		r = poll_mixed(fds, (size_t)count, left, mask);
		if (r <= 0 || !hup_only(fds, count) || us == 0)
			return r;
		real.poll(NULL, 0, 1);
		left = wait_left(start, us);
		if (!left)
			return 0;
	}
}

static int select_mixed(int n, fd_set *in, fd_set *out, fd_set *except, int count, int64_t us, const sigset_t *mask)
{
	struct pollfd on_stack[ON_STACK], *fds = on_stack;
	size_t size = (size_t)count * sizeof *fds;
	bool ours = false;
	int r;

	if (count > ON_STACK) {
		fds = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (fds == MAP_FAILED)
			return -ENOMEM;
	}
	list_sets(n, in, out, except, fds, &ours);
	r = select_wait(fds, count, us, mask);
	if (r >= 0)
		r = to_sets(fds, count, n, in, out, except);
	if (fds != on_stack)
		munmap(fds, size);
	return r;
}

int select(int n, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout)
{
	uint64_t start;
	bool ours = false;
	int64_t us = -1, left;
	int count, r;

	if (!fd_limit || n < 0 || n > (int)fd_limit || bad_set(in) || bad_set(out) || bad_set(except))
		return real.select(n, in, out, except, timeout);
	count = list_sets(n, in, out, except, NULL, &ours);
	if (!ours || (timeout && (timeout->tv_sec < 0 || timeout->tv_usec < 0)))
		return real.select(n, in, out, except, timeout);
	if (timeout && timeout->tv_sec <= INT32_MAX)
		us = timeout->tv_sec * 1000000 + timeout->tv_usec;
	start = us > 0 ? clock_us() : 0;
	r = select_mixed(n, in, out, except, count, us, NULL);
	if (us > 0) { /* Linux writes back what is left */
		left = us - (int64_t)(clock_us() - start);
		left = left < 0 || r == 0 ? 0 : left;
		timeout->tv_sec = left / 1000000;
		timeout->tv_usec = left % 1000000;
	}
	return (int)posix_result(r);
}
TWIN_OF(select, __select);

int pselect(int n, fd_set *in, fd_set *out, fd_set *except, const struct timespec *timeout, const __sigset_t *mask)
{
	int64_t us = span_us(timeout);
	bool ours = false;
	int count;

	if (!fd_limit || n < 0 || n > (int)fd_limit || us == -EINVAL || bad_set(in) || bad_set(out) || bad_set(except))
		return real.pselect(n, in, out, except, timeout, mask);
	count = list_sets(n, in, out, except, NULL, &ours);
	if (!ours)
		return real.pselect(n, in, out, except, timeout, mask);
	return (int)posix_result(select_mixed(n, in, out, except, count, us, mask));
}
