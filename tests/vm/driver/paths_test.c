/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The other ways that frames take through /dev/viaduct: written to the file, from vNIC to vNIC, and out of a ring that
 * a thread of the driver's polls; eight programs at once; and the day that the administrator wants the module back.
 * Runs in the virtual machine (driver_test.py), as root.
 */
#include "frames.h"

#include <linux/virtio_net.h>
#include <sys/uio.h>

/* --- write(2) --- */

/* Frame of len bytes in tx buffer 0, which is as good a memory as any. The call's result. */
static ssize_t write_frame(struct device *d, const struct virtio_net_hdr *hdr, size_t len)
{
	struct iovec v[2] = {{.iov_base = (void *)(uintptr_t)hdr, .iov_len = sizeof(*hdr)},
			     {.iov_base = tx_buf(d, 0), .iov_len = len}};
	ssize_t n = writev(d->fd, v, 2);

	return n < 0 ? -errno : n;
}

static void a_frame_written_goes_out_like_one_in_the_ring(void **state)
{
	const struct virtio_net_hdr hdr = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM};
	struct world w = make_world();
	uint16_t len = write_udp(&w.d, 0, OURS, PORT, "written", 7);
	struct vnic_desc e = {0};
	char got[16];

	(void)state;
	assert_int_equal(write_frame(&w.d, &hdr, len), sizeof(hdr) + len);
	assert_int_equal(receive(w.peer, got, sizeof(got), 1000), 7);
	assert_memory_equal(got, "written", 7);
	assert_false(take_event(&w.d, &e));
	assert_int_equal(stats_of(&w.d).tx_frames, 1);
	end_world(&w);
}

static void a_frame_written_obeys_the_rules_of_the_ring(void **state)
{
	const struct virtio_net_hdr hdr = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM};
	struct virtio_net_hdr cut = {.gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = 1000};
	struct world w = make_world();
	int bare = open_device();
	void *nowhere;
	uint16_t len;

	(void)state;
	assert_int_equal(write(bare, &hdr, sizeof(hdr)), -1);
	assert_int_equal(errno, ENXIO);
	len = write_udp(&w.d, 0, PEER, PORT, "spoof", 5);
	assert_int_equal(write_frame(&w.d, &hdr, len), -EPERM);
	len = write_udp(&w.d, 0, OURS, PORT + 1, "spoof", 5);
	assert_int_equal(write_frame(&w.d, &hdr, len), -EPERM);
	len = write_udp(&w.d, 0, OURS, PORT, "good", 4);
	assert_int_equal(write_frame(&w.d, &hdr, 13), -EMSGSIZE);
	assert_int_equal(write_frame(&w.d, &hdr, 65535 + 15), -EMSGSIZE);
	assert_int_equal(write_frame(&w.d, &hdr, len - 1u), -EINVAL);
	len = write_udp(&w.d, 0, OURS, PORT, tx_buf(&w.d, 2), 1600); /* beyond the MTU; datagrams are not cut */
	assert_int_equal(write_frame(&w.d, &hdr, len), -EINVAL);
	assert_int_equal(write_frame(&w.d, &cut, len), -EINVAL);
	nowhere = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(write(w.d.fd, nowhere, 100), -1);
	assert_int_equal(errno, EFAULT);
	munmap(nowhere, 4096);
	assert_int_equal(stats_of(&w.d).tx_frames, 0);
	close(bare);
	end_world(&w);
}

static void a_long_segment_written_is_cut_for_the_wire(void **state)
{
	const uint32_t payload = 60000, gso = 1000;
	const struct virtio_net_hdr hdr = {
	    .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = gso};
	struct tcphdr tcp = {.source = htons(PORT), .dest = htons(9), .doff = 5, .ack = 1, .window = htons(1000)};
	struct device d = make_device(IFACE);
	int backing = bound_socket(SOCK_STREAM, OURS, PORT, false), tap = peer_tap();
	uint8_t *at = tx_buf(&d, 0), got[2048];
	uint32_t seen = 0;
	ssize_t n;

	(void)state;
	assert_int_equal(system("ethtool -K " IFACE " tso off gso off >/dev/null 2>&1"), 0);
	assert_int_equal(add_filter(&d, filter_of(IPPROTO_TCP, PORT, backing)), 0);
	write_udp(&d, 0, OURS, PORT, "", 0);
	at[23] = IPPROTO_TCP;
	at[16] = (uint8_t)((payload + 40) >> 8);
	at[17] = (uint8_t)(payload + 40);
	memcpy(at + 34, &tcp, sizeof(tcp));
	assert_int_equal(write_frame(&d, &hdr, payload + 54), sizeof(hdr) + payload + 54);
	while (seen < payload && (n = receive(tap, got, sizeof(got), 1000)) > 0)
		if (n == 54 + (ssize_t)gso && got[23] == IPPROTO_TCP && !memcmp(got + 34, &tcp.source, 2))
			seen += (uint32_t)n - 54;
	assert_int_equal(seen, payload);
	assert_int_equal(system("ethtool -K " IFACE " tso on gso on >/dev/null 2>&1"), 0);
	close(tap);
	close(backing);
	end_device(&d);
}

