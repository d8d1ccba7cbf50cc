/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames through /dev/viaduct, with the kernel's own sockets as the peer behind the veth: what is taken and what goes
 * on, buffers, wake-ups, what may be sent, checksums and the cutting of segments, and the end of the interface. Runs in
 * the virtual machine (driver_test.py), as root; senders that must have no rights are nobody's.
 */
#include "frames.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

/* --- receiving --- */

static void a_frame_for_the_filter_arrives_whole(void **state)
{
	struct world w = make_world();
	struct vnic_desc e = {0};
	uint8_t data[1200];

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7);
	send_to_us(w.peer, PORT, data, sizeof(data));
	assert_true(wait_event(&w.d, &e, 1000));
	assert_int_equal(e.type, VNIC_DESC_FRAME);
	assert_int_equal(e.len, HEADERS + sizeof(data));
	assert_true(e.flags & VNIC_F_CSUM_OK); /* it comes from this machine */
	assert_memory_equal(rx_buf(&w.d, e.buf) + e.off + 6, peer_mac(), 6);
	assert_memory_equal(rx_buf(&w.d, e.buf) + e.off + HEADERS, data, sizeof(data));
	assert_int_equal(receive(w.backing, data, sizeof(data), 20), -1);
	end_world(&w);
}

static void what_no_filter_covers_is_the_kernels(void **state)
{
	struct world w = make_world();
	int other = bound_socket(SOCK_DGRAM, OURS, PORT + 1, false);
	struct vnic_desc e = {0};
	char got[8];

	(void)state;
	send_to_us(w.peer, PORT + 1, "mine", 4);
	assert_int_equal(receive(other, got, sizeof(got), 1000), 4);
	assert_false(take_event(&w.d, &e));
	assert_int_equal(del_filter(&w.d, filter_of(IPPROTO_UDP, PORT, -1)), 0);
	send_to_us(w.peer, PORT, "back", 4);
	assert_int_equal(receive(w.backing, got, sizeof(got), 1000), 4);
	assert_false(take_event(&w.d, &e));
	close(other);
	end_world(&w);
}

static void a_flow_comes_before_its_port_and_a_port_before_any(void **state)
{
	struct device flow = make_device(IFACE), port = make_device(IFACE), any = make_device(IFACE);
	int fd = bound_socket(SOCK_DGRAM, "0.0.0.0", PORT, false), peer = peer_socket(SOCK_DGRAM, PEER, PEER_PORT);
	int second = peer_socket(SOCK_DGRAM, PEER, PEER_PORT + 1);
	struct viaduct_filter f = filter_of(IPPROTO_UDP, PORT, fd);
	struct vnic_desc e = {0};

	(void)state;
	f.remote_port = PEER_PORT;
	put_address(f.remote, PEER);
	assert_int_equal(add_filter(&flow, f), 0);
	assert_int_equal(add_filter(&port, filter_of(IPPROTO_UDP, PORT, fd)), 0);
	f = filter_of(IPPROTO_UDP, PORT, fd);
	memset(f.local, 0, sizeof(f.local));
	assert_int_equal(add_filter(&any, f), 0);
	send_to_us(peer, PORT, "1", 1);
	send_to_us(second, PORT, "2", 1);
	assert_true(wait_event(&flow, &e, 1000));
	assert_true(wait_event(&port, &e, 1000));
	end_device(&port);
	send_to_us(second, PORT, "3", 1);
	assert_true(wait_event(&any, &e, 1000));
	assert_false(take_event(&flow, &e));
	end_device(&flow);
	end_device(&any);
	close(fd);
	close(peer);
	close(second);
}

static void a_program_that_gives_nothing_back_loses_frames_and_only_its_own(void **state)
{
	struct world w = make_world();
	uint32_t held[BUFS], n = 0;
	struct vnic_desc e = {0};
	struct viaduct_stats s;

	(void)state;
	for (uint32_t i = 0; i < BUFS + 10; i++)
		send_to_us(w.peer, PORT, &i, sizeof(i));
	while (wait_event(&w.d, &e, 50)) {
		assert_true(n < BUFS);
		held[n++] = e.buf;
	}
	assert_int_equal(n, BUFS);
	s = stats_of(&w.d);
	assert_int_equal(s.rx_frames, BUFS);
	assert_int_equal(s.rx_no_buffer, 10);
	for (uint32_t round = 0; round < 300; round++) { /* several laps of all rings */
		uint32_t i = round % BUFS;

		give_back(&w.d, held[i]);
		send_to_us(w.peer, PORT, &round, sizeof(round));
		assert_true(wait_event(&w.d, &e, 1000));
		assert_int_equal(e.buf, held[i]);
		assert_memory_equal(rx_buf(&w.d, e.buf) + HEADERS, &round, sizeof(round));
	}
	assert_int_equal(stats_of(&w.d).rx_no_buffer, 10);
	end_world(&w);
}

