/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages to viaductd: what is one, and whose descriptors are closed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/protocol.h"
#include "daemon/tenant.h"

static struct request q;

static int parse(uint32_t size, size_t len)
{
	static char packet[DAEMON_MESSAGE_MAX + 100];
	struct daemon_head head = {DAEMON_OPEN, DAEMON_PROTOCOL, size, 7, 0};

	memset(packet, 0x11, sizeof(packet));
	memcpy(packet, &head, sizeof(head));
	return request_parse(packet, len, &q);
}

static void a_packet_is_as_long_as_it_says(void **state)
{
	(void)state;
	assert_int_equal(parse(24, 24), 0);
	assert_int_equal(q.head.seq, 7);
	assert_int_equal(q.body.open.ifindex, 0x11111111);
	assert_int_equal(parse(24, 23), -EPROTO);
	assert_int_equal(parse(23, 24), -EPROTO);
	assert_int_equal(parse(8, 8), -EPROTO);
	assert_int_equal(parse(DAEMON_MESSAGE_MAX, DAEMON_MESSAGE_MAX), 0);
	assert_int_equal(parse(DAEMON_MESSAGE_MAX + 1, DAEMON_MESSAGE_MAX + 1), -EPROTO);
}

static void a_short_body_is_followed_by_zeros(void **state)
{
	(void)state;
	assert_int_equal(parse(24, 24), 0);
	assert_int_equal(parse(18, 18), 0);
	assert_int_equal(q.body.open.ifindex, 0x1111);
	assert_int_equal(parse(16, 16), 0);
	assert_int_equal(q.body.open.ifindex, 0);
}

static void another_protocol_is_refused(void **state)
{
	struct daemon_head head = {DAEMON_OPEN, DAEMON_PROTOCOL + 1, sizeof(head), 7, 0};

	(void)state;
	assert_int_equal(request_parse(&head, sizeof(head), &q), -EPROTO);
	head.protocol = DAEMON_PROTOCOL;
	assert_int_equal(request_parse(&head, sizeof(head), &q), 0);
	head.status = -1;
	assert_int_equal(request_parse(&head, sizeof(head), &q), -EPROTO);
}

static void send_with(int sock, int count)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE((DAEMON_FDS_MAX + 1) * sizeof(int))] = {0};
	struct daemon_head head = {DAEMON_STATUS, DAEMON_PROTOCOL, sizeof(head), 7, 0};
	struct iovec iov = {&head, sizeof(head)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};
	struct cmsghdr *c = (struct cmsghdr *)(void *)control;
	int fds[DAEMON_FDS_MAX + 1];

	msg.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
	for (int i = 0; i < count; i++)
		fds[i] = memfd_create("passed", MFD_CLOEXEC);
	*c = (struct cmsghdr){CMSG_LEN((size_t)count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(c), fds, (size_t)count * sizeof(int));
	assert_int_equal(sendmsg(sock, &msg, 0), sizeof(head));
	for (int i = 0; i < count; i++)
		close(fds[i]);
}

static int lowest_free(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

static void descriptors_are_taken_or_closed(void **state)
{
	int pair[2], before, mine;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	before = lowest_free();
	send_with(pair[0], 3);
	assert_int_equal(request_receive(pair[1], 0, &q), 0);
	assert_int_equal(q.fds, 3);
	mine = request_take(&q, 1);
	assert_true(mine >= 0);
	assert_int_equal(request_take(&q, 1), -1);
	assert_int_equal(request_take(&q, 3), -1);
	request_done(&q);
	close(mine);
	assert_int_equal(lowest_free(), before);
	/* more than there may be */
	send_with(pair[0], DAEMON_FDS_MAX + 1);
	assert_int_equal(request_receive(pair[1], 0, &q), -EPROTO);
	assert_int_equal(lowest_free(), before);
	assert_int_equal(request_receive(pair[1], 0, &q), -EAGAIN);
	close(pair[0]);
	assert_int_equal(request_receive(pair[1], 0, &q), -ECONNRESET);
	close(pair[1]);
}

static void a_filter_is_a_port_or_a_whole_flow(void **state)
{
	static const uint8_t v4[16] = {[10] = 0xff, [11] = 0xff, 10, 0, 0, 1}, v6[16] = {0xfd, [15] = 1};
	struct daemon_filter f = {.proto = 6, .local_port = 80};
	struct steer_key key[2];

	(void)state;
	assert_int_equal(tenant_keys(&f, key), 0); /* any address, of which family? */
	f.family = 4;
	assert_int_equal(tenant_keys(&f, key), 1);
	f.family = 6;
	f.flags = DAEMON_FILTER_BOTH;
	assert_int_equal(tenant_keys(&f, key), 2);
	assert_int_equal(key[0].family, 6);
	assert_int_equal(key[1].family, 4);
	f.remote_port = 1; /* a flow has both addresses, of one family */
	memcpy(f.remote, v4, 16);
	assert_int_equal(tenant_keys(&f, key), 0);
	memcpy(f.local, v6, 16);
	assert_int_equal(tenant_keys(&f, key), 0);
	memcpy(f.local, v4, 16);
	assert_int_equal(tenant_keys(&f, key), 1);
	memset(f.remote, 0, 16);
	assert_int_equal(tenant_keys(&f, key), 0);
	f.remote_port = 0;
	f.local_port = 0;
	assert_int_equal(tenant_keys(&f, key), 0);
	f.local_port = 80;
	f.proto = 1;
	assert_int_equal(tenant_keys(&f, key), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_packet_is_as_long_as_it_says),     cmocka_unit_test(a_short_body_is_followed_by_zeros),
	    cmocka_unit_test(another_protocol_is_refused),        cmocka_unit_test(descriptors_are_taken_or_closed),
	    cmocka_unit_test(a_filter_is_a_port_or_a_whole_flow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
