/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of descriptors; see fdtable.h. */
#include <pthread.h>
#include <sys/mman.h>

#include "calls.h"
#include "fdtable.h"
#include "signals.h"
#include "socket/wait.h"
#include "stdio_streams.h"

#define TABLE_SIZE (1u << 20)

_Atomic uint64_t *fd_table;
uint32_t fd_limit;
_Atomic uint32_t fd_moves;

static uint32_t *next;   /* ring of duplicates: the next descriptor of the same description */
static uint32_t fd_high; /* one more than the highest number ever entered */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

bool fd_table_init(void)
{
	size_t words = TABLE_SIZE * sizeof *fd_table, links = TABLE_SIZE * sizeof *next;
	char *p = mmap(NULL, words + links, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return false;
	fd_table = (_Atomic uint64_t *)p;
	next = (uint32_t *)(p + words);
	fd_limit = TABLE_SIZE;
	return true;
}

void fd_lock(void)
{
	signals_defer();
	pthread_mutex_lock(&mutex);
}

void fd_unlock(void)
{
	pthread_mutex_unlock(&mutex);
	signals_resume();
}

/* Take fd out of its ring. True: it was alone. */
static bool ring_remove(uint32_t fd)
{
	uint32_t before = fd;

	if (next[fd] == fd)
		return true;
	while (next[before] != fd)
		before = next[before];
	next[before] = next[fd];
	next[fd] = fd;
	return false;
}

/* Under the lock: clear fd's word. Returns the word if fd was the last descriptor of its description, else 0. */
static uint64_t forget(int fd)
{
	uint64_t word = fd_word(fd);

	if (!word)
		return 0;
	atomic_store_explicit(&fd_table[fd], 0, memory_order_release);
	if (fd_word_kind(word) != FD_EPOLL)
		vs_publish_fd(fd, FD_OTHER, VS_NONE, REASON_NONE);
	else if (next[fd] != (uint32_t)fd)
		ep_moved((struct epset *)(uintptr_t)(word & FD_VALUE_MASK), fd, (int)next[fd]);
	return ring_remove((uint32_t)fd) ? word : 0;
}

/* What was behind a word has no descriptor any more, or only fd, which is about to be closed (-1: none). Without the
 * lock: it may wait (SO_LINGER). */
static void end_description(uint64_t word, int fd)
{
	uint64_t value = word & FD_VALUE_MASK;

	if (fd_word_kind(word) == FD_ACCELERATED) {
		ep_forget(value);
		vs_close_fd(value, fd, true);
	} else if (fd_word_kind(word) == FD_EPOLL) {
		ep_free((struct epset *)(uintptr_t)value);
	}
}

static void enter(int fd, uint64_t word)
{
	uint64_t stale;

	if ((uint32_t)fd >= fd_limit)
		return;
	fd_lock();
	stale = forget(fd);
	next[fd] = (uint32_t)fd;
	if ((uint32_t)fd >= fd_high)
		fd_high = (uint32_t)fd + 1;
	atomic_store_explicit(&fd_table[fd], word, memory_order_release);
	fd_unlock();
	if (unlikely(stale))
		end_description(stale, -1);
	if (unlikely(fd <= 2 && fd_word_kind(word) == FD_ACCELERATED))
		streams_follow(fd);
}

static uint64_t make_word(enum fd_kind kind, uint64_t value)
{
	return ((uint64_t)kind << FD_KIND_SHIFT) | value;
}

void fd_set_socket(int fd, vsock_t v)
{
	enter(fd, make_word(FD_ACCELERATED, v));
	vs_publish_fd(fd, FD_ACCELERATED, v, REASON_NONE);
}

void fd_adopt_socket(int fd, vsock_t v)
{
	int first = fd_of_socket(v);

	if (first >= 0 && first != fd)
		fd_set_dup(first, fd);
	else
		enter(fd, make_word(FD_ACCELERATED, v));
}

void fd_set_kernel(int fd, enum reason reason)
{
	enter(fd, make_word(FD_KERNEL_SOCKET, reason));
	vs_publish_fd(fd, FD_KERNEL_SOCKET, VS_NONE, reason);
}

void fd_set_epoll(int fd, struct epset *set)
{
	enter(fd, make_word(FD_EPOLL, (uintptr_t)set));
}

void fd_set_other(int fd)
{
	if (fd_word(fd))
		fd_closing(fd);
}

void fd_set_dup(int old, int fd)
{
	uint64_t word, stale;

	if ((uint32_t)fd >= fd_limit || old == fd)
		return;
	fd_lock();
	word = fd_word(old);
	stale = forget(fd);
	if (word) {
		next[fd] = next[old];
		next[old] = (uint32_t)fd;
		if ((uint32_t)fd >= fd_high)
			fd_high = (uint32_t)fd + 1;
		atomic_store_explicit(&fd_table[fd], word, memory_order_release);
		if (fd_word_kind(word) != FD_EPOLL)
			vs_publish_fd(fd, fd_word_kind(word),
				      fd_word_kind(word) == FD_ACCELERATED ? word & FD_VALUE_MASK : VS_NONE,
				      fd_word_kind(word) == FD_KERNEL_SOCKET ? word & FD_VALUE_MASK : REASON_NONE);
	}
	fd_unlock();
	if (stale)
		end_description(stale, -1);
	if (fd <= 2 && fd_word_kind(word) == FD_ACCELERATED)
		streams_follow(fd);
}

void fd_closing(int fd)
{
	uint64_t last;

	fd_lock();
	last = forget(fd);
	fd_unlock();
	if (last)
		end_description(last, fd);
}

void fd_closing_range(unsigned first, unsigned last)
{
	for (unsigned fd = first; fd <= last && fd < fd_high; fd++)
		if (fd_word((int)fd))
			fd_closing((int)fd);
}

void fd_to_kernel(int fd, vsock_t v, enum reason reason)
{
	uint32_t i = (uint32_t)fd;

	ep_to_kernel(v);
	fd_lock();
	if (fd_vsock(fd) == v) {
		do {
			atomic_store_explicit(&fd_table[i], make_word(FD_KERNEL_SOCKET, reason), memory_order_release);
			vs_publish_fd((int)i, FD_KERNEL_SOCKET, VS_NONE, reason);
			i = next[i];
		} while (i != (uint32_t)fd);
	}
	atomic_fetch_add(&fd_moves, 1);
	fd_unlock();
}

int fd_of_socket(vsock_t v)
{
	for (uint32_t fd = 0; fd < fd_high; fd++)
		if (fd_vsock((int)fd) == v)
			return (int)fd;
	return -1;
}

int fd_first_ours(int fd)
{
	for (; (uint32_t)fd < fd_high; fd++)
		if (fd_vsock(fd) != VS_NONE)
			return fd;
	return -1;
}

/* A socket is listed once: under the lowest number of its ring. */
static bool ring_lowest(uint32_t fd)
{
	for (uint32_t i = next[fd]; i != fd; i = next[i])
		if (i < fd)
			return false;
	return true;
}

vsock_t *fd_all_sockets(size_t *n)
{
	vsock_t *all = NULL;
	size_t count = 0;

	*n = 0;
	for (uint32_t fd = 0; fd < fd_high; fd++)
		count += fd_vsock((int)fd) != VS_NONE;
	if (count)
		all = mmap(NULL, count * sizeof *all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!count || all == MAP_FAILED)
		return NULL;
	for (uint32_t fd = 0; fd < fd_high && *n < count; fd++)
		if (fd_vsock((int)fd) != VS_NONE && ring_lowest(fd))
			all[(*n)++] = fd_vsock((int)fd);
	return all;
}

void fd_free_all(vsock_t *all, size_t n)
{
	if (all)
		munmap(all, n * sizeof *all);
}
