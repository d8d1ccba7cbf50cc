/* SPDX-License-Identifier: BSD-2-Clause */
/* Frames that grow while the peer has not taken them: small writes behind a backlog, and what a liar makes of it. */
#include "pair.h"

#include <pthread.h>

#include "engine/bytes.h"
#include "engine/inet.h"
#include "vnic/wire.h"

#define COUNTED(p, end, name) ((p)->e[end].s->counters[C_##name])
#define WRITES 1000u

struct talk {
	struct pair *p;
	struct sock *c, *s;
};

static struct talk make(bool nodelay)
{
	struct stack_config cfg = test_config();
	struct talk t = {.p = pair_new(&cfg)};

	pair_open(t.p, &t.c, &t.s);
	tcp_set_nodelay(&t.p->e[0], t.c, nodelay, t.p->now);
	t.c->tcp.snd_wnd = t.c->tcp.snd_max_wnd = 1u << 20;
	t.s->tcp.rcv_adv = t.s->tcp.rcv_nxt + (1u << 20);
	t.c->sndbuf = 1u << 20;
	t.s->rcvbuf = 1u << 20;
	return t;
}

static uint8_t byte_of(uint32_t i)
{
	return (uint8_t)(i * 31 + (i >> 8));
}

/* Write n times len bytes; the stream's bytes are those of their places. */
static void write_many(struct talk *t, uint32_t n, uint32_t len, uint32_t *at)
{
	uint8_t buf[4096];

	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t j = 0; j < len; j++)
			buf[j] = byte_of(*at + j);
		assert_int_equal(pair_send(t->p, 0, t->c, buf, len, 0), len);
		*at += len;
	}
}

/* Returns how many bytes the reader is at now. */
static uint32_t read_all(struct talk *t, uint32_t at)
{
	uint8_t buf[4096];
	ssize_t n;

	do {
		engine_poll(&t->p->e[1], t->p->now, 16);
		n = pair_recv(t->p, 1, t->s, buf, sizeof(buf), 0);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(buf[i], byte_of(at + (uint32_t)i));
		at += n > 0 ? (uint32_t)n : 0;
		tcp_flush_acks(&t->p->e[1]);
		engine_poll(&t->p->e[0], t->p->now, 64);
	} while (n > 0);
	return at;
}

static uint64_t frames(const struct talk *t)
{
	return stack_vnic(t->p->e[0].s, t->p->vnic[0])->stats.tx_frames;
}

static void small_writes_behind_a_backlog_share_frames(void **state)
{
	struct talk t = make(true);
	uint64_t before = frames(&t);
	uint32_t at = 0;

	(void)state;
	write_many(&t, WIRE_LAG, 64, &at);
	assert_in_range(frames(&t) - before, WIRE_LAG - 4, WIRE_LAG);
	write_many(&t, WRITES, 64, &at);
	assert_true(frames(&t) - before < WIRE_LAG + WRITES / 50);
	assert_true(COUNTED(t.p, 0, tcp_added_to_sent) > WRITES - WRITES / 50);
	assert_int_equal(read_all(&t, 0), at);
	assert_int_equal(t.c->tcp.snd_una, t.c->tcp.snd_nxt);
	assert_clean(t.p);
	pair_free(t.p);
}

static void sizes_and_reads_of_all_kinds_keep_the_bytes(void **state)
{
	struct talk t = make(true);
	uint64_t seed = 12345;
	uint32_t at = 0, read = 0;

	(void)state;
	for (int round = 0; round < 300; round++) {
		write_many(&t, (uint32_t)sim_below(&seed, 600), 1 + (uint32_t)sim_below(&seed, round % 3 ? 90 : 700),
			   &at);
		if (sim_below(&seed, 4))
			engine_poll(&t.p->e[1], t.p->now, 1 + (int)sim_below(&seed, 300));
		if (at - read > 400000 || !sim_below(&seed, 3))
			read = read_all(&t, read);
	}
	assert_int_equal(read_all(&t, read), at);
	assert_true(COUNTED(t.p, 0, tcp_added_to_sent) > 1000);
	assert_clean(t.p);
	pair_free(t.p);
}

