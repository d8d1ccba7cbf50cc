/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How many instructions a datagram of 64 bytes takes through the driver, and through the kernel's UDP beside it. Runs
 * in a virtual machine of one processor that counts them (QEMU's -icount: the time stamp counter is their number), so
 * that two runs say the same; driver_test.py reads what it prints. Each figure is the least of ROUNDS.
 *
 * Sent: by a dummy interface, which drops what it gets. Received: from a socket at the veth's other end, whose own way
 * is therefore in both figures.
 */
#include "frames.h"

#include <x86intrin.h>

#define ROUNDS 200
#define BURST 32u
#define DUMMY "e0"
#define DUMMY_OURS "10.77.0.1"
#define DUMMY_PEER "10.77.0.2"

static char payload[64];

static uint64_t least(uint64_t best, uint64_t began)
{
	uint64_t took = __rdtsc() - began;

	return took < best ? took : best;
}

static void take_all(struct device *d)
{
	struct vnic_desc e;

	while (take_event(d, &e))
		if (e.type == VNIC_DESC_FRAME)
			give_back(d, e.buf);
}

/* A KICK for n frames. */
static uint64_t sent(struct device *d, uint32_t n)
{
	uint64_t best = UINT64_MAX, began;

	for (int i = 0; i < ROUNDS; i++) {
		for (uint32_t b = 0; b < n; b++)
			post(d, frame(b, 0, HEADERS + sizeof(payload), 0));
		began = __rdtsc();
		(void)call(d->fd, VIADUCT_IOC_KICK, NULL);
		best = least(best, began);
		take_all(d);
	}
	return best;
}

static uint64_t sent_by_kernel(int fd)
{
	uint64_t best = UINT64_MAX, began;

	for (int i = 0; i < ROUNDS; i++) {
		began = __rdtsc();
		(void)!send(fd, payload, sizeof(payload), 0);
		best = least(best, began);
	}
	return best;
}

/* From the peer's send to where the program has it: in its memory, or in a socket that it must still read. */
static uint64_t received(int peer, uint16_t port, struct device *d, int fd)
{
	struct sockaddr_in a = address_of(OURS, port);
	uint64_t best = UINT64_MAX, began;
	char got[sizeof(payload)];

	assert_int_equal(connect(peer, (struct sockaddr *)&a, sizeof(a)), 0);
	for (int i = 0; i < ROUNDS; i++) {
		began = __rdtsc();
		(void)!send(peer, payload, sizeof(payload), 0);
		if (fd >= 0)
			assert_int_equal(recv(fd, got, sizeof(got), 0), sizeof(got));
		else
			take_all(d);
		best = least(best, began);
	}
	return best;
}

static void measure_sending(void)
{
	struct device d = make_device(DUMMY);
	int backing = bound_socket(SOCK_DGRAM, DUMMY_OURS, PORT, false),
	    kernels = bound_socket(SOCK_DGRAM, NULL, 0, false);
	struct viaduct_filter f = filter_of(IPPROTO_UDP, PORT, backing);
	struct sockaddr_in to = address_of(DUMMY_PEER, PEER_PORT);
	uint64_t one, many;

	put_address(f.local, DUMMY_OURS);
	assert_int_equal(add_filter(&d, f), 0);
	for (uint32_t b = 0; b < BURST; b++) {
		write_udp(&d, b, DUMMY_OURS, PORT, payload, sizeof(payload));
		memcpy(tx_buf(&d, b) + 30, &to.sin_addr, 4);
	}
	one = sent(&d, 1);
	many = sent(&d, BURST);
	assert_int_equal(stats_of(&d).tx_frames, ROUNDS * (1 + BURST));
	assert_int_equal(connect(kernels, (struct sockaddr *)&to, sizeof(to)), 0);
	printf("sent %lu more %lu kernel %lu\n", one, (many - one) / (BURST - 1), sent_by_kernel(kernels));
	close(kernels);
	close(backing);
	end_device(&d);
}

static void measure_receiving(void)
{
	struct world w = make_world();
	int kernels = bound_socket(SOCK_DGRAM, OURS, PORT + 1, false);
	uint64_t ours = received(w.peer, PORT, &w.d, -1);

	assert_int_equal(stats_of(&w.d).rx_frames, ROUNDS);
	printf("received %lu kernel %lu\n", ours, received(w.peer, PORT + 1, &w.d, kernels));
	close(kernels);
	end_world(&w);
}

static void instructions(void **state)
{
	(void)state;
	assert_int_equal(system("modprobe dummy numdummies=0 && ip link add " DUMMY " type dummy && "
				"ip address add " DUMMY_OURS "/24 dev " DUMMY " && ip link set " DUMMY " up && "
				"ip neigh add " DUMMY_PEER " lladdr 02:00:00:00:00:02 dev " DUMMY),
			 0);
	measure_sending();
	measure_receiving();
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(instructions)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