static void what_is_not_out_can_not_be_given_back(void **state)
{
	struct world w = make_world();
	struct vnic_desc e = {0};
	uint32_t first = UINT32_MAX;

	(void)state;
	for (uint32_t i = 0; i < BUFS; i++) {
		send_to_us(w.peer, PORT, "x", 1);
		assert_true(wait_event(&w.d, &e, 1000));
		first = e.buf;
	}
	give_back(&w.d, first);
	give_back(&w.d, first);
	give_back(&w.d, BUFS);
	give_back(&w.d, UINT32_MAX);
	send_to_us(w.peer, PORT, "y", 1);
	assert_true(wait_event(&w.d, &e, 1000));
	assert_int_equal(e.buf, first);
	send_to_us(w.peer, PORT, "z", 1);
	assert_false(wait_event(&w.d, &e, 20));
	assert_int_equal(stats_of(&w.d).bad_return, 3);
	assert_int_equal(stats_of(&w.d).rx_no_buffer, 1);
	end_world(&w);
}

/* --- waking --- */

static void only_who_has_armed_is_woken(void **state)
{
	struct world w = make_world();
	struct viaduct_eventfd efd = {.size = sizeof(efd), .fd = eventfd(0, EFD_NONBLOCK)};
	struct epoll_event in = {.events = EPOLLIN | EPOLLET}, out;
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	struct pollfd p = {.fd = w.d.fd, .events = POLLIN};
	struct vnic_desc e = {0};
	uint64_t count;

	(void)state;
	assert_int_equal(call(w.d.fd, VIADUCT_IOC_EVENTFD, &efd), 0);
	assert_int_equal(epoll_ctl(epfd, EPOLL_CTL_ADD, w.d.fd, &in), 0);
	assert_int_equal(poll(&p, 1, 0), 0);
	send_to_us(w.peer, PORT, "quiet", 5);
	assert_true(wait_event(&w.d, &e, 1000));
	assert_int_equal(epoll_wait(epfd, &out, 1, 20), 0);
	assert_int_equal(stats_of(&w.d).wakeups, 0);
	assert_int_equal(read(efd.fd, &count, sizeof(count)), -1);

	__atomic_store_n(&w.d.ctrl->armed, VNIC_ARMED_THREAD, __ATOMIC_SEQ_CST);
	send_to_us(w.peer, PORT, "loud", 4);
	assert_int_equal(epoll_wait(epfd, &out, 1, 1000), 1);
	assert_int_equal(w.d.ctrl->armed, VNIC_ARMED_NO);
	assert_int_equal(poll(&p, 1, 0), 1); /* until it is taken */
	assert_true(take_event(&w.d, &e));
	assert_int_equal(poll(&p, 1, 0), 0);
	send_to_us(w.peer, PORT, "quiet", 5);
	assert_true(wait_event(&w.d, &e, 1000));
	assert_int_equal(stats_of(&w.d).wakeups, 1);
	assert_int_equal(read(efd.fd, &count, sizeof(count)), sizeof(count));
	assert_int_equal(count, 1);
	close(epfd);
	close(efd.fd);
	end_world(&w);
}

/* --- sending --- */

static void a_frame_sent_arrives_with_its_checksums(void **state)
{
	struct world w = make_world();
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	char got[64];

	(void)state;
	post(&w.d, frame(3, 0, write_udp(&w.d, 3, OURS, PORT, "hello", 5), 0));
	kick(&w.d);
	expect_return(&w.d, 3);
	assert_int_equal(receive(w.peer, got, sizeof(got), 1000), 5);
	post(&w.d, frame(4, 0, write_udp(&w.d, 4, OURS, PORT, "world", 5), 0));
	kick(&w.d);
	assert_int_equal(recvfrom(w.peer, got, sizeof(got), 0, (struct sockaddr *)&from, &len), 5);
	assert_memory_equal(got, "world", 5);
	assert_int_equal(ntohs(from.sin_port), PORT);
	assert_int_equal(stats_of(&w.d).tx_frames, 2);
	end_world(&w);
}