static void a_frame_that_was_taken_does_not_grow(void **state)
{
	struct talk t = make(true);
	uint32_t at = 0;
	uint64_t added, posted;

	(void)state;
	write_many(&t, WIRE_LAG + 2, 64, &at);
	added = COUNTED(t.p, 0, tcp_added_to_sent);
	assert_true(added > 0);
	for (int i = 0; i < 100; i++)
		engine_poll(&t.p->e[1], t.p->now, 64); /* taken, and neither read nor returned */
	posted = frames(&t);
	write_many(&t, 1, 64, &at);
	assert_int_equal(COUNTED(t.p, 0, tcp_added_to_sent), added);
	assert_int_equal(frames(&t), posted + 1);
	assert_int_equal(read_all(&t, 0), at);
	pair_free(t.p);
}

static void an_owed_ack_goes_in_a_frame_of_its_own(void **state)
{
	struct talk t = make(true);
	uint32_t at = 0;
	uint64_t posted;

	(void)state;
	write_many(&t, WIRE_LAG + 2, 64, &at);
	assert_int_equal(pair_send(t.p, 1, t.s, "x", 1, 0), 1);
	engine_poll(&t.p->e[0], t.p->now, 64);
	posted = frames(&t);
	t.c->tcp.flags |= TCPF_ACK_DELAYED;
	write_many(&t, 1, 64, &at);
	assert_int_equal(frames(&t), posted + 1);
	assert_int_equal(read_all(&t, 0), at);
	pair_free(t.p);
}

static void without_nodelay_nagle_gathers(void **state)
{
	struct talk t = make(false);
	uint32_t at = 0;

	(void)state;
	write_many(&t, WRITES, 64, &at);
	assert_int_equal(COUNTED(t.p, 0, tcp_added_to_sent), 0);
	assert_int_equal(read_all(&t, 0), at);
	pair_free(t.p);
}

/* The descriptor of the frame that end 0 posted last. */
static struct vnic_desc *last_desc(struct talk *t)
{
	struct vnic *v = &t->p->e[0].vnic[t->p->vnic[0]];
	uint32_t at = v->st->tx_prod - 1;

	while (v->tx[at % WIRE_RING].type != VNIC_DESC_FRAME)
		at--;
	return &v->tx[at % WIRE_RING];
}

static void an_open_frame_of_bad_size_is_dropped(void **state)
{
	static const uint16_t bad[] = {0, 1, 13, 40, WIRE_BUF_SIZE, 65535};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct talk t = make(true);
		uint32_t at = 0;

		write_many(&t, WIRE_LAG + 2, 64, &at);
		at -= pkt_at(t.p->e[0].s, t.c->tcp.txq.tail)->len;
		assert_true(last_desc(&t)->flags & VNIC_F_OPEN);
		last_desc(&t)->len = bad[i];
		for (int j = 0; j < 100; j++)
			engine_poll(&t.p->e[1], t.p->now, 64);
		assert_int_equal(tcp_inq(&t.p->e[1], t.s), at);
		assert_int_equal(stack_audit(&t.p->e[1]), 0);
		pair_free(t.p);
	}
}

static void a_length_of_zero_means_the_frame_only_if_it_is_open(void **state)
{
	struct talk t = make(true);
	struct vnic *v = &t.p->e[0].vnic[t.p->vnic[0]];
	uint32_t at = 0;

	(void)state;
	write_many(&t, 1, 64, &at);
	put_be16(vnic_tx_buf(v, last_desc(&t)->buf) + last_desc(&t)->off + ETH_HEADER + 2, 0);
	engine_poll(&t.p->e[1], t.p->now, 16);
	assert_int_equal(tcp_inq(&t.p->e[1], t.s), 0);
	assert_int_equal(COUNTED(t.p, 1, ip_bad_header), 1);
	pair_free(t.p);
}

static void the_general_code_reads_an_open_frame_too(void **state)
{
	struct talk t = make(true);
	uint32_t at = 0;

	(void)state;
	t.s->tcp.hdr_len = 0; /* no short ways */
	write_many(&t, WIRE_LAG + WRITES, 64, &at);
	assert_true(COUNTED(t.p, 0, tcp_added_to_sent) > 0);
	assert_int_equal(read_all(&t, 0), at);
	assert_clean(t.p);
	pair_free(t.p);
}