/* --- from vNIC to vNIC --- */

/* A datagram from PORT to that port of ours, by the interface's own station. */
static uint16_t write_for_us(struct device *d, uint16_t port, const void *data, size_t len)
{
	struct viaduct_info info = {.size = sizeof(info)};
	struct sockaddr_in to = address_of(OURS, port);
	uint16_t frame_len = write_udp(d, 0, OURS, PORT, data, len);

	assert_int_equal(call(d->fd, VIADUCT_IOC_INFO, &info), 0);
	memcpy(tx_buf(d, 0), info.mac, 6);
	memcpy(tx_buf(d, 0) + 30, &to.sin_addr, 4);
	memcpy(tx_buf(d, 0) + 36, &to.sin_port, 2);
	return frame_len;
}

static void two_vnics_of_the_machine_reach_each_other_inside_the_driver(void **state)
{
	struct world w = make_world();
	struct device second = make_device(IFACE);
	int backing = bound_socket(SOCK_DGRAM, OURS, PORT + 1, false), tap = peer_tap();
	struct vnic_desc e = {0};
	uint8_t got[2048];

	(void)state;
	assert_int_equal(add_filter(&second, filter_of(IPPROTO_UDP, PORT + 1, backing)), 0);
	for (uint32_t i = 0; i < 3 * BUFS; i++) {
		post(&w.d, frame(0, 0, write_for_us(&w.d, PORT + 1, &i, sizeof(i)), 0));
		kick(&w.d);
		expect_return(&w.d, 0);
		assert_true(take_event(&second, &e)); /* it is there when the call returns */
		assert_int_equal(e.len, HEADERS + sizeof(i));
		assert_true(e.flags & VNIC_F_CSUM_OK);
		assert_memory_equal(rx_buf(&second, e.buf) + HEADERS, &i, sizeof(i));
		give_back(&second, e.buf);
	}
	post(&w.d, frame(0, 0, write_for_us(&w.d, PORT, "myself", 6), 0));
	kick(&w.d);
	assert_true(take_event(&w.d, &e));
	assert_int_equal(e.type, VNIC_DESC_FRAME);
	assert_int_equal(e.len, HEADERS + 6);
	while (receive(tap, got, sizeof(got), 20) > 0)
		assert_true(got[23] != IPPROTO_UDP); /* none has left */
	close(tap);
	close(backing);
	end_device(&second);
	end_world(&w);
}

static void what_nobody_here_has_goes_nowhere(void **state)
{
	struct world w = make_world();
	int kernels = bound_socket(SOCK_DGRAM, OURS, PORT + 1, false);
	struct vnic_desc e = {0};
	char got[8];

	(void)state;
	post(&w.d, frame(0, 0, write_for_us(&w.d, PORT + 1, "hello", 5), 0));
	kick(&w.d);
	expect_return(&w.d, 0);
	assert_false(take_event(&w.d, &e));
	assert_int_equal(stats_of(&w.d).tx_dropped, 1);
	assert_int_equal(receive(kernels, got, sizeof(got), 20), -1);
	close(kernels);
	end_world(&w);
}

/* --- the polling thread --- */

static bool polling_is(struct device *d, uint32_t value, int ms)
{
	for (int i = 0; i < ms; i++) {
		if (__atomic_load_n(&d->taken->polling, __ATOMIC_SEQ_CST) == value)
			return true;
		usleep(1000);
	}
	return false;
}

static struct world make_polled_world(void)
{
	struct world w = {.d = {.fd = open_device()}, .backing = bound_socket(SOCK_DGRAM, OURS, PORT, false)};
	struct viaduct_alloc a = alloc_of(IFACE);

	a.flags = VIADUCT_ALLOC_POLL;
	assert_int_equal(call(w.d.fd, VIADUCT_IOC_ALLOC, &a), 0);
	map_device(&w.d, a.region_size);
	w.peer = peer_socket(SOCK_DGRAM, PEER, PEER_PORT);
	assert_int_equal(add_filter(&w.d, filter_of(IPPROTO_UDP, PORT, w.backing)), 0);
	return w;
}

