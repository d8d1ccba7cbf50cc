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

static void three_count(void *(*others)(void *))
{
	volatile uint64_t n = 0;
	struct counted c = {new_stack(), &n};
	pthread_t t[3];

	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, i ? others : count_up, &c), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(n, 3 * ROUNDS);
	assert_int_equal(c.a->s->lock.owner, 0);
	assert_int_equal(wait_lock_depth, 0);
}

static void threads_exclude_each_other(void **state)
{
	(void)state;
	three_count(count_up);
}

/* Every other time with nothing to tell: whoever sleeps, and was missed, goes on. */
static void *count_up_plainly(void *arg)
{
	struct counted *c = arg;

	for (int i = 0; i < ROUNDS; i++) {
		stack_enter(c->a);
		*c->n = *c->n + 1;
		if (i & 1)
			lock_release_plain(c->a->s);
		else
			stack_leave(c->a);
	}
	return NULL;
}

static void who_releases_with_a_plain_store_excludes_others_and_leaves_nobody_asleep(void **state)
{
	(void)state;
	three_count(count_up_plainly);
}

static void *take_once(void *arg)
{
	struct attached *a = arg;

	stack_enter(a);
	stack_leave(a);
	return NULL;
}

/* What a plain store does to one who marks the word at the same moment. */
static void a_sleeper_whose_mark_was_lost_looks_by_himself(void **state)
{
	struct attached *a = new_stack();
	pthread_t t;

	(void)state;
	stack_enter(a);
	assert_int_equal(pthread_create(&t, NULL, take_once, a), 0);
	while (!(atomic_load(&a->s->lock.owner) & LOCK_SLEEPERS))
		usleep(100);
	atomic_store(&a->s->lock.owner, lock_tid);
	lock_release_plain(a->s);
	pthread_join(t, NULL);
	assert_int_equal(a->s->lock.owner, 0);
	assert_int_equal(a->s->lock.repairs, 0);
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

struct scene {
	struct attached *a;
	struct sock *listener, *udp, *victim, *bystander;
};

static struct sock *new_sock(struct attached *a, enum sock_proto proto, uint16_t port)
{
	struct sock *k = sock_alloc(&a->e, proto, 4);

	assert_non_null(k);
	k->holders = 1ull << a->slot;
	k->local = (struct endpoint){.addr = {[10] = 0xff, [11] = 0xff, 127, 0, 0, 1}, .port = port};
	return k;
}

static struct scene new_scene(void)
{
	struct scene c = {.a = new_stack()};

	stack_enter(c.a);
	c.listener = new_sock(c.a, SOCK_TCP, 80);
	assert_int_equal(tcp_listen(&c.a->e, c.listener, 5), 0);
	c.udp = new_sock(c.a, SOCK_UDP, 81);
	sock_hash(c.a->s, c.udp);
	c.victim = new_sock(c.a, SOCK_TCP, 82);
	c.bystander = new_sock(c.a, SOCK_TCP, 83);
	c.victim->tcp.state = c.bystander->tcp.state = TCP_ESTABLISHED;
	c.victim->remote = c.bystander->remote = c.victim->local;
	sock_hash(c.a->s, c.victim);
	sock_hash(c.a->s, c.bystander);
	timer_set(&c.a->e, c.bystander, TIMER_KEEP, c.a->s->now_us + 7200000000u);
	stack_leave(c.a);
	return c;
}

/* A child of the tree takes the lock, changes what fn does, and is killed. Not reaped yet: a zombie counts as dead too.
 */
static pid_t die_with_the_lock(const struct scene *c, void (*fn)(const struct scene *))
{
	uint32_t slot;
	pid_t pid;
	int ready[2];
	char x = 'x';

	stack_enter(c->a);
	slot = process_slot_alloc(c->a->s, 1);
	stack_leave(c->a);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		lock_tid = 0;
		stack_enter(c->a);
		process_slot_name(c->a->s, slot, (uint32_t)getpid());
		fn(c);
		if (write(ready[1], &x, 1) != 1)
			_exit(1);
		pause();
	}
	assert_int_equal(read(ready[0], &x, 1), 1);
	close(ready[0]);
	close(ready[1]);
	kill(pid, SIGKILL);
	return pid;
}

