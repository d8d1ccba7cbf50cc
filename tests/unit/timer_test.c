/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The timer wheel against a model that knows all deadlines. The wheel is compiled into this test with a callback of
 * its own.
 */
#define tcp_timer record_timer
#include "engine/timer.c"
#undef tcp_timer
#include "engine_pair.h"

#define TICK_US 1024u
#define SOCKS 200u

struct fired {
	uint32_t sock, kind;
};

static struct fired fired[4 * SOCKS];
static uint32_t fired_count;
static struct sock *again; /* set once more, again_us ahead, when it fires */
static uint64_t again_us;

void record_timer(struct engine *e, struct sock *k, enum timer_kind kind)
{
	assert_true(fired_count < 4 * SOCKS);
	fired[fired_count++] = (struct fired){sock_index(e->s, k), (uint32_t)kind};
	if (k == again) {
		again = NULL;
		timer_set(e, k, kind, e->s->now_us + again_us);
	}
}

static int setup(void **state)
{
	struct stack_config cfg = pair_config();

	*state = calloc(1, sizeof(struct engine));
	test_stack_new(*state, &cfg, 0);
	fired_count = 0;
	again = NULL;
	return 0;
}

static int teardown(void **state)
{
	test_stack_free(*state);
	free(*state);
	return 0;
}

static void run(struct engine *e, uint64_t now)
{
	e->s->now_us = now;
	timer_run(e, now);
}

static void a_timer_fires_once_not_early_and_at_most_a_tick_late(void **state)
{
	struct engine *e = *state;
	struct sock *k = sock_alloc(e, SOCK_TCP, 4);
	const uint64_t spans[] = {1,       1000,    1024,      65000,          65536,         70000,
				  4190000, 4200000, 300000000, 17000000000ull, 90000000000ull};

	run(e, 123456789);
	for (size_t i = 0; i < sizeof(spans) / sizeof(spans[0]); i++) {
		uint64_t deadline = e->s->now_us + spans[i];

		timer_set(e, k, TIMER_KEEP, deadline);
		run(e, deadline - 1);
		assert_int_equal(fired_count, 0);
		run(e, deadline + TICK_US);
		assert_int_equal(fired_count, 1);
		assert_int_equal(fired[0].kind, TIMER_KEEP);
		assert_int_equal(timer_deadline(&k->tcp.timer[TIMER_KEEP]), 0);
		run(e, deadline + 10 * TICK_US);
		assert_int_equal(fired_count, 1);
		fired_count = 0;
	}
	assert_true(timer_next(e) == UINT64_MAX);
}

static void moving_a_timer_later_touches_only_the_socket(void **state)
{
	struct engine *e = *state;
	struct sock *k = sock_alloc(e, SOCK_TCP, 4);
	struct timer_wheel before;

	run(e, 5000000);
	timer_set(e, k, TIMER_RTO, 5200000);
	before = e->s->wheel;
	for (uint64_t d = 5200001; d < 5400000; d += 777)
		timer_set(e, k, TIMER_RTO, d);
	timer_clear(k, TIMER_RTO);
	assert_memory_equal(&before, &e->s->wheel, sizeof(before));
	run(e, 6000000);
	assert_int_equal(fired_count, 0);
	assert_int_equal(e->s->wheel.pending, 0);
}

static void moving_a_timer_earlier_is_obeyed(void **state)
{
	struct engine *e = *state;
	struct sock *k = sock_alloc(e, SOCK_TCP, 4);

	run(e, 5000000);
	timer_set(e, k, TIMER_RTO, 60000000);
	timer_set(e, k, TIMER_RTO, 5002000);
	assert_true(timer_next(e) <= 5002000 + TICK_US);
	run(e, 5002000 + TICK_US);
	assert_int_equal(fired_count, 1);
}

static void a_deadline_in_the_past_fires_at_the_next_tick(void **state)
{
	struct engine *e = *state;
	struct sock *k = sock_alloc(e, SOCK_TCP, 4);

	run(e, 5000000);
	timer_set(e, k, TIMER_LIFE, 1);
	assert_true(timer_next(e) <= 5000000 + TICK_US);
	run(e, 5000000 + TICK_US);
	assert_int_equal(fired_count, 1);
}

static void a_timer_set_from_its_own_callback_is_not_lost(void **state)
{
	struct engine *e = *state;
	struct sock *k = sock_alloc(e, SOCK_TCP, 4);

	run(e, 5000000);
	again = k;
	again_us = 3000000;
	timer_set(e, k, TIMER_RTO, 5100000);
	run(e, 9000000); /* late: the second deadline counts from now */
	assert_int_equal(fired_count, 1);
	run(e, 12000000 + TICK_US);
	assert_int_equal(fired_count, 2);
}

/* The wheel runs late and its only timer sets itself again: it may land in the slot that is being emptied, for later.
 */
static void a_timer_set_again_by_one_that_fired_late_ends_the_run(void **state)
{
	struct engine *e = *state;
	struct sock *k = sock_alloc(e, SOCK_TCP, 4);

	run(e, 5000 << 10);
	for (uint32_t late = 1; late < 200; late++) {
		fired_count = 0;
		again = k;
		again_us = 1;
		timer_set(e, k, TIMER_RTO, e->s->now_us + (10 << 10));
		run(e, e->s->now_us + ((10 + late) << 10));
		assert_int_equal(fired_count, 1);
		run(e, e->s->now_us + (2 << 10));
		assert_int_equal(fired_count, 2);
	}
}

