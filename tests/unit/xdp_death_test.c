/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A process that dies while it has the vNIC of an AF_XDP socket in hand, at each of its instructions.
 *
 * A child receives, holds, gives back, sends and takes completions; it is traced and goes on by one instruction at a
 * time. After each, the test mends what it would have left (xdp_rebuild, xdp_recover), looks, and puts everything back
 * as it was. What must hold: each buffer is in exactly one place, what the kernel was given it was given once, nothing
 * that pkts refer to is touched, and both go on from there.
 */
#include "rings.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vnic/vnic_rebuild.h"

#define LARGE 9000u /* bytes: three buffers */
#define ROUNDS 8

/* All that both can see. */
struct scene {
	struct rings r;
	struct vnic_state st;
	uint64_t rx[VNIC_SET_WORDS], tx[VNIC_SET_WORDS]; /* that pkts refer to */
	uint32_t kernel;                                 /* 1: it is the kernel's turn, until it says SIGTRAP */
	uint32_t held[RINGS_BUFS], holds;
	bool traced;
};

struct world {
	struct scene *now, was;
	struct vnic v;
};

static const struct xdp_about about = {
    .ifindex = 5, .mtu = 1500, .features = VNIC_FEAT_SCATTER, .mac = {2, 0, 0, 0, 0, 5}};

static void *shared(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	w->now = shared(sizeof(*w->now));
	rings_init(&w->now->r, shared(RINGS_UMEM));
	assert_int_equal(xdp_attach(&w->v, &w->now->st, &w->now->r.port, &about), 0);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	munmap(w->now->r.port.umem, RINGS_UMEM);
	munmap(w->now, sizeof(*w->now));
	free(w);
	return 0;
}

/* --- the child --- */

static void kernel_turn(struct scene *c, bool gives)
{
	static uint8_t frame[LARGE];

	__atomic_store_n(&c->kernel, 1, __ATOMIC_SEQ_CST);
	while (rings_take(&c->r, frame, sizeof(frame)))
		;
	for (int i = 0; gives && i < 5; i++)
		rings_give(&c->r, frame, i % 2 ? LARGE : 60);
	__atomic_store_n(&c->kernel, 0, __ATOMIC_SEQ_CST);
	if (c->traced)
		raise(SIGTRAP);
}

static void receive(struct scene *c, struct vnic *v)
{
	struct vnic_desc ev[VNIC_BURST];
	int n = v->ops->poll(v, ev, 8);

	for (int i = 0; i < n; i++) {
		vnic_set_add(c->rx, ev[i].buf);
		c->held[c->holds++] = ev[i].buf;
	}
}

static void give_back(struct scene *c, struct vnic *v, uint32_t leave)
{
	while (c->holds > leave) {
		uint32_t buf = c->held[--c->holds];

		c->rx[buf / 64] &= ~(1ull << buf % 64);
		v->ops->release(v, buf);
	}
}

static void send_some(struct scene *c, struct vnic *v, int parts)
{
	struct vnic_desc d[3];

	for (int i = 0; i < parts; i++) {
		d[i] = (struct vnic_desc){.buf = (uint32_t)vnic_tx_alloc(v), .len = 100};
		vnic_set_add(c->tx, d[i].buf);
	}
	v->ops->post(v, d, parts);
	for (int i = 0; i < parts; i++) {
		c->tx[d[i].buf / 64] &= ~(1ull << d[i].buf % 64);
		vnic_tx_free(v, d[i].buf);
	}
}

static _Noreturn void live(struct scene *c, struct vnic *v)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	c->traced = true;
	raise(SIGSTOP);
	for (int i = 0; i < ROUNDS; i++) {
		kernel_turn(c, true);
		receive(c, v);
		send_some(c, v, 1 + i % 3);
		receive(c, v);
		give_back(c, v, i % 3 ? 5 : 0);
		if (i % 5 == 4)
			v->ops->flush(v);
	}
	_exit(0);
}

/* --- what must hold --- */

/* How many times each buffer is somewhere. */
struct places {
	uint8_t n[RINGS_BUFS];
};

static void add_place(struct places *p, uint64_t buf)
{
	assert_true(buf < RINGS_BUFS);
	p->n[buf]++;
}

/* Receive buffers: the kernel has them, to fill them or filled, or they wait to be given back. */
static struct places rx_places(const struct scene *c)
{
	const struct rings *r = &c->r;
	struct places p = {{0}};

	for (uint32_t at = r->fill_cons; at != *r->port.fill.producer; at++)
		add_place(&p, r->fill[at % RINGS_BUFS] / RINGS_CHUNK);
	for (uint32_t at = *r->port.rx.consumer; at != *r->port.rx.producer; at++)
		add_place(&p, r->rx[at % RINGS_BUFS].addr / RINGS_CHUNK);
	for (uint32_t i = 0; i < c->st.ret_count; i++)
		add_place(&p, c->st.ret[i]);
	return p;
}

static void check_rx(const struct scene *c)
{
	struct places p = rx_places(c);
	uint32_t held = 0;

	for (uint32_t b = 0; b < RINGS_BUFS; b++) {
		uint32_t used = vnic_set_has(c->rx, b);

		assert_int_equal(c->st.rx_state[b], used);
		assert_int_equal(p.n[b] + used, 1);
		held += used;
	}
	assert_int_equal(c->st.rx_held, held);
	assert_int_equal(c->st.rx_prod, *c->r.port.fill.producer);
	assert_int_equal(c->st.evq_cons, *c->r.port.rx.consumer);
}

