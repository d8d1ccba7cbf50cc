/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: the interface's program (src/daemon/steer_parse.h) and the engine read the same frame. What both
 * understand they must understand alike: the same protocol, the same ends, by the frame's own header or by the packet
 * that an ICMP error quotes. What the engine would take and the program does not see is the kernel's: allowed only
 * where steer.bpf.c says so.
 *
 * The linker puts __wrap_ functions in the place of what the engine calls once it has parsed
 * (tests/fuzz/CMakeLists.txt).
 */
#include <arpa/inet.h>
#include <string.h>

#include "daemon/steer_parse.h"
#include "engine/bytes.h"
#include "engine/inet.h"
#include "fuzz.h"
#include "lib/test_stack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
void __wrap_tcp_input(struct engine *e, struct frame *f);
void __wrap_udp_input(struct engine *e, struct frame *f);
struct sock *__wrap_sock_lookup(struct stack *s, enum sock_proto proto, const struct endpoint *local,
				const struct endpoint *remote);

static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};

/* What the engine made of the frame. */
static struct {
	enum { NOTHING, ITSELF, QUOTED } how;
	struct steer_key key;
	bool extended; /* by headers between IPv6's own and the transport's */
} engine_says;

static void said(int how, uint8_t proto, uint8_t family, const struct endpoint *local, const struct endpoint *remote)
{
	engine_says.how = how;
	engine_says.key = (struct steer_key){
	    .proto = proto, .family = family, .local_port = htons(local->port), .remote_port = htons(remote->port)};
	memcpy(engine_says.key.local, local->addr, 16);
	memcpy(engine_says.key.remote, remote->addr, 16);
}

static void arrived(const struct frame *f, uint8_t proto)
{
	struct endpoint src = f->src, dst = f->dst;

	if (f->off + 8 > f->hdr_len)
		return;
	src.port = get_be16(f->hdr + f->off);
	dst.port = get_be16(f->hdr + f->off + 2);
	said(ITSELF, proto, f->family, &dst, &src);
	engine_says.extended = f->family == 6 && f->off != f->l3 + IPV6_HEADER;
}

void __wrap_tcp_input(struct engine *e, struct frame *f)
{
	(void)e;
	arrived(f, PROTO_TCP);
}

void __wrap_udp_input(struct engine *e, struct frame *f)
{
	(void)e;
	arrived(f, PROTO_UDP);
}

struct sock *__wrap_sock_lookup(struct stack *s, enum sock_proto proto, const struct endpoint *local,
				const struct endpoint *remote)
{
	(void)s;
	/* a packet from us to us is looked for before it is delivered */
	if (local != remote && engine_says.how == NOTHING)
		said(QUOTED, proto == SOCK_TCP ? PROTO_TCP : PROTO_UDP, is_v4(local->addr) ? 4 : 6, local, remote);
	return NULL;
}

/* --- frames --- */

static size_t put_ip(uint8_t *at, int family, uint8_t proto, uint8_t from, uint8_t to, size_t payload)
{
	if (family == 4) {
		static const uint8_t head[20] = {0x45, [8] = 64, [12] = 10, [16] = 10};

		memcpy(at, head, sizeof(head));
		at[2] = (uint8_t)((payload + 20) >> 8);
		at[3] = (uint8_t)(payload + 20);
		at[9] = proto;
		at[15] = from;
		at[19] = to;
		return 20;
	}
	memset(at, 0, 40);
	at[0] = 0x60;
	at[4] = (uint8_t)(payload >> 8);
	at[5] = (uint8_t)payload;
	at[6] = proto;
	at[7] = 64;
	at[8] = at[24] = 0xfd;
	at[23] = from;
	at[39] = to;
	return 40;
}

/* A frame of a kind that both know; the input is laid over it. */
static size_t template(uint8_t *frame, uint8_t kind)
{
	int family = kind & 1 ? 4 : 6;
	bool tag = kind & 2, error = kind & 4, tcp = kind & 8;
	uint8_t proto = tcp ? PROTO_TCP : PROTO_UDP;
	size_t at = 12, ip = family == 4 ? 20 : 40, l4 = tcp ? 20 : 8;

	memcpy(frame, mac, 6);
	memcpy(frame + 6, "\2\0\0\0\0\2", 6);
	if (tag) {
		memcpy(frame + at, "\x81\0\0\x0a", 4);
		at += 4;
	}
	memcpy(frame + at, family == 4 ? "\x08\0" : "\x86\xdd", 2);
	at += 2;
	if (error) {
		at += put_ip(frame + at, family, family == 4 ? PROTO_ICMP : PROTO_ICMPV6, 9, 1, 8 + ip + l4);
		memset(frame + at, 0, 8);
		frame[at] = family == 4 ? 3 : 1;
		at += 8;
		at += put_ip(frame + at, family, proto, 1, 2, l4);
	} else {
		at += put_ip(frame + at, family, proto, 2, 1, l4);
	}
	memset(frame + at, 0, l4);
	memcpy(frame + at, "\1\2\3\4", 4);
	if (tcp)
		frame[at + 12] = 0x50;
	return at + l4;
}

static struct engine *network_stack(uint32_t *vnic)
{
	static struct test_device device;
	struct engine *e = fuzz_stack(1000000);
	struct vnic_state *st;

	test_device_free(&device);
	device = (struct test_device){.mtu = 1500, .bufs = 16, .buf_size = 2048};
	*vnic = test_device_join(&device, e);
	st = stack_vnic(e->s, *vnic);
	st->ifindex = 2;
	st->vlan = 10;
	memcpy(st->mac, mac, sizeof(mac));
	return e;
}

/* May the program leave to the kernel what the engine would take? */
static bool left_on_purpose(void)
{
	return engine_says.extended || (engine_says.key.proto == PROTO_TCP && engine_says.how == ITSELF);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	/* behind two bytes the IP header is aligned, as the kernel has it */
	static _Alignas(8) uint8_t room[2 + 512];
	uint8_t *frame = room + 2;
	struct input in = {data, data + len};
	struct parsed steered = {0};
	uint32_t vnic;
	struct engine *e = network_stack(&vnic);
	size_t size = template(frame, in_u8(&in));
	int rc;

	while (in_more(&in)) {
		uint8_t where = in_u8(&in);

		if (where == 255)
			size = in_u8(&in) % (size + 1);
		else if (where < size)
			frame[where] ^= in_u8(&in);
	}
	memset(&engine_says, 0, sizeof(engine_says));
	engine_input(e, vnic, frame, (uint32_t)size, true, 1000000);
	rc = take_frame((struct bytes){frame, frame + size}, &steered);
	if (engine_says.how == NOTHING)
		return 0;
	if (rc) {
		fuzz_require(left_on_purpose());
		return 0;
	}
	fuzz_require(steered.quoted == (engine_says.how == QUOTED));
	fuzz_require(!memcmp(&steered.key, &engine_says.key, sizeof(steered.key)));
	fuzz_require(steered.vlan == 0 || steered.vlan == 10);
	return 0;
}