static void the_parts_of_a_frame_are_put_together(void **state)
{
	struct world w = make_world();
	uint16_t len = write_udp(&w.d, 0, OURS, PORT, "abcdefgh", 8);
	char got[64];

	(void)state;
	memcpy(tx_buf(&w.d, 1) + 100, tx_buf(&w.d, 0) + 20, 16);
	memcpy(tx_buf(&w.d, 2) + 2000, tx_buf(&w.d, 0) + 36, len - 36u);
	post(&w.d, frame(0, 0, 20, VNIC_F_MORE));
	post(&w.d, frame(1, 100, 16, VNIC_F_MORE));
	post(&w.d, frame(2, 2000, (uint16_t)(len - 36), 0));
	kick(&w.d);
	for (uint32_t i = 0; i < 3; i++)
		expect_return(&w.d, i);
	assert_int_equal(receive(w.peer, got, sizeof(got), 1000), 8);
	assert_memory_equal(got, "abcdefgh", 8);
	end_world(&w);
}

/* Posts the frame in buffer 0 (its length), and says whether it was sent. */
static bool goes_out(struct world *w, uint16_t len)
{
	uint64_t before = stats_of(&w->d).tx_frames;

	post(&w->d, frame(0, 0, len, 0));
	kick(&w->d);
	expect_return(&w->d, 0);
	return stats_of(&w->d).tx_frames != before;
}

static void nobody_sends_as_somebody_else(void **state)
{
	struct world w = make_world();
	uint8_t *ip = tx_buf(&w.d, 0) + 14;
	uint16_t len;

	(void)state;
	assert_true(goes_out(&w, write_udp(&w.d, 0, OURS, PORT, "me", 2)));
	assert_false(goes_out(&w, write_udp(&w.d, 0, "10.9.0.77", PORT, "spoof", 5)));
	assert_false(goes_out(&w, write_udp(&w.d, 0, PEER, PORT, "spoof", 5)));
	assert_false(goes_out(&w, write_udp(&w.d, 0, OURS, PORT + 1, "spoof", 5)));
	assert_false(goes_out(&w, write_udp(&w.d, 0, "127.0.0.1", PORT, "spoof", 5)));
	len = write_udp(&w.d, 0, OURS, PORT, "................", 16);
	ip[9] = IPPROTO_TCP;
	ip[20 + 12] = 0x50;
	assert_false(goes_out(&w, len)); /* the port is ours for UDP alone */
	assert_int_equal(stats_of(&w.d).tx_refused, 5);
	assert_int_equal(del_filter(&w.d, filter_of(IPPROTO_UDP, PORT, -1)), 0);
	assert_false(goes_out(&w, write_udp(&w.d, 0, OURS, PORT, "late", 4)));
	end_world(&w);
}

static void only_plain_packets_are_sent(void **state)
{
	struct world w = make_world();
	uint8_t *at = tx_buf(&w.d, 0);
	uint16_t len;

	(void)state;
#define REFUSED(offset, value)                                                                                         \
	(len = write_udp(&w.d, 0, OURS, PORT, "0123456789", 10), at[offset] = (value), assert_false(goes_out(&w, len)))
	REFUSED(0, 0xff);  /* to a group */
	REFUSED(12, 0x81); /* a tag, or ARP: not IP */
	REFUSED(13, 0x06); /* ARP */
	REFUSED(14, 0x55); /* version */
	REFUSED(14, 0x44); /* header too short */
	REFUSED(14, 0x46); /* with options */
	REFUSED(17, 20);   /* length */
	REFUSED(17, 39);   /* length */
	REFUSED(16, 0xff); /* length */
	REFUSED(20, 0x20); /* fragment */
	REFUSED(21, 1);    /* fragment */
	REFUSED(23, IPPROTO_ICMP);
	REFUSED(23, IPPROTO_RAW);
	REFUSED(39, 17); /* UDP's length */
	REFUSED(39, 19);
	REFUSED(38, 0xff);
#undef REFUSED
	for (uint32_t cut = 1; cut < HEADERS; cut++)
		assert_false(goes_out(&w, (uint16_t)cut));
	len = write_udp(&w.d, 0, OURS, PORT, at, 1600); /* beyond the MTU */
	assert_false(goes_out(&w, len));
	assert_int_equal(stats_of(&w.d).tx_frames, 0);
	assert_true(goes_out(&w, write_udp(&w.d, 0, OURS, PORT, "good", 4)));
	end_world(&w);
}