/* --- both ends at the same time --- */

#define RACE_FRAMES 400000u

static void *race_taker(void *arg)
{
	struct vnic *v = arg;
	struct vnic_state *st = v->st;
	uint32_t next = 0;

	while (next < RACE_FRAMES * 8) {
		struct vnic_desc d;

		if (!wire_take_one(v, &d))
			continue;
		for (uint32_t at = 0; at < d.len; at += 4, next++) {
			uint32_t word;

			memcpy(&word, vnic_rx_buf(v, d.buf) + d.off + at, 4);
			assert_int_equal(word, next);
		}
		v->ops->release(v, d.buf);
		v->ops->flush(v);
	}
	assert_int_equal(st->stats.bad_desc + st->stats.bad_reuse, 0);
	return NULL;
}

/* 32 bytes at a time, into the last frame while it is not taken. */
static void what_is_added_is_taken_once_however_both_meet(void **state)
{
	struct stack_config cfg = test_config();
	struct pair *p = pair_new(&cfg);
	struct vnic *v = &p->e[0].vnic[p->vnic[0]];
	struct vnic_desc ev[VNIC_BURST];
	uint32_t next = 0, grown = 0;
	pthread_t taker;

	(void)state;
	assert_int_equal(pthread_create(&taker, NULL, race_taker, &p->e[1].vnic[p->vnic[1]]), 0);
	while (next < RACE_FRAMES * 8) {
		uint32_t words[8];

		for (uint32_t i = 0; i < 8; i++)
			words[i] = next + i;
		if (wire_may_grow(v->st) && v->st->grow_len + 32u <= 1024) {
			memcpy(vnic_tx_buf(v, v->st->grow_buf) + v->st->grow_off + v->st->grow_len, words, 32);
			if (wire_grow(v, 32)) {
				next += 8;
				grown++;
				continue;
			}
		}
		int buf = vnic_tx_alloc(v);

		if (buf < 0) {
			v->ops->poll(v, ev, VNIC_BURST);
			continue;
		}
		memcpy(vnic_tx_buf(v, (uint32_t)buf), words, 32);
		wire_post_open(v, (uint32_t)buf, 0, 32);
		vnic_tx_free(v, (uint32_t)buf);
		next += 8;
	}
	pthread_join(taker, NULL);
	print_message("%u of %u were added to a frame\n", grown, RACE_FRAMES);
	pair_free(p);
}

/* As a death between the mark and the post leaves it (local_rebuild.c). */
static void a_buffer_whose_open_frame_was_never_posted_is_free_again(void **state)
{
	uint64_t none[VNIC_SET_WORDS] = {0};
	struct talk t = make(true);
	struct vnic *v = &t.p->e[0].vnic[0];
	uint32_t at = 0, before;
	int buf;

	(void)state;
	write_many(&t, 10, 64, &at);
	read_all(&t, 0);
	for (int i = 0; i < 4; i++)
		pair_wait(t.p, SECOND);
	before = v->st->free_top;
	buf = vnic_tx_alloc(v);
	assert_true(buf >= 0);
	v->st->grow_slot = v->st->tx_prod;
	v->st->grow_buf = (uint32_t)buf;
	v->st->tx_state[buf] |= VNIC_TX_NIC;
	assert_true(wire_rebuild(v, none, none));
	assert_int_equal(v->st->free_top, before);
	pair_free(t.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(small_writes_behind_a_backlog_share_frames),
	    cmocka_unit_test(sizes_and_reads_of_all_kinds_keep_the_bytes),
	    cmocka_unit_test(a_frame_that_was_taken_does_not_grow),
	    cmocka_unit_test(an_owed_ack_goes_in_a_frame_of_its_own),
	    cmocka_unit_test(without_nodelay_nagle_gathers),
	    cmocka_unit_test(an_open_frame_of_bad_size_is_dropped),
	    cmocka_unit_test(a_length_of_zero_means_the_frame_only_if_it_is_open),
	    cmocka_unit_test(the_general_code_reads_an_open_frame_too),
	    cmocka_unit_test(what_is_added_is_taken_once_however_both_meet),
	    cmocka_unit_test(a_buffer_whose_open_frame_was_never_posted_is_free_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
