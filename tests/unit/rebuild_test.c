/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A process that dies in the middle of a change, again and again, at any instruction.
 *
 * Two stacks in shared memory, a and b, with wires between them, or the rings of two AF_XDP sockets and the test for
 * the kernel, and a dozen connections that carry bytes both ways, each byte known from the connection's name and its
 * place. A child works on a as fast as it can; the test works on b, kills the child, mends a (stack_rebuild), and goes
 * on with another child. What must hold after each death: the books are right, one connection at most was reset, no
 * byte of the others is lost, doubled or out of place; and at the end all buffers come home.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rings.h"

#include "engine/rebuild.h"
#include "lib/test_clock.h"

#define SLOTS 12u
#define WIRES 2u
#define FIRST_PORT 1000u
#define PORTS (SLOTS * 5000u)
#define ROUNDS 600
#define NET_ROUNDS 400
#define CHUNK 9000u

/* One end of a connection, as a program sees it. */
struct end {
	uint32_t sock, gen, port; /* port: the client's, which names the connection */
	uint64_t sent, read;
	uint32_t resets;
};

struct program {
	struct end end[SLOTS];
	uint32_t listener;
	uint32_t bad; /* bytes that were not what they had to be */
	bool quiet;   /* nothing new is written */
};

struct world {
	struct engine a, b;
	struct program *pa, *pb; /* shared, as the stacks are */
	void *wire[WIRES];
	uint32_t vnics, vnic_b[WIRES];
	struct rings *ra, *rb; /* NULL: there are wires */
	struct netview *view[2];
	uint32_t next_port, opened;
	uint64_t random;
	void *room;
};

static void *shared(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static uint8_t byte_at(uint32_t port, bool from_a, uint64_t at)
{
	return (uint8_t)((at + port * 7 + from_a * 3) * 167 >> 3);
}

/* --- a program on one of the stacks --- */

static struct sock *sock_of(struct engine *e, const struct end *x)
{
	struct sock *k = sock_at(e->s, x->sock);

	return k && k->proto == SOCK_TCP && k->gen == x->gen ? k : NULL;
}

static void begin(struct engine *e, struct end *x, uint32_t i, uint32_t port)
{
	struct sock *k = sock_at(e->s, i);

	k->holders = 1;
	x->sent = x->read = 0;
	x->port = port;
	x->gen = k->gen;
	x->sock = i;
}

static void finish(struct engine *e, struct end *x)
{
	uint32_t i = x->sock;
	struct sock *k = sock_of(e, x);

	x->sock = 0;
	x->resets++;
	if (k && i) {
		k->holders = 0;
		tcp_close(e, k, e->s->now_us);
	}
}

static void write_some(struct engine *e, struct program *p, struct end *x, bool is_a, uint32_t len)
{
	static uint8_t buf[CHUNK];
	struct iovec iov = {buf, len};
	struct sock *k = sock_of(e, x);
	ssize_t n;

	if (p->quiet || !k || k->tcp.state != TCP_ESTABLISHED)
		return;
	for (uint32_t i = 0; i < len; i++)
		buf[i] = byte_at(x->port, is_a, x->sent + i);
	n = tcp_send(e, k, &iov, 1, 0, 0, e->s->now_us);
	if (n > 0)
		__atomic_store_n(&x->sent, x->sent + (uint64_t)n, __ATOMIC_RELAXED);
	else if (n != -EAGAIN)
		finish(e, x);
}

static void read_some(struct engine *e, struct program *p, struct end *x, bool is_a, uint32_t len)
{
	static uint8_t buf[CHUNK];
	struct iovec iov = {buf, len};
	struct sock *k = sock_of(e, x);
	ssize_t n = k ? tcp_recv(e, k, &iov, 1, 0, 0, e->s->now_us) : -EBADF;

	if (n == -EAGAIN)
		return;
	for (ssize_t i = 0; i < n; i++)
		p->bad += buf[i] != byte_at(x->port, !is_a, x->read + (uint64_t)i);
	if (n > 0)
		__atomic_store_n(&x->read, x->read + (uint64_t)n, __ATOMIC_RELAXED);
	else
		finish(e, x);
}

static void accept_all(struct engine *e, struct program *p)
{
	int i;

	while ((i = tcp_accept(e, sock_at(e->s, p->listener))) > 0) {
		uint32_t port = sock_at(e->s, (uint32_t)i)->remote.port;
		struct end *x = &p->end[port % SLOTS];

		if (x->sock)
			finish(e, x);
		begin(e, x, (uint32_t)i, port);
	}
}

static void turn(struct engine *e, struct program *p, bool is_a, uint64_t *random)
{
	uint64_t now = now_us();

	engine_poll(e, now, 64);
	engine_tick(e, now);
	if (is_a)
		accept_all(e, p);
	for (uint32_t i = 0; i < SLOTS; i++) {
		struct end *x = &p->end[i];
		uint64_t r = sim_random(random);

		if (x->sock && r & 1)
			write_some(e, p, x, is_a,
				   r & 2 ? 1 + (uint32_t)(r >> 32) % 100 : 1 + (uint32_t)(r >> 32) % CHUNK);
		if (x->sock && r & 4)
			read_some(e, p, x, is_a, 1 + (uint32_t)(r >> 40) % CHUNK);
	}
	tcp_flush_acks(e);
	e->s->proc[0].dirty_head = e->s->proc[0].dirty_tail;
	e->s->proc[0].dirty_overflow = 0;
}

/* --- the two of them --- */

static void stack_up(struct engine *e)
{
	struct stack_config cfg = test_config();
	void *mem = shared(stack_size(&cfg));

	cfg.defaults.time_wait_ms = 100;
	cfg.defaults.rto_min_ms = 20;
	assert_int_equal(stack_format(mem, stack_size(&cfg), &cfg), 0);
	engine_attach(e, mem);
	e->s->proc[0].pid = 1;
	e->s->procs = 1;
	e->s->now_us = now_us();
}

static void join_by_wires(struct world *w)
{
	w->vnics = WIRES;
	for (uint32_t i = 0; i < WIRES; i++) {
		w->wire[i] = shared(wire_size());
		wire_format(w->wire[i]);
		test_wire_join(w->wire[i], 0, &w->a);
		w->vnic_b[i] = test_wire_join(w->wire[i], 1, &w->b);
	}
}

static uint32_t join_network(struct engine *e, struct rings **r, struct netview **view, int end)
{
	const struct xdp_about about = {
	    .ifindex = 2, .mtu = 1500, .features = VNIC_FEAT_SCATTER, .mac = {2, 1, 1, 1, 1, (uint8_t)(1 + end)}};

	*r = shared(sizeof(**r));
	rings_init(*r, shared(RINGS_UMEM));
	e->view = *view = view_pair(end, about.mtu);
	return rings_join(*r, e, &about);
}

static struct world *world_new(bool network)
{
	struct world *w = calloc(1, sizeof(*w));
	struct sock *l;

	w->random = 1;
	w->pa = shared(sizeof(*w->pa));
	w->pb = shared(sizeof(*w->pb));
	stack_up(&w->a);
	stack_up(&w->b);
	if (network) {
		join_network(&w->a, &w->ra, &w->view[0], 0);
		w->vnic_b[0] = join_network(&w->b, &w->rb, &w->view[1], 1);
		w->vnics = 1;
	} else {
		join_by_wires(w);
	}
	w->room = malloc(stack_rebuild_room(w->a.s));
	l = sock_alloc(&w->a, SOCK_TCP, 4);
	l->holders = 1;
	l->local = test_addr4(1, 80);
	assert_int_equal(tcp_listen(&w->a, l, 64), 0);
	w->pa->listener = sock_index(w->a.s, l);
	return w;
}

static int set_up(void **state)
{
	*state = world_new(false);
	return 0;
}

static int set_up_network(void **state)
{
	*state = world_new(true);
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 2 && w->ra; i++)
		view_free(w->view[i]);
	free(w->room);
	free(w);
	return 0;
}