static void bad_descriptors_are_counted_and_cost_nobody_else(void **state)
{
	struct world w = make_world();
	uint16_t len = write_udp(&w.d, 0, OURS, PORT, "good", 4);
	struct vnic_desc bad;
	uint32_t n = 0;
	struct vnic_desc e = {0};
	char got[8];

	(void)state;
#define BAD(field, value) (bad = frame(0, 0, len, 0), bad.field = (value), post(&w.d, bad), n++)
	BAD(buf, BUFS);
	BAD(buf, UINT32_MAX);
	BAD(len, 0);
	BAD(len, UINT16_MAX);
	BAD(off, BUF_SIZE);
	BAD(off, UINT16_MAX);
	BAD(type, 0);
	BAD(type, VNIC_DESC_LINK);
	BAD(type, 0xff);
#undef BAD
	post(&w.d, frame(0, 0, len, 0));
	post(&w.d, frame(1, 0, len, VNIC_F_MORE)); /* breaks off */
	kick(&w.d);
	assert_int_equal(stats_of(&w.d).bad_desc, n + 1);
	assert_int_equal(stats_of(&w.d).tx_frames, 1);
	assert_int_equal(receive(w.peer, got, sizeof(got), 1000), 4);
	while (take_event(&w.d, &e))
		assert_int_equal(e.type, VNIC_DESC_RETURN);
	end_world(&w);
}

/* --- TCP, both ways, without a TCP of our own: single segments by hand --- */

static void a_long_segment_goes_as_one_descriptor_and_is_cut_for_the_wire(void **state)
{
	struct device d = make_device(IFACE);
	int backing = bound_socket(SOCK_STREAM, OURS, PORT, false), tap = peer_tap();
	const uint32_t payload = 5000, gso = 1000;
	uint8_t *at = tx_buf(&d, 0);
	struct tcphdr tcp = {.source = htons(PORT), .dest = htons(9), .doff = 5, .ack = 1, .window = htons(1000)};
	struct vnic_desc desc;
	uint32_t seen = 0, left = payload + 54, buf = 0;
	struct viaduct_stats s;
	uint8_t got[8192];
	ssize_t n;

	(void)state;
	/* the tap must see segments, not what will be cut for a real device */
	assert_int_equal(system("ethtool -K " IFACE " tso off gso off >/dev/null 2>&1"), 0);
	assert_int_equal(add_filter(&d, filter_of(IPPROTO_TCP, PORT, backing)), 0);
	write_udp(&d, 0, OURS, PORT, "", 0);
	at[23] = IPPROTO_TCP;
	at[16] = (uint8_t)((payload + 40) >> 8);
	at[17] = (uint8_t)(payload + 40);
	memcpy(at + 34, &tcp, sizeof(tcp));
	for (; left; buf++) {
		uint16_t part = (uint16_t)(left < BUF_SIZE ? left : BUF_SIZE);

		left -= part;
		desc = frame(buf, 0, part, left ? VNIC_F_MORE : 0);
		desc.gso_len = (uint16_t)gso;
		post(&d, desc);
	}
	kick(&d);
	s = stats_of(&d);
	assert_int_equal(s.tx_frames, 1);
	while ((n = receive(tap, got, sizeof(got), 100)) > 0)
		if (n == 54 + (ssize_t)gso && got[23] == IPPROTO_TCP && !memcmp(got + 34, &tcp.source, 2))
			seen += (uint32_t)n - 54;
	assert_int_equal(seen, payload);
	assert_int_equal(system("ethtool -K " IFACE " tso on gso on >/dev/null 2>&1"), 0);
	close(tap);
	close(backing);
	end_device(&d);
}