static void a_freed_socket_leaves_no_timer_behind(void **state)
{
	struct engine *e = *state;
	struct sock *a = sock_alloc(e, SOCK_TCP, 4), *b = sock_alloc(e, SOCK_TCP, 4);

	run(e, 5000000);
	for (int kind = 0; kind < TIMER_KINDS; kind++) {
		timer_set(e, a, (enum timer_kind)kind, 5500000);
		timer_set(e, b, (enum timer_kind)kind, 5500000);
	}
	timer_remove_all(e, a);
	assert_int_equal(e->s->wheel.pending, TIMER_KINDS);
	run(e, 6000000);
	assert_int_equal(fired_count, TIMER_KINDS);
	for (uint32_t i = 0; i < fired_count; i++)
		assert_int_equal(fired[i].sock, sock_index(e->s, b));
}

static void time_that_stands_still_or_goes_back_does_no_harm(void **state)
{
	struct engine *e = *state;
	struct sock *k = sock_alloc(e, SOCK_TCP, 4);

	run(e, 5000000);
	timer_set(e, k, TIMER_RTO, 5200000);
	run(e, 4000000);
	run(e, 5000000);
	timer_set(e, k, TIMER_RTO, 5100000);
	run(e, 5100000 + TICK_US);
	assert_int_equal(fired_count, 1);
}

/* The model: true deadlines. All that is due must have fired, nothing else may have. */
static void compare(struct engine *e, struct sock **k, uint64_t model[SOCKS][TIMER_KINDS], uint64_t now)
{
	for (uint32_t i = 0; i < fired_count; i++) {
		uint32_t s = 0;

		while (sock_index(e->s, k[s]) != fired[i].sock)
			s++;
		assert_true(model[s][fired[i].kind] && model[s][fired[i].kind] <= now);
		model[s][fired[i].kind] = 0;
	}
	fired_count = 0;
	for (uint32_t s = 0; s < SOCKS; s++)
		for (int kind = 0; kind < TIMER_KINDS; kind++) {
			uint64_t d = model[s][kind];

			assert_true(d == timer_deadline(&k[s]->tcp.timer[kind]));
			assert_true(!d || d + TICK_US > now);
			assert_true(!d || timer_next(e) < d + TICK_US);
		}
}

static uint64_t random_span(uint64_t *seed)
{
	return random_below(seed, 1u << (1 + random_below(seed, 31))) * (uint64_t)(random_below(seed, 50) ? 1 : 20) + 1;
}

static void random_timers_agree_with_the_model(void **state)
{
	static uint64_t model[SOCKS][TIMER_KINDS];
	struct engine *e = *state;
	uint64_t seed = test_seed(), now = 987654321;
	struct sock *k[SOCKS];

	memset(model, 0, sizeof(model));
	run(e, now);
	for (uint32_t i = 0; i < SOCKS; i++)
		k[i] = sock_alloc(e, SOCK_TCP, 4);
	for (int step = 0; step < 6000; step++) {
		for (uint32_t n = random_below(&seed, 20); n; n--) {
			uint32_t s = random_below(&seed, SOCKS), kind = random_below(&seed, TIMER_KINDS);
			uint32_t what = random_below(&seed, 10);

			if (what == 0) {
				timer_remove_all(e, k[s]);
				memset(model[s], 0, sizeof(model[s]));
			} else if (what < 3) {
				timer_clear(k[s], (enum timer_kind)kind);
				model[s][kind] = 0;
			} else {
				model[s][kind] = now + random_span(&seed);
				timer_set(e, k[s], (enum timer_kind)kind, model[s][kind]);
			}
		}
		now += random_span(&seed) / (random_below(&seed, 4) ? 256 : 1);
		run(e, now);
		compare(e, k, model, now);
	}
}

static void following_timer_next_reaches_every_deadline_in_few_steps(void **state)
{
	struct engine *e = *state;
	struct sock *k = sock_alloc(e, SOCK_TCP, 4);
	uint64_t seed = test_seed();

	run(e, 1000000);
	for (int i = 0; i < 500; i++) {
		uint64_t deadline = e->s->now_us + random_span(&seed), at = 0;
		int steps = 0;

		timer_set(e, k, TIMER_RTO, deadline);
		while (!fired_count) {
			assert_true(++steps < 20);
			at = timer_next(e);
			assert_true(at != UINT64_MAX && at < deadline + TICK_US);
			run(e, at);
		}
		assert_true(at >= deadline);
		fired_count = 0;
	}
}

int main(void)
{
#define WITH_WHEEL(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    WITH_WHEEL(a_timer_fires_once_not_early_and_at_most_a_tick_late),
	    WITH_WHEEL(moving_a_timer_later_touches_only_the_socket),
	    WITH_WHEEL(moving_a_timer_earlier_is_obeyed),
	    WITH_WHEEL(a_deadline_in_the_past_fires_at_the_next_tick),
	    WITH_WHEEL(a_timer_set_from_its_own_callback_is_not_lost),
	    WITH_WHEEL(a_timer_set_again_by_one_that_fired_late_ends_the_run),
	    WITH_WHEEL(a_freed_socket_leaves_no_timer_behind),
	    WITH_WHEEL(time_that_stands_still_or_goes_back_does_no_harm),
	    WITH_WHEEL(random_timers_agree_with_the_model),
	    WITH_WHEEL(following_timer_next_reaches_every_deadline_in_few_steps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
