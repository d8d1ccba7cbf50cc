/* SPDX-License-Identifier: BSD-2-Clause */
/* Asking viaductd: what its answers do to us, and answers that no viaductd gives. The other end of a socket pair plays
 * it: answers that can be foreseen are put there before the request is sent. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cmocka.h>

#include "host/handshake.h"
#include "host/viaductd.h"

static int ours, theirs;
static uint32_t seq; /* of the next request: the client counts from 1 */
static struct viaductd_reply reply;

static int connect_pair(void **state)
{
	int pair[2];

	(void)state;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) < 0)
		return -1;
	ours = pair[0];
	theirs = pair[1];
	return 0;
}

static int close_pair(void **state)
{
	(void)state;
	close(ours);
	close(theirs);
	return 0;
}

/* An answer to the next request, with descriptors. */
static void answer(const struct daemon_head *head, const void *body, size_t len, const int *fds, size_t n)
{
	struct iovec iov[2] = {{(void *)(uintptr_t)head, sizeof(*head)}, {(void *)(uintptr_t)body, len}};
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int) * DAEMON_FDS_MAX * 2)];
	} control = {0};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = len ? 2 : 1};

	if (n) {
		struct cmsghdr *h = (struct cmsghdr *)(void *)control.room;

		m.msg_control = control.room;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int) * n);
		memcpy(CMSG_DATA(h), fds, sizeof(int) * n);
	}
	assert_true(sendmsg(theirs, &m, 0) > 0);
}

static struct daemon_head head_of(enum daemon_type type, int status)
{
	return (struct daemon_head){.type = (uint16_t)type,
				    .protocol = DAEMON_PROTOCOL,
				    .size = sizeof(struct daemon_head),
				    .seq = seq + 1,
				    .status = status};
}

static int ask(enum daemon_type type, const int *fds, uint32_t n, int timeout_ms)
{
	struct daemon_open body = {.ifindex = 7};

	seq++;
	return viaductd_ask(
	    ours,
	    &(struct viaductd_request){.type = type, .body = &body, .len = sizeof(body), .fds = fds, .fd_count = n},
	    timeout_ms, &reply);
}

static int open_descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void a_request_says_what_it_is_and_brings_its_descriptors(void **state)
{
	struct daemon_head head = head_of(DAEMON_OPEN, 0), got;
	char control[CMSG_SPACE(sizeof(int) * 2)];
	struct daemon_open body;
	struct iovec iov[2] = {{&got, sizeof(got)}, {&body, sizeof(body)}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof(control)};
	int fds[2];

	(void)state;
	answer(&head, NULL, 0, NULL, 0);
	assert_int_equal(ask(DAEMON_OPEN, (int[]){0, 1}, 2, 1000), 0);
	assert_int_equal(recvmsg(theirs, &m, 0), sizeof(got) + sizeof(body));
	assert_int_equal(got.type, DAEMON_OPEN);
	assert_int_equal(got.protocol, DAEMON_PROTOCOL);
	assert_int_equal(got.size, sizeof(got) + sizeof(body));
	assert_int_equal(got.seq, seq);
	assert_int_equal(body.ifindex, 7);
	assert_int_equal(CMSG_FIRSTHDR(&m)->cmsg_len, CMSG_LEN(sizeof(fds)));
	memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fds));
	close(fds[0]);
	close(fds[1]);
}

static void a_short_answer_is_followed_by_zeros(void **state)
{
	struct daemon_head head = head_of(DAEMON_OPEN, 0);
	static const uint8_t zeros[64];

	(void)state;
	answer(&head, "\1\2\3\4", 4, NULL, 0);
	assert_int_equal(ask(DAEMON_OPEN, NULL, 0, 1000), 0);
	assert_int_equal(reply.len, 4);
	assert_memory_equal(reply.body, "\1\2\3\4", 4);
	assert_memory_equal(reply.body + 4, zeros, sizeof(zeros));
}

static void descriptors_of_an_answer_are_the_callers(void **state)
{
	struct daemon_head head = head_of(DAEMON_OPEN, 0);
	int before = open_descriptors();

	(void)state;
	answer(&head, NULL, 0, (int[]){0, 0, 0}, 3);
	assert_int_equal(ask(DAEMON_OPEN, NULL, 0, 1000), 0);
	assert_int_equal(reply.fd_count, 3);
	assert_int_equal(fcntl(reply.fds[2], F_GETFD), FD_CLOEXEC);
	assert_int_equal(open_descriptors(), before + 3);
	viaductd_reply_drop(&reply);
	assert_int_equal(open_descriptors(), before);
}