static void the_kernels_own_connections_on_the_port_stay_its_own(void **state)
{
	struct device d = make_device(IFACE);
	int listener = bound_socket(SOCK_STREAM, OURS, PORT, true), peer = peer_socket(SOCK_STREAM, NULL, 0), conn;
	int second = peer_socket(SOCK_STREAM | SOCK_NONBLOCK, NULL, 0);
	struct sockaddr_in a = address_of(OURS, PORT);
	struct vnic_desc e = {0};
	char got[8];

	(void)state;
	assert_int_equal(listen(listener, 5), 0);
	assert_int_equal(connect(peer, (struct sockaddr *)&a, sizeof(a)), 0);
	conn = accept(listener, NULL, NULL);
	assert_true(conn >= 0);
	assert_int_equal(add_filter(&d, filter_of(IPPROTO_TCP, PORT, listener)), 0);
	assert_int_equal(send(peer, "still", 5, 0), 5);
	assert_int_equal(receive(conn, got, sizeof(got), 1000), 5);
	assert_false(take_event(&d, &e));
	assert_int_equal(connect(second, (struct sockaddr *)&a, sizeof(a)), -1); /* a new one is ours */
	assert_true(wait_event(&d, &e, 1000));
	assert_int_equal(rx_buf(&d, e.buf)[23], IPPROTO_TCP);
	close(conn);
	close(peer);
	close(second);
	close(listener);
	end_device(&d);
}

/* --- the interface's end --- */

static void link_changes_are_events_and_a_removed_interface_is_eio(void **state)
{
	struct pollfd p = {.events = POLLIN};
	struct vnic_desc e = {0};
	struct viaduct_info info = {.size = sizeof(info)};
	struct device d;

	(void)state;
	assert_int_equal(system("ip link add d0 type veth peer name d1 && ip link set d1 up && ip link set d0 up"), 0);
	d = make_device("d0");
	p.fd = d.fd;
	assert_int_equal(call(d.fd, VIADUCT_IOC_INFO, &info), 0);
	assert_true(info.flags & VIADUCT_LINK_UP);
	assert_int_equal(info.mtu, 1500);
	assert_int_equal(system("ip link set d0 down"), 0);
	assert_true(wait_event(&d, &e, 1000));
	assert_int_equal(e.type, VNIC_DESC_LINK);
	assert_int_equal(e.len, 0);
	assert_int_equal(system("ip link set d0 up"), 0);
	assert_true(wait_event(&d, &e, 1000));
	assert_int_equal(e.len, 1);
	assert_int_equal(poll(&p, 1, 0), 0);
	assert_int_equal(system("ip link delete d0"), 0);
	assert_int_equal(poll(&p, 1, 1000), 1);
	assert_true(p.revents & POLLHUP);
	assert_int_equal(call(d.fd, VIADUCT_IOC_KICK, NULL), -EIO);
	assert_int_equal(call(d.fd, VIADUCT_IOC_INFO, &info), -EIO);
	assert_int_equal(add_filter(&d, filter_of(IPPROTO_UDP, PORT, -1)), -EIO);
	end_device(&d);
}

static void an_interface_that_moves_to_another_namespace_is_gone(void **state)
{
	struct device d;

	(void)state;
	assert_int_equal(system("ip link add d0 type veth peer name d1"), 0);
	d = make_device("d0");
	assert_int_equal(system("ip link set d0 netns peer"), 0);
	assert_int_equal(call(d.fd, VIADUCT_IOC_KICK, NULL), -EIO);
	end_device(&d);
	assert_int_equal(system("ip link delete d1"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_frame_for_the_filter_arrives_whole),
	    cmocka_unit_test(what_no_filter_covers_is_the_kernels),
	    cmocka_unit_test(a_flow_comes_before_its_port_and_a_port_before_any),
	    cmocka_unit_test(a_program_that_gives_nothing_back_loses_frames_and_only_its_own),
	    cmocka_unit_test(what_is_not_out_can_not_be_given_back),
	    cmocka_unit_test(only_who_has_armed_is_woken),
	    cmocka_unit_test(a_frame_sent_arrives_with_its_checksums),
	    cmocka_unit_test(the_parts_of_a_frame_are_put_together),
	    cmocka_unit_test(nobody_sends_as_somebody_else),
	    cmocka_unit_test(only_plain_packets_are_sent),
	    cmocka_unit_test(bad_descriptors_are_counted_and_cost_nobody_else),
	    cmocka_unit_test(a_long_segment_goes_as_one_descriptor_and_is_cut_for_the_wire),
	    cmocka_unit_test(the_kernels_own_connections_on_the_port_stay_its_own),
	    cmocka_unit_test(link_changes_are_events_and_a_removed_interface_is_eio),
	    cmocka_unit_test(an_interface_that_moves_to_another_namespace_is_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
