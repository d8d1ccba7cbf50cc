/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The floor: the fastest that this machine itself does what the network workloads do, with no protocol at all.
 *
 *	bench-floor [MILLISECONDS per measurement]
 *
 * prints one "name value" per line:
 *	pingpong_two_ns, pingpong_one_ns  a line of shared memory to another process and back: on two cores (spinning)
 *and on one (sched_yield between looks) wakeup_two_ns, wakeup_one_ns      the same where each end sleeps in read() of
 *an eventfd syscall_ns                        the cheapest system call copy1_gbit, copy2_gbit            bytes through
 *a shared ring in 64 KiB steps from one process on core 0 to another on core 1: copied once (in only), and twice (in
 *and out again) copy2_one_gbit                    two copies, both in one process on one core messages_per_s 64-byte
 *messages through that ring, copied in and out
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <signal.h>

#include "net.h"

#define RING_BYTES (256u * 1024u)
#define BULK 65536u
#define SMALL 64u

/* Shared by parent and child. Each field that one side writes has lines of its own. */
struct shared {
	_Alignas(128) _Atomic uint64_t ping;
	_Alignas(128) _Atomic uint64_t pong;
	_Alignas(128) _Atomic uint64_t produced; /* bytes */
	_Alignas(128) _Atomic uint64_t consumed;
	_Alignas(128) _Atomic uint32_t turn[RING_BYTES / SMALL][SMALL / 2]; /* slot: turn word first, then payload */
	_Alignas(128) uint8_t ring[RING_BYTES];
};

static struct shared *sh;
static double seconds = 0.3;

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		die("sched_setaffinity");
}

static void relax(bool yield)
{
	if (yield)
		sched_yield();
	else
		__builtin_ia32_pause();
}

/* A child on `cpu` that runs body(arg) until it is killed. */
static pid_t start(int cpu, void (*body)(void *), void *arg)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		die("fork");
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	pin(cpu);
	body(arg);
	_exit(0);
}

static void stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void echo_memory(void *arg)
{
	bool yield = *(bool *)arg;

	for (uint64_t n = 1;; n++) {
		while (atomic_load_explicit(&sh->ping, memory_order_acquire) != n)
			relax(yield);
		atomic_store_explicit(&sh->pong, n, memory_order_release);
	}
}

static void pingpong(const char *name, int cpu, bool yield)
{
	uint64_t n = 0, begin, end;
	pid_t pid;

	atomic_store(&sh->ping, 0);
	atomic_store(&sh->pong, 0);
	pid = start(cpu, echo_memory, &yield);
	begin = now_ns();
	end = begin + (uint64_t)(seconds * 1e9);
	while (now_ns() < end) {
		for (int i = 0; i < 100; i++) {
			atomic_store_explicit(&sh->ping, ++n, memory_order_release);
			while (atomic_load_explicit(&sh->pong, memory_order_acquire) != n)
				relax(yield);
		}
	}
	printf("%s %.1f\n", name, (double)(now_ns() - begin) / (double)n);
	stop(pid);
}

static void echo_eventfd(void *arg)
{
	const int *fd = arg;
	uint64_t one = 1;

	for (;;) {
		if (read(fd[0], &one, sizeof(one)) < 0 || write(fd[1], &one, sizeof(one)) < 0)
			_exit(1);
	}
}

static void wakeup(const char *name, int cpu)
{
	int fd[2] = {eventfd(0, 0), eventfd(0, 0)};
	uint64_t n = 0, one = 1, begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9);
	pid_t pid = start(cpu, echo_eventfd, fd);

	for (; now_ns() < end; n++) {
		if (write(fd[0], &one, sizeof(one)) < 0 || read(fd[1], &one, sizeof(one)) < 0)
			die("eventfd");
	}
	printf("%s %.1f\n", name, (double)(now_ns() - begin) / (double)n);
	stop(pid);
	close(fd[0]);
	close(fd[1]);
}

static void syscalls(void)
{
	uint64_t n = 0, begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9);

	for (; now_ns() < end; n += 100) {
		for (int i = 0; i < 100; i++)
			syscall(SYS_getppid);
	}
	printf("syscall_ns %.1f\n", (double)(now_ns() - begin) / (double)n);
}

