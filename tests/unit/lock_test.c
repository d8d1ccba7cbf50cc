/* SPDX-License-Identifier: BSD-2-Clause */
/* The stack's lock (src/socket/lock.h), between threads and between processes, and the repair after its owner's death.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "host/host.h"
#include "host/knobs.h"
#include "socket/lock.h"
#include "socket/process.h"

static struct attached *new_stack(void)
{
	struct stack_config cfg = {0};
	struct attached *a;

	knobs_defaults_for_stack(&cfg);
	cfg.max_socks = 64;
	clock_init();
	a = process_new_stack(&cfg);
	assert_non_null(a);
	return a;
}

#define ROUNDS 200000

struct counted {
	struct attached *a;
	volatile uint64_t *n; /* not atomic on purpose: only the lock protects it */
};

static void *count_up(void *arg)
{
	struct counted *c = arg;

	for (int i = 0; i < ROUNDS; i++) {
		stack_enter(c->a);
		*c->n = *c->n + 1;
		stack_leave(c->a);
	}
	return NULL;
}

static void threads_exclude_each_other(void **state)
{
	volatile uint64_t n = 0;
	struct counted c = {new_stack(), &n};
	pthread_t t[3];

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, count_up, &c), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(n, 3 * ROUNDS);
	assert_int_equal(c.a->s->lock.owner, 0);
	assert_int_equal(wait_lock_depth, 0);
}

static void processes_exclude_each_other(void **state)
{
	volatile uint64_t *n = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct counted c = {new_stack(), n};
	pid_t pid;

	(void)state;
	pid = fork();
	if (!pid) {
		lock_tid = 0;
		count_up(&c);
		_exit(0);
	}
	count_up(&c);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(*n, 2 * ROUNDS);
}

static void *hold_a_while(void *arg)
{
	struct attached *a = arg;

	stack_enter(a);
	usleep(100000);
	stack_leave(a);
	return NULL;
}

static void a_slow_owner_is_waited_for_not_robbed(void **state)
{
	struct attached *a = new_stack();
	pthread_t t;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, hold_a_while, a), 0);
	usleep(20000);
	stack_enter(a);
	assert_int_equal(a->s->lock.repairs, 0);
	stack_leave(a);
	pthread_join(t, NULL);
}

/* A child of the tree takes the lock and is killed: with a socket half built, a torn free list and all. */
static void the_lock_of_a_killed_process_is_taken_over_and_the_stack_repaired(void **state)
{
	struct attached *a = new_stack();
	struct sock *listener, *victim;
	uint32_t slot;
	pid_t pid;
	int ready[2];
	char c;

	(void)state;
	stack_enter(a);
	listener = sock_alloc(&a->e, SOCK_TCP, 4);
	victim = sock_alloc(&a->e, SOCK_TCP, 4);
	listener->holders = victim->holders = 1ull << a->slot;
	listener->local = (struct endpoint){.addr = {[10] = 0xff, [11] = 0xff, 127, 0, 0, 1}, .port = 80};
	assert_int_equal(tcp_listen(&a->e, listener, 5), 0);
	victim->tcp.state = TCP_ESTABLISHED;
	slot = process_slot_alloc(a->s, 1);
	stack_leave(a);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		lock_tid = 0;
		stack_enter(a);
		process_slot_name(a->s, slot, (uint32_t)getpid());
		a->s->pkt_pool.free_head = 12345678;
		victim->rxq.head = 77;
		c = 'x';
		if (write(ready[1], &c, 1) != 1)
			_exit(1);
		pause();
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	kill(pid, SIGKILL);
	/* Not reaped yet: a zombie counts as dead too. */
	stack_enter(a);
	assert_int_equal(a->s->lock.repairs, 1);
	assert_int_equal(a->s->counters[C_stack_repaired], 1);
	assert_int_equal(victim->tcp.state, TCP_CLOSED);
	assert_int_equal(victim->so_error, ECONNRESET);
	assert_int_equal(listener->tcp.state, TCP_LISTEN);
	assert_ptr_equal(sock_lookup_bound(a->s, SOCK_TCP, &listener->local), listener);
	assert_int_equal(stack_audit(&a->e), 0);
	stack_leave(a);
	waitpid(pid, NULL, 0);
}

static void *tid_of_a_thread(void *arg)
{
	lock_tid_load();
	*(uint32_t *)arg = lock_tid;
	return NULL;
}

static void the_lock_of_a_thread_that_ended_is_taken_over(void **state)
{
	struct attached *a = new_stack();
	pthread_t t;
	uint32_t tid = 0;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, tid_of_a_thread, &tid), 0);
	pthread_join(t, NULL);
	usleep(1000);
	atomic_store(&a->s->lock.owner, tid);
	stack_enter(a);
	assert_int_equal(a->s->lock.repairs, 1);
	stack_leave(a);
}

static uint32_t late;

static void run_late(void)
{
	late++;
	wait_signal_pending = false;
}

static void a_handler_put_off_runs_at_the_last_release(void **state)
{
	struct attached *a = new_stack(), *b = new_stack();

	(void)state;
	wait_signals_deferred = run_late;
	stack_enter(a);
	stack_enter(b);
	assert_int_equal(wait_lock_depth, 2);
	wait_signal_pending = true;
	stack_leave(b);
	assert_int_equal(late, 0);
	stack_leave(a);
	assert_int_equal(late, 1);
	wait_signals_deferred = NULL;
}

static void uncontended_it_costs_little(void **state)
{
	struct attached *a = new_stack();
	struct timespec t0, t1;
	double ns, best = 1e9;

	(void)state;
	for (int batch = 0; batch < 100; batch++) {
		clock_gettime(CLOCK_MONOTONIC, &t0);
		for (int i = 0; i < 10000; i++) {
			if (lock_take(a->s))
				fail();
			lock_release(a->s);
		}
		clock_gettime(CLOCK_MONOTONIC, &t1);
		ns = ((double)(t1.tv_sec - t0.tv_sec) * 1e9 + (double)(t1.tv_nsec - t0.tv_nsec)) / 1e4;
		best = ns < best ? ns : best;
	}
	print_message("take and release: %.1f ns\n", best);
	assert_true(best < 1000); /* with sanitizers too: no system call */
}

int main(void)
{
	char err[256];
	extern char **environ;
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(threads_exclude_each_other),
	    cmocka_unit_test(processes_exclude_each_other),
	    cmocka_unit_test(a_slow_owner_is_waited_for_not_robbed),
	    cmocka_unit_test(the_lock_of_a_killed_process_is_taken_over_and_the_stack_repaired),
	    cmocka_unit_test(the_lock_of_a_thread_that_ended_is_taken_over),
	    cmocka_unit_test(a_handler_put_off_runs_at_the_last_release),
	    cmocka_unit_test(uncontended_it_costs_little),
	};

	if (knobs_load(environ, err, sizeof(err)) < 0)
		return 2;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