/* As a program does that has such a thread: it kicks when the thread sleeps. */
static uint32_t send_polled(struct device *d, uint32_t buf, const void *data, size_t len)
{
	post(d, frame(buf, 0, write_udp(d, buf, OURS, PORT, data, len), 0));
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&d->taken->polling, __ATOMIC_RELAXED))
		return 0;
	kick(d);
	return 1;
}

/* Both arrive, in either order: the thread may have changed processors in between. Their buffers come back in theirs.
 */
static void expect_two(struct world *w, uint32_t first)
{
	struct vnic_desc e = {0};
	uint32_t a = UINT32_MAX, b = UINT32_MAX;

	assert_int_equal(receive(w->peer, &a, sizeof(a), 3000), sizeof(a));
	assert_int_equal(receive(w->peer, &b, sizeof(b), 3000), sizeof(b));
	assert_int_equal(a < b ? a : b, first);
	assert_int_equal(a < b ? b : a, first + 1);
	for (uint32_t i = first; i < first + 2; i++) {
		assert_true(wait_event(&w->d, &e, 3000));
		assert_int_equal(e.type, VNIC_DESC_RETURN);
		assert_int_equal(e.buf, i % BUFS);
	}
}

static void a_polled_ring_needs_no_call_while_it_is_busy(void **state)
{
	struct world w = make_polled_world();
	uint32_t kicks = 0;

	(void)state;
	for (uint32_t i = 0; i < 300; i += 2) { /* the second finds the thread awake, if the machine is not too slow */
		uint32_t second = i + 1;

		kicks += send_polled(&w.d, i % BUFS, &i, sizeof(i));
		kicks += send_polled(&w.d, second % BUFS, &second, sizeof(second));
		expect_two(&w, i);
	}
	print_message("%u of 300 frames needed a call\n", kicks);
	assert_int_equal(stats_of(&w.d).kicks, kicks);
	assert_true(kicks < 300);
	end_world(&w);
}

static void the_thread_sleeps_when_there_is_nothing_and_says_so(void **state)
{
	struct world w = make_polled_world();
	uint8_t got[8];
	int slept = 0;

	(void)state;
	for (uint32_t i = 0; i < 20 && slept < 2; i++) {
		assert_true(polling_is(&w.d, 0, 10000));
		post(&w.d, frame(i, 0, write_udp(&w.d, i, OURS, PORT, "late", 4), 0));
		if (receive(w.peer, got, sizeof(got), 50) == 4)
			continue; /* the thread's last look, which came late */
		kick(&w.d);
		assert_int_equal(receive(w.peer, got, sizeof(got), 3000), 4);
		slept++;
	}
	assert_int_equal(slept, 2);
	end_world(&w);
}

static int alloc_polled(void *unused)
{
	struct viaduct_alloc a = alloc_of(IFACE);
	int fd = open_device(), ret;

	(void)unused;
	a.flags = VIADUCT_ALLOC_POLL;
	a.tx_bufs = a.rx_bufs = 16;
	ret = call(fd, VIADUCT_IOC_ALLOC, &a);
	a.flags = 0;
	return ret == -EPERM && call(fd, VIADUCT_IOC_ALLOC, &a) == 0 ? 0 : 1;
}

static void a_thread_is_not_for_everybody(void **state)
{
	(void)state;
	assert_int_equal(as_user(NOBODY, alloc_polled, NULL), 0);
}

/* --- eight at once --- */

#define PROGRAMS 8
#define ROUNDS 150u

/* A program: every datagram comes back from the peer as it was, to it and to nobody else. */
static int echo(uint16_t port, bool polled)
{
	struct viaduct_alloc a = alloc_of(IFACE);
	struct device d = {.fd = open_device()};
	int backing = bound_socket(SOCK_DGRAM, OURS, port, false);
	struct vnic_desc e = {0};

	a.flags = polled ? VIADUCT_ALLOC_POLL : 0;
	if (call(d.fd, VIADUCT_IOC_ALLOC, &a) != 0)
		return 1;
	map_device(&d, a.region_size);
	if (add_filter(&d, filter_of(IPPROTO_UDP, port, backing)) != 0)
		return 2;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		uint32_t data[64];

		for (uint32_t j = 0; j < 64; j++)
			data[j] = port * 1000003u + i * 64 + j;
		post(&d, frame(i % BUFS, 0, write_udp(&d, i % BUFS, OURS, port, data, sizeof(data)), 0));
		kick(&d);
		do {
			if (!wait_event(&d, &e, 20000))
				return 3;
		} while (e.type == VNIC_DESC_RETURN);
		if (e.type != VNIC_DESC_FRAME || e.len != HEADERS + sizeof(data) ||
		    memcmp(rx_buf(&d, e.buf) + HEADERS, data, sizeof(data)))
			return 4;
		give_back(&d, e.buf);
	}
	return 0;
}