static void a_refusal_has_its_reason_and_leaves_nothing_open(void **state)
{
	struct daemon_head head = head_of(DAEMON_OPEN, -EPERM);
	struct daemon_error why = {"not you"};
	int before = open_descriptors();

	(void)state;
	answer(&head, &why, sizeof(why), (int[]){0}, 1);
	assert_int_equal(ask(DAEMON_OPEN, NULL, 0, 1000), -EPERM);
	assert_true(reply.refused);
	assert_string_equal(reply.error, "not you");
	assert_int_equal(open_descriptors(), before);
}

static void a_reason_without_an_end_is_cut(void **state)
{
	struct daemon_head head = head_of(DAEMON_OPEN, -EPERM);
	char why[512];

	(void)state;
	memset(why, 'x', sizeof(why));
	answer(&head, why, sizeof(why), NULL, 0);
	assert_int_equal(ask(DAEMON_OPEN, NULL, 0, 1000), -EPERM);
	assert_int_equal(strlen(reply.error), sizeof(reply.error) - 1);
}

static void silence_ends_in_time(void **state)
{
	int64_t began = handshake_now_ms();

	(void)state;
	assert_int_equal(ask(DAEMON_OPEN, NULL, 0, 50), -ETIMEDOUT);
	assert_false(reply.refused);
	assert_true(handshake_now_ms() - began >= 50);
	assert_true(handshake_now_ms() - began < 2000);
}

static void a_daemon_that_reads_nothing_holds_nobody_up(void **state)
{
	int small = 1, ret = 0;

	(void)state;
	setsockopt(ours, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	for (int i = 0; i < 1000 && ret != -ETIMEDOUT; i++)
		ret = ask(DAEMON_OPEN, NULL, 0, 1);
	assert_int_equal(ret, -ETIMEDOUT);
}

static void a_hang_up_is_told(void **state)
{
	(void)state;
	shutdown(theirs, SHUT_RDWR);
	assert_true(ask(DAEMON_OPEN, NULL, 0, 1000) < 0);
	assert_false(reply.refused);
}

/* Whatever is wrong with an answer: -EPROTO, and its descriptors are closed. */
static void expect_nonsense(const struct daemon_head *head, size_t len, size_t fds)
{
	static const char body[DAEMON_MESSAGE_MAX + 64];
	int zero[DAEMON_FDS_MAX * 2] = {0}, before = open_descriptors();

	answer(head, body, len, zero, fds);
	assert_int_equal(ask(DAEMON_OPEN, NULL, 0, 1000), -EPROTO);
	assert_false(reply.refused);
	assert_int_equal(open_descriptors(), before);
}

static void the_answer_to_another_request_is_none(void **state)
{
	struct daemon_head head = head_of(DAEMON_OPEN, 0);

	(void)state;
	head.seq--;
	expect_nonsense(&head, 0, 2);
	head = head_of(DAEMON_STATUS, 0);
	expect_nonsense(&head, 0, 2);
}

static void another_protocol_is_none(void **state)
{
	struct daemon_head head = head_of(DAEMON_OPEN, 0);

	(void)state;
	head.protocol++;
	expect_nonsense(&head, 0, 1);
}

static void a_status_above_zero_is_none(void **state)
{
	struct daemon_head head = head_of(DAEMON_OPEN, 5);

	(void)state;
	expect_nonsense(&head, 0, 1);
}

static void too_long_an_answer_is_none(void **state)
{
	struct daemon_head head = head_of(DAEMON_OPEN, 0);

	(void)state;
	expect_nonsense(&head, DAEMON_MESSAGE_MAX + 1, 1);
}

static void too_many_descriptors_are_none(void **state)
{
	struct daemon_head head = head_of(DAEMON_OPEN, 0);

	(void)state;
	expect_nonsense(&head, 0, DAEMON_FDS_MAX + 3);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, connect_pair, close_pair)
	const struct CMUnitTest tests[] = {
	    CASE(a_request_says_what_it_is_and_brings_its_descriptors),
	    CASE(a_short_answer_is_followed_by_zeros),
	    CASE(descriptors_of_an_answer_are_the_callers),
	    CASE(a_refusal_has_its_reason_and_leaves_nothing_open),
	    CASE(a_reason_without_an_end_is_cut),
	    CASE(silence_ends_in_time),
	    CASE(a_daemon_that_reads_nothing_holds_nobody_up),
	    CASE(a_hang_up_is_told),
	    CASE(the_answer_to_another_request_is_none),
	    CASE(another_protocol_is_none),
	    CASE(a_status_above_zero_is_none),
	    CASE(too_long_an_answer_is_none),
	    CASE(too_many_descriptors_are_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