/* Takes what the parent produced, copying it out where arg says so. */
static void drain(void *arg)
{
	bool copy = *(bool *)arg;
	static uint8_t out[BULK];
	uint64_t done = 0;

	for (;;) {
		while (atomic_load_explicit(&sh->produced, memory_order_acquire) == done)
			relax(false);
		if (copy) {
			memcpy(out, sh->ring + done % RING_BYTES, BULK);
			__asm__ volatile("" : : "r"(out) : "memory");
		}
		done += BULK;
		atomic_store_explicit(&sh->consumed, done, memory_order_release);
	}
}

static void copies(const char *name, bool copy_out)
{
	static uint8_t in[BULK];
	uint64_t done = 0, begin, end;
	pid_t pid;

	atomic_store(&sh->produced, 0);
	atomic_store(&sh->consumed, 0);
	pid = start(1, drain, &copy_out);
	begin = now_ns();
	end = begin + (uint64_t)(seconds * 1e9);
	while (now_ns() < end) {
		while (done - atomic_load_explicit(&sh->consumed, memory_order_acquire) > RING_BYTES - BULK)
			relax(false);
		memcpy(sh->ring + done % RING_BYTES, in, BULK);
		done += BULK;
		atomic_store_explicit(&sh->produced, done, memory_order_release);
	}
	printf("%s %.2f\n", name, (double)done * 8 / (double)(now_ns() - begin));
	stop(pid);
}

static void copies_on_one_core(void)
{
	static uint8_t in[BULK], out[BULK];
	uint64_t done = 0, begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9);

	for (; now_ns() < end; done += BULK) {
		memcpy(sh->ring + done % RING_BYTES, in, BULK);
		__asm__ volatile("" : : "r"(sh->ring) : "memory");
		memcpy(out, sh->ring + done % RING_BYTES, BULK);
		__asm__ volatile("" : : "r"(out) : "memory");
	}
	printf("copy2_one_gbit %.2f\n", (double)done * 8 / (double)(now_ns() - begin));
}

static void take_messages(void *arg)
{
	uint8_t out[SMALL];
	(void)arg;

	for (uint64_t n = 0;; n++) {
		_Atomic uint32_t *slot = sh->turn[n % (RING_BYTES / SMALL)];

		while (atomic_load_explicit(slot, memory_order_acquire) != (uint32_t)(n / (RING_BYTES / SMALL)) + 1)
			relax(false);
		memcpy(out, (uint8_t *)slot + sizeof(uint64_t), SMALL);
		__asm__ volatile("" : : "r"(out) : "memory");
		if (n % 64 == 63)
			atomic_store_explicit(&sh->consumed, n + 1, memory_order_release);
	}
}

static void messages(void)
{
	static uint8_t in[SMALL];
	uint64_t n = 0, limit = RING_BYTES / SMALL, begin, end;
	pid_t pid;

	memset(sh->turn, 0, sizeof(sh->turn));
	atomic_store(&sh->consumed, 0);
	pid = start(1, take_messages, NULL);
	begin = now_ns();
	end = begin + (uint64_t)(seconds * 1e9);
	while (n % 256 || now_ns() < end) {
		_Atomic uint32_t *slot = sh->turn[n % (RING_BYTES / SMALL)];

		while (n == limit)
			limit = atomic_load_explicit(&sh->consumed, memory_order_acquire) + RING_BYTES / SMALL;
		memcpy((uint8_t *)slot + sizeof(uint64_t), in, SMALL);
		atomic_store_explicit(slot, (uint32_t)(n / (RING_BYTES / SMALL)) + 1, memory_order_release);
		n++;
	}
	printf("messages_per_s %.0f\n", (double)n * 1e9 / (double)(now_ns() - begin));
	stop(pid);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		seconds = strtod(argv[1], NULL) / 1000;
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED)
		die("mmap");
	setvbuf(stdout, NULL, _IONBF, 0);
	pin(0);
	memset(sh->ring, 1, sizeof(sh->ring));
	pingpong("pingpong_two_ns", 1, false);
	pingpong("pingpong_one_ns", 0, true);
	wakeup("wakeup_two_ns", 1);
	wakeup("wakeup_one_ns", 0);
	syscalls();
	copies("copy1_gbit", false);
	copies("copy2_gbit", true);
	copies_on_one_core();
	messages();
	return 0;
}