static void eight_programs_on_one_interface_each_get_their_own(void **state)
{
	int peer = peer_socket(SOCK_DGRAM, PEER, PEER_PORT), running = PROGRAMS;
	pid_t child[PROGRAMS];

	(void)state;
	for (uint16_t i = 0; i < PROGRAMS; i++) {
		child[i] = fork();
		if (child[i] == 0)
			_exit(echo((uint16_t)(7600 + i), i & 1));
	}
	while (running) {
		struct pollfd p = {.fd = peer, .events = POLLIN};
		struct sockaddr_in from;
		socklen_t from_len = sizeof(from);
		uint8_t data[512];
		int status;

		while (poll(&p, 1, 5) == 1) {
			ssize_t n = recvfrom(peer, data, sizeof(data), 0, (struct sockaddr *)&from, &from_len);

			assert_int_equal(sendto(peer, data, (size_t)n, 0, (struct sockaddr *)&from, from_len), n);
		}
		for (int i = 0; i < PROGRAMS; i++)
			if (child[i] && waitpid(child[i], &status, WNOHANG) == child[i]) {
				child[i] = 0;
				running--;
				assert_int_equal(status, 0);
			}
	}
	close(peer);
	assert_int_equal(device_count(), 0);
}

/* --- the module is wanted back --- */

static void retire(const char *on)
{
	int fd = open("/sys/module/viaduct/parameters/retire", O_WRONLY | O_CLOEXEC);

	assert_int_equal(write(fd, on, 1), 1);
	close(fd);
}

static void a_module_that_retires_takes_its_vnics_from_all_users(void **state)
{
	struct world w = make_world();
	struct device other = make_device(IFACE);
	struct pollfd p = {.fd = w.d.fd, .events = POLLIN};
	struct viaduct_alloc a = alloc_of(IFACE);
	struct vnic_desc e = {0};
	int before = open_device();
	char got[8];

	(void)state;
	post(&w.d, frame(0, 0, write_udp(&w.d, 0, OURS, PORT, "x", 1), 0));
	kick(&w.d);
	expect_return(&w.d, 0);
	assert_int_equal(receive(w.peer, got, sizeof(got), 1000), 1);
	retire("1");
	assert_int_equal(poll(&p, 1, 1000), 1);
	assert_true(p.revents & POLLHUP);
	assert_true(wait_event(&w.d, &e, 1000));
	assert_int_equal(e.type, VNIC_DESC_LINK);
	assert_int_equal(e.len, 0);
	assert_int_equal(call(w.d.fd, VIADUCT_IOC_KICK, NULL), -EIO);
	assert_int_equal(call(other.fd, VIADUCT_IOC_KICK, NULL), -EIO);
	assert_int_equal(call(before, VIADUCT_IOC_ALLOC, &a), -ENODEV);
	assert_int_equal(open(VIADUCT_DEVICE, O_RDWR), -1);
	assert_int_equal(errno, ENODEV);
	send_to_us(w.peer, PORT, "kernel", 6); /* the port is the backing socket's again */
	assert_int_equal(receive(w.backing, got, sizeof(got), 1000), 6);
	end_device(&other);
	end_world(&w);
	retire("0");
	assert_int_equal(call(before, VIADUCT_IOC_ALLOC, &a), 0);
	close(before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_frame_written_goes_out_like_one_in_the_ring),
	    cmocka_unit_test(a_frame_written_obeys_the_rules_of_the_ring),
	    cmocka_unit_test(a_long_segment_written_is_cut_for_the_wire),
	    cmocka_unit_test(two_vnics_of_the_machine_reach_each_other_inside_the_driver),
	    cmocka_unit_test(what_nobody_here_has_goes_nowhere),
	    cmocka_unit_test(a_polled_ring_needs_no_call_while_it_is_busy),
	    cmocka_unit_test(the_thread_sleeps_when_there_is_nothing_and_says_so),
	    cmocka_unit_test(a_thread_is_not_for_everybody),
	    cmocka_unit_test(eight_programs_on_one_interface_each_get_their_own),
	    cmocka_unit_test(a_module_that_retires_takes_its_vnics_from_all_users),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