static void expect_repaired(const struct scene *c, uint64_t all, enum tcp_state bystander)
{
	struct stack *s = c->a->s;

	assert_int_equal(s->lock.repairs, 1);
	assert_int_equal(s->counters[C_stack_repaired], 1);
	assert_int_equal(s->counters[C_stack_reset_all], all);
	assert_int_equal(c->victim->tcp.state, TCP_CLOSED);
	assert_int_equal(c->victim->so_error, ECONNRESET);
	assert_int_equal(c->bystander->tcp.state, bystander);
	assert_int_equal(c->listener->tcp.state, TCP_LISTEN);
	assert_ptr_equal(sock_lookup_bound(s, SOCK_TCP, &c->listener->local), c->listener);
	assert_ptr_equal(sock_lookup_bound(s, SOCK_UDP, &c->udp->local), c->udp);
	assert_int_equal(stack_audit(&c->a->e), 0);
	assert_true(s->proc[c->a->slot].dirty_overflow); /* this process looks at all its sockets */
}

/* Half a change of the victim, and what it was linked to. */
static void tear(const struct scene *c)
{
	struct stack *s = c->a->s;

	sock_changing(s, c->victim);
	s->pkt_pool.free_head = 12345678;
	s->pkt_pool.in_use = 99;
	s->sock_pool.free_head = sock_index(s, c->bystander);
	s->wheel.slot[3][0] = s->wheel.pending = 77;
	s->ack_soon = s->tw_head = 1u << 30;
	c->victim->rxq.head = 77;
	c->victim->tcp.timer[TIMER_RTO].next = 4711;
	c->bystander->hash_next = c->bystander->tcp.timer[TIMER_KEEP].next = sock_index(s, c->victim);
	memset((char *)s + s->off_hash, 0x55, (size_t)s->cfg.hash_buckets * sizeof(uint32_t));
}

static void of_what_a_killed_process_was_changing_only_that_socket_is_reset(void **state)
{
	struct scene c = new_scene();
	pid_t pid = die_with_the_lock(&c, tear);
	struct sock *k;

	(void)state;
	stack_enter(c.a);
	expect_repaired(&c, 0, TCP_ESTABLISHED);
	assert_int_equal(c.a->s->counters[C_stack_reset_socket], 1);
	assert_ptr_equal(sock_lookup(c.a->s, SOCK_TCP, &c.bystander->local, &c.bystander->remote), c.bystander);
	assert_int_equal(c.a->s->wheel.pending, 1);
	k = sock_alloc(&c.a->e, SOCK_UDP, 4); /* a slot that nobody has */
	assert_true(k && k != c.bystander && k != c.victim && k != c.listener && k != c.udp);
	stack_leave(c.a);
	waitpid(pid, NULL, 0);
}

/* A queue that nobody said was being changed. */
static void tear_two(const struct scene *c)
{
	tear(c);
	c->bystander->rxq.head = 78;
}

static void where_more_is_wrong_all_connections_are_reset(void **state)
{
	struct scene c = new_scene();
	pid_t pid = die_with_the_lock(&c, tear_two);

	(void)state;
	stack_enter(c.a);
	expect_repaired(&c, 1, TCP_CLOSED);
	assert_int_equal(c.bystander->so_error, ECONNRESET);
	stack_leave(c.a);
	waitpid(pid, NULL, 0);
}

static void change_nothing(const struct scene *c)
{
	(void)c;
}

static void a_death_that_changed_nothing_resets_nothing(void **state)
{
	struct scene c = new_scene();
	pid_t pid = die_with_the_lock(&c, change_nothing);

	(void)state;
	stack_enter(c.a);
	assert_int_equal(c.a->s->lock.repairs, 1);
	assert_int_equal(c.victim->tcp.state, TCP_ESTABLISHED);
	assert_int_equal(c.a->s->counters[C_stack_reset_socket] + c.a->s->counters[C_stack_reset_all], 0);
	stack_leave(c.a);
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
	    cmocka_unit_test(who_releases_with_a_plain_store_excludes_others_and_leaves_nobody_asleep),
	    cmocka_unit_test(a_sleeper_whose_mark_was_lost_looks_by_himself),
	    cmocka_unit_test(processes_exclude_each_other),
	    cmocka_unit_test(a_slow_owner_is_waited_for_not_robbed),
	    cmocka_unit_test(of_what_a_killed_process_was_changing_only_that_socket_is_reset),
	    cmocka_unit_test(where_more_is_wrong_all_connections_are_reset),
	    cmocka_unit_test(a_death_that_changed_nothing_resets_nothing),
	    cmocka_unit_test(the_lock_of_a_thread_that_ended_is_taken_over),
	    cmocka_unit_test(a_handler_put_off_runs_at_the_last_release),
	    cmocka_unit_test(uncontended_it_costs_little),
	};

	if (knobs_load(environ, err, sizeof(err)) < 0)
		return 2;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
