/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: hostile memory behind a wire. The engine under test sits on end 0 of a wire; the input plays end 1 with
 * writes anywhere in the shared memory, with descriptors in its ring (right turn, any content), and with frames that
 * are nearly right. Connections are open meanwhile. Whatever happens, the stack's books stay right, no call loops, and
 * the wire can be given up.
 */
#include <string.h>

#include "fuzz.h"
#include "lib/test_stack.h"
#include "vnic/ring.h"

#define RECORDS_MAX 300u
#define PORT 80u

static struct {
	struct engine *e;
	struct vnic hostile; /* end 1, with a state that nobody relies on */
	struct vnic_state hostile_state;
	uint8_t *mem;
	struct input in;
	uint64_t now;
	uint32_t prod, listener;
} z;

static void write_anywhere(void)
{
	uint32_t at = in_u32(&z.in), n = in_u8(&z.in) % 32;
	/* Rings and control lines are more interesting than the middle of the areas. */
	size_t reach = at & 1 ? 4096 + 2 * WIRE_RING * sizeof(struct vnic_desc) : wire_size();

	for (uint32_t i = 0; i < n; i++)
		z.mem[(at / 2 + i) % reach] = in_u8(&z.in);
}

static void post_any(void)
{
	struct vnic_desc d = {.buf = in_u8(&z.in),
			      .off = in_u8(&z.in),
			      .len = in_u16(&z.in),
			      .type = in_u8(&z.in) % 5,
			      .flags = in_u8(&z.in)};

	if (d.flags & 0x80)
		d.buf = in_u32(&z.in);
	if (d.flags & 0x40)
		d.off = in_u16(&z.in);
	if (d.flags & 0x20)
		z.prod += in_u8(&z.in) % 4; /* leaves a hole: stuck until it is filled */
	ring_write(z.hostile.tx, z.prod++, WIRE_RING, &d);
}

/* A segment for one of the sockets of the engine, in one to three parts. */
static void post_segment(void)
{
	struct fuzz_segment g = {.src = 2, .dst = 1, .dport = PORT, .wnd = 0xffff};
	struct sock *k = sock_at(z.e->s, 1 + in_u8(&z.in) % 8);
	uint8_t frame[FUZZ_FRAME_MAX];
	uint32_t len, buf = in_u8(&z.in), parts = 1 + in_u8(&z.in) % 3, at = 0;

	g.sport = (uint16_t)(1000 + in_u8(&z.in) % 4);
	g.flags = in_u8(&z.in);
	if (k->proto == SOCK_TCP && k->remote.port) {
		g.sport = k->remote.port;
		g.dport = k->local.port;
		g.seq = k->tcp.rcv_nxt;
		g.ack = k->tcp.snd_max;
		g.flags = g.flags & 0x80 ? g.flags : TH_ACK;
		g.len = in_u16(&z.in) % 1400;
	} else {
		g.flags = TH_SYN;
	}
	len = fuzz_frame(frame, &g);
	for (uint32_t i = 0; i < parts; i++) {
		uint32_t n = i + 1 < parts ? len / parts : len - at;
		struct vnic_desc d = {.buf = (buf + i) % WIRE_BUFS,
				      .len = (uint16_t)n,
				      .type = VNIC_DESC_FRAME,
				      .flags = i + 1 < parts ? VNIC_F_MORE : 0};

		memcpy(vnic_tx_buf(&z.hostile, d.buf), frame + at, n);
		ring_write(z.hostile.tx, z.prod++, WIRE_RING, &d);
		at += n;
	}
}

static void call(void)
{
	static uint8_t buf[65536];
	struct iovec iov = {.iov_base = buf, .iov_len = in_u16(&z.in)};
	uint8_t what = in_u8(&z.in);
	struct sock *k = sock_at(z.e->s, 1 + in_u8(&z.in) % 8);

	if (what % 8 == 0) {
		int i = tcp_accept(z.e, sock_at(z.e->s, z.listener));

		if (i > 0)
			sock_at(z.e->s, (uint32_t)i)->holders = 1;
		return;
	}
	if (what % 8 == 1) {
		struct endpoint local = {.port = (uint16_t)(3000 + what / 8)}, remote = {.port = 1000};

		fuzz_address(local.addr, 1);
		fuzz_address(remote.addr, 2);
		k = sock_lookup(z.e->s, SOCK_TCP, &local, &remote) ? NULL : sock_alloc(z.e, SOCK_TCP, 4);
		if (!k)
			return;
		k->holders = 1;
		fuzz_require(tcp_connect(z.e, k, 0, &local, &remote, z.now) <= 0);
		return;
	}
	if (k->proto != SOCK_TCP || !k->holders || sock_index(z.e->s, k) == z.listener)
		return;
	if (what % 8 < 5)
		tcp_send(z.e, k, &iov, 1, 0, 0, z.now);
	else if (what % 8 < 7)
		tcp_recv(z.e, k, &iov, 1, 0, 0, z.now);
	else if (what & 0x80) {
		k->holders = 0;
		tcp_close(z.e, k, z.now);
	}
}

static void record(void)
{
	switch (in_u8(&z.in) % 8) {
	case 0:
		write_anywhere();
		break;
	case 1:
	case 2:
		post_any();
		break;
	case 3:
	case 4:
		post_segment();
		break;
	case 5:
		z.now += 1000u * in_u16(&z.in);
		break;
	default:
		call();
		break;
	}
}

static void begin(const uint8_t *data, size_t size)
{
	struct sock *k;

	memset(&z.hostile_state, 0, sizeof(z.hostile_state));
	z.in = (struct input){data, data + size};
	z.now = 1000000000;
	z.prod = 0;
	z.e = fuzz_stack(z.now);
	z.mem = test_wire_new(z.mem);
	fuzz_require(test_wire_join(z.mem, 0, z.e) == 0);
	wire_attach(&z.hostile, &z.hostile_state, z.mem, 1);
	k = sock_alloc(z.e, SOCK_TCP, 4);
	fuzz_address(k->local.addr, 1);
	k->local.port = PORT;
	k->holders = 1;
	fuzz_require(tcp_listen(z.e, k, 8) == 0);
	z.listener = sock_index(z.e->s, k);
}

/* Everything is closed, then the wire is given up. */
static void finish(void)
{
	for (uint32_t i = 1; i < FUZZ_SOCKS; i++) {
		struct sock *k = sock_at(z.e->s, i);

		if (k->proto == SOCK_TCP && k->holders) {
			k->holders = 0;
			tcp_close(z.e, k, z.now);
		}
	}
	engine_vnic_dead(z.e, 0, z.now);
	for (int i = 0; i < 2000 && engine_deadline(z.e) != UINT64_MAX; i++) {
		z.now = engine_deadline(z.e) > z.now ? engine_deadline(z.e) : z.now;
		fuzz_settle(z.e, z.now);
	}
	fuzz_check(z.e, z.now, true);
	fuzz_require(z.e->s->sock_pool.in_use == 0);
	fuzz_require(z.e->s->pkt_pool.in_use == 0);
	fuzz_require(z.e->s->private_pool.in_use == 0);
	fuzz_require(engine_vnic_free(z.e, 0) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	begin(data, size);
	for (uint32_t n = 0; in_more(&z.in) && n < RECORDS_MAX; n++) {
		record();
		fuzz_settle(z.e, z.now);
		vnic_take_armed(&z.e->vnic[0]);
		fuzz_check(z.e, z.now, n % 16 == 15);
	}
	finish();
	return 0;
}
