/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Programs that mean harm to /dev/viaduct, and the ends that vNICs come to: mapped memory that is rewritten while
 * frames flow, calls at random, SIGKILL, interfaces, namespaces and the module that go under the feet of their users.
 * Afterwards nothing may be left, and nobody else may have noticed. Runs in the virtual machine (driver_test.py), as
 * root; whether the kernel complained is inside.sh's to see.
 */
#include "device.h"

#include <netinet/ip.h>
#include <netinet/udp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <time.h>

#define HOSTILE_PORT 7300
#define HONEST_PORT 7301
#define PEER_PORT 7400
#define SECONDS 8
#define HEADERS (14u + 20u + 8u)

static uint64_t random_state = 1;

static uint64_t rnd(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static uint64_t below(uint64_t n)
{
	return rnd() % n;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* --- a process that rewrites what it has mapped --- */

/* Where things are, read before they are rewritten. */
struct target {
	struct device d;
	struct vnic_end tx, rx;
	uint32_t lap;
};

/* Nearly right for the driver, which is on that lap. */
static struct vnic_desc plausible(uint32_t lap)
{
	struct vnic_desc desc = {.buf = (uint32_t)below(BUFS + 2),
				 .off = (uint16_t)(below(8) ? 0 : rnd()),
				 .len = (uint16_t)(below(8) ? 74 : rnd()),
				 .type = (uint8_t)(below(8) ? VNIC_DESC_FRAME : rnd()),
				 .flags = (uint8_t)(below(4) ? VNIC_F_CSUM_TX : rnd()),
				 .gso_len = (uint16_t)(below(4) ? 0 : rnd()),
				 .turn = lap};

	if (!below(100))
		desc.turn = (uint32_t)rnd();
	return desc;
}

/* A lap of descriptors in the tx ring, and of returns in the rx ring. */
static void write_lap(struct target *t)
{
	for (uint32_t i = 0; i < BUFS; i++) {
		struct vnic_desc desc = plausible(t->lap);

		*slot(&t->d, t->tx.tx_off, i, BUFS) = desc;
		desc.type = (uint8_t)(below(8) ? VNIC_DESC_RETURN : rnd());
		desc.turn = (uint32_t)(1 + below(t->lap + 1));
		*slot(&t->d, t->tx.rx_off, i, BUFS) = desc;
	}
}

/* A frame that the driver would send, often but for a few bytes. */
static void write_frame(struct target *t, const uint8_t *frame, uint32_t len)
{
	uint8_t *to = t->d.map + t->tx.bufs_off + below(BUFS) * BUF_SIZE;

	memcpy(to, frame, len);
	for (uint64_t n = below(2) ? below(4) : 0; n; n--)
		to[below(len)] = (uint8_t)rnd();
}

static uint32_t good_frame(uint8_t *to)
{
	struct sockaddr_in s = address_of(OURS, 0), p = address_of(PEER, 0);
	struct iphdr ip = {.version = 4,
			   .ihl = 5,
			   .ttl = 64,
			   .protocol = IPPROTO_UDP,
			   .tot_len = htons(60),
			   .saddr = s.sin_addr.s_addr,
			   .daddr = p.sin_addr.s_addr};
	struct udphdr udp = {.source = htons(HOSTILE_PORT), .dest = htons(PEER_PORT), .len = htons(40)};

	memset(to, 0, 74);
	to[0] = 2;
	to[12] = 8;
	memcpy(to + 14, &ip, sizeof(ip));
	memcpy(to + 34, &udp, sizeof(udp));
	return 74;
}

static void open_target(struct target *t, int sock)
{
	struct viaduct_alloc a = alloc_of(IFACE);

	t->d = (struct device){.fd = open(VIADUCT_DEVICE, O_RDWR)};
	if (t->d.fd < 0 || call(t->d.fd, VIADUCT_IOC_ALLOC, &a) != 0)
		_exit(2);
	map_device(&t->d, a.region_size);
	t->tx = t->d.header->end[0];
	t->rx = t->d.header->end[1];
	t->lap = 1;
	if (add_filter(&t->d, filter_of(IPPROTO_UDP, HOSTILE_PORT, sock)) != 0)
		_exit(3);
}

static void rewrite(struct target *t, const uint8_t *frame, uint32_t len)
{
	for (int i = 0; i < 200; i++) {
		if (below(4))
			write_frame(t, frame, len);
		else
			t->d.map[below(t->d.len)] = (uint8_t)rnd();
	}
	if (!below(50))
		memset(t->d.map + below(t->d.len / 4096) * 4096, (int)below(256), 4096);
}

/* Never returns: an unprivileged user's vNIC whose memory is rewritten all the time, by one process that knows where
 * the driver will look, and one that does not; and another vNIC after a while, as the driver loses patience with none.
 */
static void be_hostile(uint64_t seed)
{
	const struct rlimit all = {.rlim_cur = 1 << 24, .rlim_max = 1 << 24};
	struct target t;
	uint8_t frame[128];
	uint32_t len = good_frame(frame);
	int sock;

	random_state = seed * 0x9e3779b97f4a7c15ull | 1;
	setrlimit(RLIMIT_MEMLOCK, &all);
	if (setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
		_exit(1);
	sock = bound_socket(SOCK_DGRAM, OURS, HOSTILE_PORT, false);
	for (;;) {
		pid_t blind;

		open_target(&t, sock);
		blind = fork();
		if (blind == 0)
			for (;;)
				rewrite(&t, frame, len);
		for (double end = now() + 0.3; now() < end; t.lap++)
			for (int i = 0; i < 3; i++) {
				rewrite(&t, frame, len);
				write_lap(&t);
				(void)call(t.d.fd, VIADUCT_IOC_KICK, NULL);
			}
		kill(blind, SIGKILL);
		waitpid(blind, NULL, 0);
		end_device(&t.d);
	}
}

/* Frames of those two vNICs are UDP from OURS and their ports, whatever was in their rings. Returns how many there
 * were. */
static uint32_t look_at_wire(int tap)
{
	struct sockaddr_ll from = {0};
	socklen_t len = sizeof(from);
	struct sockaddr_in ours = address_of(OURS, 0);
	uint8_t got[2048] = {0};
	uint32_t frames = 0;

	while (recvfrom(tap, got, sizeof(got), 0, (struct sockaddr *)&from, &len) > 0) {
		uint16_t port = (uint16_t)(got[34] << 8 | got[35]);

		if (from.sll_pkttype == PACKET_OUTGOING || got[12] != 8 || got[13] != 0 || got[23] == IPPROTO_ICMP)
			continue;
		assert_memory_equal(got + 26, &ours.sin_addr, 4);
		assert_int_equal(got[14], 0x45);
		assert_int_equal(got[23], IPPROTO_UDP);
		assert_true(port == HOSTILE_PORT || port == HONEST_PORT);
		frames++;
	}
	return frames;
}

/* One datagram from the peer reaches the honest vNIC unchanged. */
static void check_honest(struct device *d, int peer, uint32_t number)
{
	struct sockaddr_in a = address_of(OURS, HONEST_PORT);
	uint32_t data[64];
	struct vnic_desc e = {0};

	for (uint32_t i = 0; i < 64; i++)
		data[i] = number * 77 + i;
	assert_int_equal(sendto(peer, data, sizeof(data), 0, (struct sockaddr *)&a, sizeof(a)), sizeof(data));
	assert_true(wait_event(d, &e, 3000));
	assert_int_equal(e.type, VNIC_DESC_FRAME);
	assert_int_equal(e.len, HEADERS + sizeof(data));
	assert_memory_equal(rx_buf(d, e.buf) + HEADERS, data, sizeof(data));
	give_back(d, e.buf);
}

static void kill_group(pid_t child)
{
	kill(-child, SIGKILL);
	waitpid(child, NULL, 0);
}

static void wait_for_no_vnic(void)
{
	for (int i = 0; i < 300 && device_count(); i++)
		usleep(10000);
	assert_int_equal(device_count(), 0);
}

static void a_process_that_rewrites_all_its_memory_harms_only_itself(void **state)
{
	struct device honest = make_device(IFACE);
	int backing = bound_socket(SOCK_DGRAM, OURS, HONEST_PORT, false),
	    peer = peer_socket(SOCK_DGRAM, PEER, PEER_PORT);
	struct sockaddr_in to = address_of(OURS, HOSTILE_PORT);
	int tap = peer_tap();
	uint32_t rounds = 0, frames = 0;
	uint64_t flood[150] = {0};
	double end = now() + SECONDS;
	pid_t child;

	(void)state;
	assert_int_equal(add_filter(&honest, filter_of(IPPROTO_UDP, HONEST_PORT, backing)), 0);
	child = fork();
	if (child == 0) {
		setpgid(0, 0);
		be_hostile((uint64_t)time(NULL));
	}
	setpgid(child, child);
	while (now() < end) {
		for (int i = 0; i < 20; i++)
			sendto(peer, flood, 1 + below(sizeof(flood)), 0, (struct sockaddr *)&to, sizeof(to));
		check_honest(&honest, peer, rounds++);
		frames += look_at_wire(tap);
		assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
	}
	kill_group(child);
	print_message("%u rounds, %u frames of the hostile process were plain enough to be sent\n", rounds, frames);
	assert_true(rounds > 10);
	assert_true(frames > 0);
	close(tap);
	close(peer);
	close(backing);
	end_device(&honest);
	wait_for_no_vnic();
}

/* --- calls at random --- */

static int known_fd(int device, int sock)
{
	switch (below(5)) {
	case 0:
		return device;
	case 1:
		return -1;
	case 2:
		return (int)below(20);
	default:
		return sock;
	}
}

static void one_call(int fd, int sock)
{
	static const unsigned long what[] = {VIADUCT_IOC_ABI,        VIADUCT_IOC_ALLOC,      VIADUCT_IOC_INFO,
					     VIADUCT_IOC_FILTER_ADD, VIADUCT_IOC_FILTER_DEL, VIADUCT_IOC_STATS,
					     VIADUCT_IOC_EVENTFD};
	struct viaduct_filter f = filter_of(below(2) ? IPPROTO_TCP : IPPROTO_UDP, (uint16_t)(7500 + below(3)), -1);
	struct viaduct_alloc a = alloc_of(IFACE);
	uint32_t words[32];

	f.fd = known_fd(fd, sock);
	a.tx_bufs = a.rx_bufs = 16;
	a.flags = below(3) ? 0 : VIADUCT_ALLOC_POLL;
	switch (below(7)) {
	case 0:
		for (int i = 0; i < 32; i++)
			words[i] = below(2) ? (uint32_t)below(70) : (uint32_t)rnd();
		words[0] = (uint32_t)below(130);
		(void)call(fd, what[below(7)], words);
		break;
	case 1:
		(void)call(fd, VIADUCT_IOC_ALLOC, &a);
		break;
	case 2:
		(void)call(fd, VIADUCT_IOC_KICK, NULL);
		break;
	case 3:
		(void)call(fd, VIADUCT_IOC_FILTER_DEL, &f);
		break;
	case 4:
		for (int i = 0; i < 32; i++)
			words[i] = (uint32_t)rnd();
		(void)!write(fd, words, below(sizeof(words)));
		break;
	default:
		if (below(3) == 0) {
			f.remote_port = (uint16_t)(1 + below(2));
			put_address(f.remote, PEER);
		}
		(void)call(fd, VIADUCT_IOC_FILTER_ADD, &f);
		break;
	}
}

static void storm(uint64_t seed)
{
	void *map[8] = {NULL};
	int fd[8];

	random_state = seed * 0x9e3779b97f4a7c15ull | 1;
	for (int i = 0; i < 8; i++)
		fd[i] = open(VIADUCT_DEVICE, O_RDWR);
	for (double end = now() + SECONDS; now() < end;) {
		uint64_t i = below(8);
		int sock = socket(AF_INET, below(2) ? SOCK_STREAM : SOCK_DGRAM, 0), one = 1;
		struct sockaddr_in a = address_of(OURS, (uint16_t)(7500 + below(3)));
		struct pollfd p = {.fd = fd[i], .events = POLLIN};

		setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		(void)!bind(sock, (struct sockaddr *)&a, sizeof(a));
		for (int n = 0; n < 5; n++)
			one_call(fd[i], sock);
		(void)poll(&p, 1, 0);
		if (!below(4) && !map[i]) {
			map[i] =
			    mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd[i], (off_t)below(2) * 4096);
			map[i] = map[i] == MAP_FAILED ? NULL : map[i];
		} else if (!below(4) && map[i]) {
			munmap(map[i], 16 * 4096);
			map[i] = NULL;
		}
		if (!below(6)) {
			close(fd[i]);
			fd[i] = open(VIADUCT_DEVICE, O_RDWR);
		}
		if (!below(60) && fork() == 0) {
			one_call(fd[i], sock);
			_exit(0);
		}
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		close(sock);
	}
	_exit(0);
}

static void calls_at_random_from_four_processes_leave_nothing(void **state)
{
	int peer = peer_socket(SOCK_DGRAM, PEER, PEER_PORT);
	pid_t child[4];

	(void)state;
	for (uint64_t i = 0; i < 4; i++) {
		child[i] = fork();
		if (child[i] == 0) {
			if (i & 1 && (setgid(NOBODY) < 0 || setuid(NOBODY) < 0))
				_exit(1);
			storm((uint64_t)time(NULL) + i);
		}
	}
	for (double end = now() + SECONDS; now() < end; usleep(200)) {
		struct sockaddr_in a = address_of(OURS, (uint16_t)(7500 + below(3)));

		sendto(peer, &a, sizeof(a), 0, (struct sockaddr *)&a, sizeof(a));
	}
	for (int i = 0; i < 4; i++) {
		int status;

		assert_int_equal(waitpid(child[i], &status, 0), child[i]);
		assert_int_equal(status, 0);
	}
	close(peer);
	wait_for_no_vnic();
}

/* --- ends --- */

static void what_was_killed_leaves_no_vnic_no_filter_and_no_port(void **state)
{
	int peer = peer_socket(SOCK_DGRAM, PEER, PEER_PORT);
	struct sockaddr_in to = address_of(OURS, HOSTILE_PORT);

	(void)state;
	for (uint64_t round = 0; round < 15; round++) {
		double end = now() + 0.05 + (double)below(100) / 1000;
		pid_t child = fork();
		int fd = -1;

		if (child == 0) {
			setpgid(0, 0);
			be_hostile(round + 1);
		}
		setpgid(child, child);
		while (now() < end)
			sendto(peer, &to, sizeof(to), 0, (struct sockaddr *)&to, sizeof(to));
		kill_group(child);
		wait_for_no_vnic();
		for (int i = 0; i < 100; i++) { /* the socket's end may take a moment longer */
			fd = socket(AF_INET, SOCK_DGRAM, 0);
			if (bind(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
				break;
			close(fd);
			fd = -1;
			usleep(10000);
		}
		assert_true(fd >= 0);
		close(fd);
	}
	close(peer);
}

static void an_interface_goes_under_its_busy_user(void **state)
{
	(void)state;
	for (int round = 0; round < 8; round++) {
		pid_t child;
		int status;

		assert_int_equal(
		    system("ip link add d0 type veth peer name d1 && ip link set d1 up && ip link set d0 up"), 0);
		child = fork();
		if (child == 0) {
			struct target t = {.d = {.fd = open_device()}};
			struct viaduct_alloc a = alloc_of("d0");
			int ret;

			a.flags = round & 1 ? VIADUCT_ALLOC_POLL : 0;
			assert_int_equal(call(t.d.fd, VIADUCT_IOC_ALLOC, &a), 0);
			map_device(&t.d, a.region_size);
			t.tx = t.d.header->end[0];
			do {
				t.lap++;
				write_lap(&t);
				ret = call(t.d.fd, VIADUCT_IOC_KICK, NULL);
			} while (ret != -EIO);
			_exit(0);
		}
		usleep((useconds_t)below(100000) + 50000);
		assert_int_equal(system("ip link delete d0"), 0);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
	}
	wait_for_no_vnic();
}

static void a_network_namespace_ends_when_its_last_vnic_does(void **state)
{
	struct device d = {0};
	struct viaduct_alloc a;
	int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_int_equal(system("ip netns add gone && ip -n gone link add e0 type veth peer name e1 && "
				"ip -n gone link set e0 up"),
			 0);
	enter_namespace("/run/netns/gone");
	a = alloc_of("e0");
	d.fd = open_device();
	assert_int_equal(call(d.fd, VIADUCT_IOC_ALLOC, &a), 0);
	assert_int_equal(setns(here, CLONE_NEWNET), 0);
	close(here);
	map_device(&d, a.region_size);
	assert_int_equal(system("ip netns delete gone"), 0);
	usleep(100000);
	assert_int_equal(call(d.fd, VIADUCT_IOC_KICK, NULL), 0); /* the file holds it, as a socket would */
	end_device(&d);
	wait_for_no_vnic();
}

static void the_module_stays_while_somebody_has_it_open(void **state)
{
	struct device d = make_device(IFACE);

	(void)state;
	assert_int_not_equal(system("rmmod viaduct 2>/dev/null"), 0);
	close(d.fd);
	assert_int_not_equal(system("rmmod viaduct 2>/dev/null"), 0); /* a mapping counts, too */
	munmap(d.map, d.len);
	wait_for_no_vnic();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_process_that_rewrites_all_its_memory_harms_only_itself),
	    cmocka_unit_test(calls_at_random_from_four_processes_leave_nothing),
	    cmocka_unit_test(what_was_killed_leaves_no_vnic_no_filter_and_no_port),
	    cmocka_unit_test(an_interface_goes_under_its_busy_user),
	    cmocka_unit_test(a_network_namespace_ends_when_its_last_vnic_does),
	    cmocka_unit_test(the_module_stays_while_somebody_has_it_open),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