/* The kernel's work: frames across, both ways. */
static void carry(struct world *w)
{
	static uint8_t frame[70000];
	uint32_t len;

	if (!w->ra || !w->rb)
		return;
	while ((len = rings_take(w->ra, frame, sizeof(frame))))
		rings_give(w->rb, frame, len);
	while ((len = rings_take(w->rb, frame, sizeof(frame))))
		rings_give(w->ra, frame, len);
}

/* Every slot has a connection, or is getting one. */
static void connect_all(struct world *w)
{
	for (uint32_t i = 0; i < SLOTS; i++) {
		struct end *x = &w->pb->end[i];
		uint32_t port = FIRST_PORT + (w->next_port % PORTS) / SLOTS * SLOTS;
		struct endpoint local, remote = test_addr4(1, 80);
		struct sock *k;

		if (x->sock)
			continue;
		k = sock_alloc(&w->b, SOCK_TCP, 4);
		assert_non_null(k);
		port += (i + SLOTS - port % SLOTS) % SLOTS;
		w->next_port += SLOTS;
		local = test_addr4(2, (uint16_t)port);
		begin(&w->b, x, sock_index(w->b.s, k), port);
		assert_int_equal(tcp_connect(&w->b, k, w->vnic_b[i % w->vnics], &local, &remote, now_us()), 0);
		w->opened++;
	}
}

/* A child works on a until it is killed, after a while that no one can tell; the test works on b meanwhile. */
static void work_and_die(struct world *w)
{
	uint64_t end = now_us() + 200 + sim_random(&w->random) % 1500;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		uint64_t random = w->random;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			turn(&w->a, w->pa, true, &random);
	}
	while (now_us() < end) {
		carry(w);
		turn(&w->b, w->pb, false, &w->random);
		connect_all(w);
	}
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* As the program would: sockets that the dead one had accepted and not taken note of. */
static void close_strays(struct world *w)
{
	for (uint32_t i = 1; i < w->a.s->sock_pool.mark; i++) {
		struct sock *k = sock_at(w->a.s, i);
		bool known = i == w->pa->listener;

		for (uint32_t j = 0; j < SLOTS; j++)
			known |= w->pa->end[j].sock == i && w->pa->end[j].gen == k->gen;
		if (k->proto == SOCK_TCP && k->holders && !known) {
			k->holders = 0;
			tcp_close(&w->a, k, w->a.s->now_us);
		}
	}
}