static void check_tx(const struct scene *c)
{
	struct places out = {{0}}, free = {{0}};

	for (uint32_t at = c->r.tx_cons; at != *c->r.port.tx.producer; at++)
		add_place(&out, c->r.tx[at % RINGS_BUFS].addr / RINGS_CHUNK - RINGS_BUFS);
	for (uint32_t i = 0; i < c->st.free_top; i++)
		add_place(&free, c->st.tx_free[i]);
	for (uint32_t b = 0; b < RINGS_BUFS; b++) {
		uint32_t used = vnic_set_has(c->tx, b);

		assert_true(out.n[b] <= 1);
		assert_int_equal(c->st.tx_state[b], (used ? VNIC_TX_PKT : 0) | (out.n[b] ? VNIC_TX_NIC : 0));
		assert_int_equal(free.n[b], !used && !out.n[b]);
	}
	assert_int_equal(c->st.tx_prod, *c->r.port.tx.producer);
	assert_int_equal(c->st.comp_cons, *c->r.port.comp.producer);
}

/* Both go on: what is in the rings comes, all buffers come home, and nobody complains. */
static void check_the_rest(struct world *w)
{
	struct scene *c = w->now;
	struct vnic_stats before = c->st.stats;

	for (uint32_t b = 0; b < RINGS_BUFS; b++) {
		if (vnic_set_has(c->rx, b))
			w->v.ops->release(&w->v, b);
		if (vnic_set_has(c->tx, b))
			vnic_tx_free(&w->v, b);
	}
	c->holds = 0;
	for (int i = 0; i < 10; i++) {
		kernel_turn(c, true);
		receive(c, &w->v);
		receive(c, &w->v);
		send_some(c, &w->v, 3);
		give_back(c, &w->v, 0);
	}
	kernel_turn(c, false);
	do
		give_back(c, &w->v, 0), receive(c, &w->v);
	while (c->holds);
	w->v.ops->flush(&w->v);
	assert_int_equal(*c->r.port.fill.producer - c->r.fill_cons, RINGS_BUFS);
	assert_int_equal(c->st.free_top, RINGS_BUFS);
	assert_int_equal(c->st.stats.bad_desc, before.bad_desc);
	assert_int_equal(c->st.stats.bad_return, before.bad_return);
	assert_int_equal(c->st.stats.bad_reuse, before.bad_reuse);
}

static void mend_and_look(struct world *w, bool thorough)
{
	struct scene *c = w->now;

	assert_true(xdp_rebuild(&w->v, c->rx, c->tx));
	check_rx(c);
	check_tx(c);
	assert_true(xdp_rebuild(&w->v, c->rx, c->tx)); /* nothing is left to do */
	check_rx(c);
	check_tx(c);
	c->traced = false;
	if (thorough)
		check_the_rest(w);
}

/* As viaductd's child does it: nothing that was received is of use, and the engine mends the free list. */
static void recover_and_look(struct world *w)
{
	struct scene *c = w->now;

	memset(c->rx, 0, sizeof(c->rx));
	xdp_recover(&w->v);
	check_rx(c);
	assert_int_equal(c->st.ret_count, 0);
	assert_true(vnic_rebuild_tx(&c->st, c->tx));
	check_tx(c);
}

static void a_death_at_any_instruction_can_be_mended(void **state)
{
	struct world *w = *state;
	struct scene *c = w->now;
	uint32_t looks = 0;
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid)
		live(c, &w->v);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFSTOPPED(status)) {
		print_message("nobody may be traced here\n");
		skip();
	}
	while (!ptrace(c->kernel ? PTRACE_CONT : PTRACE_SINGLESTEP, pid, NULL, NULL) &&
	       waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
		if (c->kernel)
			continue;
		memcpy(&w->was, c, sizeof(w->was));
		mend_and_look(w, looks++ % 16 == 0);
		memcpy(c, &w->was, sizeof(w->was));
		recover_and_look(w);
		memcpy(c, &w->was, sizeof(w->was));
	}
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	print_message("%u deaths\n", looks);
	assert_true(looks > 1000);
}

static void what_does_not_fit_is_refused(void **state)
{
	struct world *w = *state;
	struct scene *c = w->now;

	vnic_set_add(c->rx, 3); /* which the kernel has */
	assert_false(xdp_rebuild(&w->v, c->rx, c->tx));
	c->rx[0] = 0;
	vnic_set_add(c->tx, 3); /* which is free */
	assert_false(xdp_rebuild(&w->v, c->rx, c->tx));
	c->tx[0] = 0;
	c->st.ret_count = VNIC_RETURNS + 1;
	assert_false(xdp_rebuild(&w->v, c->rx, c->tx));
	c->st.ret_count = 1;
	c->st.ret[0] = RINGS_BUFS;
	assert_false(xdp_rebuild(&w->v, c->rx, c->tx));
	c->st.ret_count = 0;
	assert_true(xdp_rebuild(&w->v, c->rx, c->tx));
}

/* The dead could have written anything into its state. */
static void nonsense_is_survived(void **state)
{
	struct world *w = *state;
	struct scene *c = w->now;
	uint64_t random = 1;

	for (int i = 0; i < 200; i++) {
		uint8_t *byte = (uint8_t *)&c->st.tx_prod;

		for (size_t at = 0; byte + at < (uint8_t *)&c->st.txwait_head; at++)
			byte[at] = (uint8_t)sim_random(&random);
		xdp_recover(&w->v);
		assert_true(c->st.ret_count <= VNIC_RETURNS && c->st.rx_held <= RINGS_BUFS);
		assert_int_equal(c->st.tx_prod, *c->r.port.tx.producer);
		assert_int_equal(c->st.evq_cons, *c->r.port.rx.consumer);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_death_at_any_instruction_can_be_mended, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(what_does_not_fit_is_refused, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(nonsense_is_survived, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
