/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The floor of the network: bare frames over AF_XDP sockets in copy mode, across a veth pair between two network
 * namespaces, generic XDP at both ends (on a veth it is faster than the driver's, and what viaductd takes there), both
 * ends spinning. No protocol, no checksum, nothing but rings and the one system call that sends
 * (Documentation/networking/af_xdp.rst).
 *
 *	bench-xdp-floor [MILLISECONDS per measurement]
 *
 * prints one "name value" per line:
 *	xdp_pingpong_ns, xdp_pingpong_p99_ns    a 64-byte frame to the other end and back, median and 99th percentile
 *	xdp_pingpong_one_ns                     the same with both ends on one core (sched_yield between looks), median
 *	xdp_small_frames_per_s                  64-byte frames one way, 32 for each system call
 *	xdp_full_gbit                           1514-byte frames one way
 *
 * Needs root; what it makes (two namespaces and the pair) goes with the process. The rings are the kernel's, mapped
 *here by hand; the program on the interface is eight instructions that give every frame to the socket.
 */
#define _GNU_SOURCE
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "net.h"

#define RING 2048u
#define CHUNK 4096u
#define RX_FIRST RING /* chunks below are for sending */
#define BATCH 32u
#define SMALL 64u
#define FULL 1514u
#define ROUNDS_MAX 1000000u

struct ring {
	uint32_t *producer, *consumer;
	void *desc;
	uint32_t at; /* our own position */
};

struct port {
	int fd;
	uint8_t *umem;
	struct ring rx, tx, fill, comp;
};

static double seconds = 0.3;

static int sys_bpf(int cmd, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

static struct bpf_insn insn(uint8_t code, uint8_t dst, uint8_t src, int16_t off, int32_t imm)
{
	return (struct bpf_insn){.code = code, .dst_reg = dst, .src_reg = src, .off = off, .imm = imm};
}

/* return bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS); */
static int load_program(int map)
{
	struct bpf_insn code[] = {
	    insn(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_2, BPF_REG_1, offsetof(struct xdp_md, rx_queue_index), 0),
	    insn(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map),
	    insn(0, 0, 0, 0, 0),
	    insn(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_3, 0, 0, XDP_PASS),
	    insn(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect_map),
	    insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_XDP,
			       .insns = (uint64_t)(uintptr_t)code,
			       .insn_cnt = sizeof(code) / sizeof(code[0]),
			       .license = (uint64_t)(uintptr_t) "Dual BSD/GPL",
			       .expected_attach_type = BPF_XDP};
	int fd = sys_bpf(BPF_PROG_LOAD, &attr);

	if (fd < 0)
		die("BPF_PROG_LOAD");
	return fd;
}

static void attach(struct port *p, uint32_t ifindex)
{
	union bpf_attr attr = {.map_type = BPF_MAP_TYPE_XSKMAP, .key_size = 4, .value_size = 4, .max_entries = 1};
	uint32_t key = 0;
	int map = sys_bpf(BPF_MAP_CREATE, &attr), program;

	if (map < 0)
		die("BPF_MAP_CREATE");
	program = load_program(map);
	attr = (union bpf_attr){
	    .map_fd = (uint32_t)map, .key = (uint64_t)(uintptr_t)&key, .value = (uint64_t)(uintptr_t)&p->fd};
	if (sys_bpf(BPF_MAP_UPDATE_ELEM, &attr) < 0)
		die("BPF_MAP_UPDATE_ELEM");
	memset(&attr, 0, sizeof(attr));
	attr.link_create.prog_fd = (uint32_t)program;
	attr.link_create.target_ifindex = ifindex;
	attr.link_create.attach_type = BPF_XDP;
	attr.link_create.flags = XDP_FLAGS_SKB_MODE;
	if (sys_bpf(BPF_LINK_CREATE, &attr) < 0)
		die("BPF_LINK_CREATE");
}

static struct ring map_ring(int fd, const struct xdp_ring_offset *off, size_t size, uint64_t where)
{
	uint8_t *map =
	    mmap(NULL, off->desc + RING * size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, (off_t)where);

	if (map == MAP_FAILED)
		die("mmap of a ring");
	return (struct ring){.producer = (uint32_t *)(void *)(map + off->producer),
			     .consumer = (uint32_t *)(void *)(map + off->consumer),
			     .desc = map + off->desc};
}

static void set_ring(int fd, int option)
{
	uint32_t n = RING;

	if (setsockopt(fd, SOL_XDP, option, &n, sizeof(n)) < 0)
		die("setsockopt of a ring");
}

static void open_port(struct port *p, const char *interface)
{
	struct sockaddr_xdp at = {.sxdp_family = AF_XDP, .sxdp_flags = XDP_COPY | XDP_USE_NEED_WAKEUP};
	struct xdp_mmap_offsets off;
	struct xdp_umem_reg reg = {.len = 2ull * RING * CHUNK, .chunk_size = CHUNK};
	socklen_t len = sizeof(off);

	p->fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	p->umem = mmap(NULL, reg.len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (p->fd < 0 || p->umem == MAP_FAILED)
		die("AF_XDP socket");
	reg.addr = (uint64_t)(uintptr_t)p->umem;
	if (setsockopt(p->fd, SOL_XDP, XDP_UMEM_REG, &reg, sizeof(reg)) < 0)
		die("XDP_UMEM_REG");
	set_ring(p->fd, XDP_UMEM_FILL_RING);
	set_ring(p->fd, XDP_UMEM_COMPLETION_RING);
	set_ring(p->fd, XDP_RX_RING);
	set_ring(p->fd, XDP_TX_RING);
	if (getsockopt(p->fd, SOL_XDP, XDP_MMAP_OFFSETS, &off, &len) < 0)
		die("XDP_MMAP_OFFSETS");
	p->rx = map_ring(p->fd, &off.rx, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING);
	p->tx = map_ring(p->fd, &off.tx, sizeof(struct xdp_desc), XDP_PGOFF_TX_RING);
	p->fill = map_ring(p->fd, &off.fr, sizeof(uint64_t), XDP_UMEM_PGOFF_FILL_RING);
	p->comp = map_ring(p->fd, &off.cr, sizeof(uint64_t), XDP_UMEM_PGOFF_COMPLETION_RING);
	at.sxdp_ifindex = if_nametoindex(interface);
	if (bind(p->fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		die("bind of the AF_XDP socket");
	for (uint32_t i = 0; i < RING; i++)
		((uint64_t *)p->fill.desc)[p->fill.at++ % RING] = (uint64_t)(RX_FIRST + i) * CHUNK;
	__atomic_store_n(p->fill.producer, p->fill.at, __ATOMIC_RELEASE);
	attach(p, at.sxdp_ifindex);
}

/* Take up to max frames out and give their buffers back. */
static uint32_t receive(struct port *p, uint32_t max)
{
	uint32_t n = __atomic_load_n(p->rx.producer, __ATOMIC_ACQUIRE) - p->rx.at;
	const struct xdp_desc *desc = p->rx.desc;

	if (!n)
		return 0;
	n = n < max ? n : max;
	for (uint32_t i = 0; i < n; i++)
		((uint64_t *)p->fill.desc)[p->fill.at++ % RING] = desc[p->rx.at++ % RING].addr & ~(uint64_t)(CHUNK - 1);
	__atomic_store_n(p->rx.consumer, p->rx.at, __ATOMIC_RELEASE);
	__atomic_store_n(p->fill.producer, p->fill.at, __ATOMIC_RELEASE);
	return n;
}

/* Post n frames and tell the kernel. Buffers come round in the order in which they are completed: all the same. */
static void transmit(struct port *p, uint32_t n, uint32_t len)
{
	struct xdp_desc *desc = p->tx.desc;

	while (p->tx.at + n - __atomic_load_n(p->comp.producer, __ATOMIC_ACQUIRE) > RING)
		sendto(p->fd, NULL, 0, MSG_DONTWAIT, NULL, 0);
	p->comp.at = __atomic_load_n(p->comp.producer, __ATOMIC_ACQUIRE);
	__atomic_store_n(p->comp.consumer, p->comp.at, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < n; i++, p->tx.at++)
		desc[p->tx.at % RING] = (struct xdp_desc){.addr = (uint64_t)(p->tx.at % RING) * CHUNK, .len = len};
	__atomic_store_n(p->tx.producer, p->tx.at, __ATOMIC_RELEASE);
	sendto(p->fd, NULL, 0, MSG_DONTWAIT, NULL, 0);
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		die("sched_setaffinity");
}

static void await(struct port *p, bool yield)
{
	while (!receive(p, 1)) {
		if (yield)
			sched_yield();
		else
			__builtin_ia32_pause();
	}
}

static double now(void)
{
	return (double)now_ns() / 1e9;
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return x < y ? -1 : x > y;
}

static void pingpong(struct port *p, bool yield, const char *name, bool tail)
{
	static float took[ROUNDS_MAX];
	double end = now() + seconds, before, after = now();
	uint32_t n = 0;

	while (after < end && n < ROUNDS_MAX) {
		before = after;
		transmit(p, 1, SMALL);
		await(p, yield);
		after = now();
		took[n++] = (float)((after - before) * 1e9);
	}
	qsort(took, n, sizeof(took[0]), by_value);
	printf("%s_ns %.0f\n", name, (double)took[n / 2]);
	if (tail)
		printf("%s_p99_ns %.0f\n", name, (double)took[n / 100 * 99]);
}

/* The peer counts what arrives from the first to the last frame that comes before a silence. */
static void count_frames(struct port *p, uint32_t len)
{
	double first = 0, last = 0;
	uint64_t n = 0;

	while (!last || now() - last < 0.1) {
		uint32_t got = receive(p, BATCH);

		if (got) {
			last = now();
			first = first ? first : last;
			n += got;
		}
	}
	if (len == SMALL)
		printf("xdp_small_frames_per_s %.0f\n", (double)n / (last - first));
	else
		printf("xdp_full_gbit %.2f\n", (double)n * len * 8 / (last - first) / 1e9);
	fflush(stdout);
}

static void flood(struct port *p, uint32_t len)
{
	double end = now() + seconds;

	while (now() < end)
		transmit(p, BATCH, len);
}

/* Steps that both ends take together. */
static void meet(int fd)
{
	char byte = 0;

	if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
		exit(1);
}

static void echo(struct port *p, bool yield, int other)
{
	char byte;

	for (;;) {
		while (!receive(p, 1)) {
			if (recv(other, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 1)
				return;
			for (int i = 0; i < 1000 && *p->rx.producer == p->rx.at; i++) {
				if (yield)
					sched_yield();
				else
					__builtin_ia32_pause();
			}
		}
		transmit(p, 1, SMALL);
	}
}

/* A network namespace of its own, in which nobody speaks unasked. */
static void leave_network(void)
{
	FILE *f;

	if (unshare(CLONE_NEWNET) < 0)
		die("unshare (root?)");
	f = fopen("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w");
	if (f) {
		fputs("1", f);
		fclose(f);
	}
}

static void far_end(int other)
{
	struct port p = {0};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	leave_network();
	meet(other); /* the interface is handed over */
	meet(other);
	if (system("ip link set vb up") != 0)
		exit(1);
	open_port(&p, "vb");
	pin(1);
	meet(other);
	echo(&p, false, other);
	pin(0);
	meet(other);
	echo(&p, true, other);
	pin(1);
	meet(other);
	count_frames(&p, SMALL);
	meet(other);
	count_frames(&p, FULL);
	exit(0);
}

int main(int argc, char **argv)
{
	struct port p = {0};
	char command[64];
	int pair[2];
	pid_t child;

	if (argc > 1)
		seconds = atof(argv[1]) / 1000;
	leave_network();
	if (system("ip link add va type veth peer name vb") != 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		die("veth");
	child = fork();
	if (child == 0)
		far_end(pair[1]);
	meet(pair[0]);
	snprintf(command, sizeof(command), "ip link set vb netns %d && ip link set va up", (int)child);
	if (system(command) != 0)
		exit(1);
	meet(pair[0]);
	open_port(&p, "va");
	pin(0);
	meet(pair[0]);
	usleep(200000); /* the carrier */
	receive(&p, RING);
	pingpong(&p, false, "xdp_pingpong", true);
	meet(pair[0]);
	pingpong(&p, true, "xdp_pingpong_one", false);
	meet(pair[0]);
	fflush(stdout);
	flood(&p, SMALL);
	meet(pair[0]);
	flood(&p, FULL);
	waitpid(child, NULL, 0);
	return 0;
}