static uint32_t mend(struct world *w)
{
	uint64_t before = w->a.s->counters[C_stack_reset_socket];

	memset(w->room, 0, stack_rebuild_room(w->a.s));
	assert_int_equal(stack_rebuild(&w->a, w->room, now_us()), 0);
	w->a.s->lock.changing = w->a.s->lock.vnic = 0;
	assert_int_equal(stack_audit(&w->a), 0);
	close_strays(w);
	return (uint32_t)(w->a.s->counters[C_stack_reset_socket] - before);
}

static void both_turn(struct world *w)
{
	carry(w);
	turn(&w->a, w->pa, true, &w->random);
	turn(&w->b, w->pb, false, &w->random);
}

/* All that was written arrives. */
static void drain(struct world *w)
{
	uint64_t end = now_us() + 10000000;
	bool done = false;

	w->pa->quiet = w->pb->quiet = true;
	while (!done) {
		assert_true(now_us() < end);
		both_turn(w);
		done = true;
		for (uint32_t i = 0; i < SLOTS; i++) {
			const struct end *x = &w->pa->end[i], *y = &w->pb->end[i];

			done &= !x->sock == !y->sock &&
				(!x->sock || (x->port == y->port && x->sent == y->read && y->sent == x->read));
		}
	}
}

static void everything_comes_home(struct world *w)
{
	uint64_t end = now_us() + 3000000;

	for (uint32_t i = 0; i < SLOTS; i++)
		if (w->pb->end[i].sock)
			finish(&w->b, &w->pb->end[i]);
	while (now_us() < end && (w->a.s->sock_pool.in_use > 1 || w->b.s->sock_pool.in_use))
		both_turn(w);
	for (int i = 0; i < 1000; i++)
		both_turn(w);
	assert_int_equal(w->a.s->sock_pool.in_use, 1);
	assert_int_equal(w->a.s->pkt_pool.in_use, 0);
	for (uint32_t i = 0; i < w->vnics; i++) {
		const struct vnic_state *a = stack_vnic(w->a.s, i), *b = stack_vnic(w->b.s, i);

		assert_int_equal(a->rx_held + b->rx_held, 0);
		assert_int_equal(a->free_top + (w->ra ? 0 : b->ret_count), a->tx_count);
		assert_int_equal(b->free_top + (w->ra ? 0 : a->ret_count), b->tx_count);
		assert_int_equal(b->stats.bad_return + b->stats.bad_reuse + b->stats.bad_desc, 0);
		assert_int_equal(a->stats.bad_return + a->stats.bad_reuse + a->stats.bad_desc, 0);
	}
	if (w->ra)
		assert_int_equal(*w->ra->port.fill.producer - w->ra->fill_cons + stack_vnic(w->a.s, 0)->ret_count,
				 RINGS_BUFS);
	assert_int_equal(stack_audit(&w->a) + stack_audit(&w->b), 0);
}

static void die_again_and_again(struct world *w, int rounds)
{
	uint32_t resets = 0, most = 0;
	uint64_t bytes = 0;

	for (int round = 0; round < rounds; round++) {
		uint32_t n;

		work_and_die(w);
		n = mend(w);
		assert_int_equal(mend(w), 0); /* nothing is left to do */
		resets += n;
		most = n > most ? n : most;
		assert_int_equal(w->pa->bad + w->pb->bad, 0);
	}
	drain(w);
	assert_int_equal(w->pa->bad + w->pb->bad, 0);
	for (uint32_t i = 0; i < w->b.s->vnic_high; i++)
		bytes += stack_vnic(w->b.s, i)->stats.rx_bytes;
	print_message("%d deaths, %u sockets reset, %u at once, %u connections, %llu MB to one side\n", rounds, resets,
		      most, w->opened, (unsigned long long)(bytes >> 20));
	assert_true(most <= 2);
	assert_true(bytes > 1 << 20);
	everything_comes_home(w);
}

static void deaths_at_any_instruction_cost_the_connection_in_hand_alone(void **state)
{
	die_again_and_again(*state, ROUNDS);
}

/* All connections go over the one vNIC that the dead may have had in hand. */
static void deaths_with_a_network_in_hand_cost_no_other_connection(void **state)
{
	die_again_and_again(*state, NET_ROUNDS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(deaths_at_any_instruction_cost_the_connection_in_hand_alone, set_up,
					    tear_down),
	    cmocka_unit_test_setup_teardown(deaths_with_a_network_in_hand_cost_no_other_connection, set_up_network,
					    tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
