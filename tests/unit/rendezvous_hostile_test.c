/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rendezvous with peers that mean no good: whatever either side sends, or leaves out, the other refuses it in bounded
 * time, keeps no descriptor, and does not fail for want of any.
 */
#define _GNU_SOURCE
#include "rdv_peers.h"

/* --- hostile connecting sides: what they send, rdv_accept refuses and keeps nothing --- */

static int plain_eventfd(void)
{
	return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static int plain_memfd(size_t size, unsigned seals)
{
	int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	if (seals)
		assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

/* Sends h with these descriptors (all closed then) to a listener of this process; what does rdv_accept say? */
static int accept_after(const struct hello *h, size_t len, int *fds, int count)
{
	static uint16_t port = 1;
	struct endpoint ep = at4("127.0.0.1", port++);
	struct rdv_wire w;
	int before = open_fds() - count;
	int listen_fd = rdv_listen(SOCK_TCP, 4, &ep, false);
	int fd = plain_connect(&ep);
	assert_true(listen_fd >= 0 && fd >= 0);
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(16 * sizeof(int))] = {0};
	struct iovec iov = {(void *)h, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	if (count) {
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, (size_t)count * sizeof(int));
	}
	if (len)
		assert_int_equal(sendmsg(fd, &msg, 0), len);
	for (int i = 0; i < count; i++)
		close(fds[i]);
	int rc = rdv_accept(listen_fd, &me, SHORT_MS, &w);
	if (rc == 0)
		wire_close(&w);
	close(fd);
	host_fd_close(listen_fd);
	assert_int_equal(open_fds(), before);
	return rc;
}

static struct hello good_hello(void)
{
	static const uint8_t nonce[16] = "0123456789abcde";
	struct hello h;
	hello_fill(&h, HELLO_MAKE, nonce, me.stack);
	return h;
}

static void a_good_hello_is_accepted(void **state)
{
	(void)state;
	struct hello h = good_hello();
	int fds[3] = {wire_memfd_make(), plain_eventfd(), plain_eventfd()};
	assert_int_equal(accept_after(&h, sizeof(h), fds, 3), 0);
}

static void a_silent_client_is_given_up(void **state)
{
	(void)state;
	struct hello h = good_hello();
	assert_int_equal(accept_after(&h, 0, NULL, 0), -EPROTO);
}

static void bad_hellos_are_refused(void **state)
{
	(void)state;
	for (size_t at = 0; at < offsetof(struct hello, nonce); at++) {
		struct hello h = good_hello();
		int fds[3] = {wire_memfd_make(), plain_eventfd(), plain_eventfd()};
		((uint8_t *)&h)[at] ^= 0x81;
		assert_int_equal(accept_after(&h, sizeof(h), fds, 3), -EPROTO);
	}
	struct {
		struct hello h;
		uint8_t more[8];
	} longer = {good_hello(), {0}};
	for (size_t len = 1; len <= sizeof(longer); len++) {
		int fds[3] = {wire_memfd_make(), plain_eventfd(), plain_eventfd()};
		assert_int_equal(accept_after(&longer.h, len, fds, 3), len == sizeof(struct hello) ? 0 : -EPROTO);
	}
}

static void a_wrong_number_of_descriptors_is_refused(void **state)
{
	(void)state;
	struct hello h = good_hello();
	for (int count = 0; count <= 16; count++) {
		int fds[16];
		fds[0] = wire_memfd_make();
		for (int i = 1; i < 16; i++)
			fds[i] = plain_eventfd();
		for (int i = count; i < 16; i++)
			close(fds[i]);
		int rc = accept_after(&h, sizeof(h), fds, count);
		if (count == 1 || count == 3) /* with doorbells or without */
			assert_int_equal(rc, 0);
		else
			assert_true(rc == -EPROTO || rc == -EMFILE);
	}
}

static void wires_that_could_fault_are_refused(void **state)
{
	(void)state;
	const unsigned good = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	struct hello h = good_hello();
	int bad[] = {plain_memfd(wire_size(), 0),
		     plain_memfd(wire_size(), F_SEAL_GROW | F_SEAL_SEAL),
		     plain_memfd(wire_size(), F_SEAL_SHRINK | F_SEAL_GROW),
		     plain_memfd(wire_size(), good | F_SEAL_WRITE),
		     plain_memfd(wire_size() - 4096, good),
		     plain_memfd(wire_size() + 4096, good),
		     plain_memfd(0, good),
		     open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600),
		     plain_eventfd()};
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int fds[3] = {bad[i], plain_eventfd(), plain_eventfd()};
		assert_true(bad[i] >= 0);
		assert_int_equal(accept_after(&h, sizeof(h), fds, 3), -EPROTO);
	}
}

static void doorbells_that_are_something_else_are_refused(void **state)
{
	(void)state;
	struct hello h = good_hello();
	for (int where = 1; where <= 2; where++) {
		int pipe_fds[2];
		assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
		close(pipe_fds[0]);
		int bad[] = {open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600), pipe_fds[1],
			     epoll_create1(EPOLL_CLOEXEC), plain_memfd(4096, 0),
			     socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
		for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			int fds[3] = {wire_memfd_make(), plain_eventfd(), plain_eventfd()};
			assert_true(bad[i] >= 0);
			close(fds[where]);
			fds[where] = bad[i];
			assert_int_equal(accept_after(&h, sizeof(h), fds, 3), -EPROTO);
		}
	}
}

/* Fill the table up to `room` free numbers; returns how many descriptors fill[] holds. */
static int fill_table(int *fill, int room)
{
	int n = 0;
	while ((fill[n] = dup(0)) >= 0)
		n++;
	while (room-- > 0)
		close(fill[--n]);
	return n;
}

static void a_full_descriptor_table_loses_nothing(void **state)
{
	(void)state;
	static int fill[1024];
	struct rlimit lim, tight;
	struct endpoint ep = at4("127.0.0.1", 1);
	int listen_fd = rdv_listen(SOCK_TCP, 4, &ep, false);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &lim), 0);
	tight = lim;
	tight.rlim_cur = 1024;
	/* From no room at all to almost enough: 4 descriptors are needed. */
	for (int room = 0; room < 4; room++) {
		struct hello h = good_hello();
		int fds[3] = {wire_memfd_make(), plain_eventfd(), plain_eventfd()};
		int fd = plain_connect(&ep);
		struct rdv_wire w;
		assert_int_equal(hello_send(fd, &h, fds, 3), 0);
		for (int i = 0; i < 3; i++)
			close(fds[i]);
		int before = open_fds();
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
		int n = fill_table(fill, room);
		int rc = rdv_accept(listen_fd, &me, SHORT_MS, &w);
		while (n--)
			close(fill[n]);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &lim), 0);
		assert_true(rc == -EMFILE || rc == -EPROTO);
		assert_int_equal(open_fds(), before);
		/* It was dealt with, not left in the queue, and its maker knows. */
		assert_int_equal(rdv_accept(listen_fd, &me, SHORT_MS, &w), -EAGAIN);
		assert_int_equal(hello_receive(fd, &h, fds, 0, handshake_now_ms() + SHORT_MS, NULL), 0);
		assert_true(h.kind == HELLO_REFUSE && h.status < 0);
		close(fd);
	}
	host_fd_close(listen_fd);
}

/* --- hostile accepting sides --- */

static int answer_kind;

static void answer_badly(int fd, struct hello *h)
{
	int give[3] = {plain_eventfd(), plain_eventfd(), plain_eventfd()};
	switch (answer_kind) {
	case 0: /* a file as doorbell */
		give[1] = open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
		hello_send(fd, h, give, 2);
		break;
	case 1: /* another nonce */
		h->nonce[3] ^= 1;
		hello_send(fd, h, give, 2);
		break;
	case 2: /* one doorbell */
		hello_send(fd, h, give, 1);
		break;
	case 3:
		hello_send(fd, h, give, 3);
		break;
	case 4: /* another version */
		h->version++;
		hello_send(fd, h, give, 2);
		break;
	case 5: /* a refusal */
		h->status = -EPROTO;
		hello_send(fd, h, NULL, 0);
		break;
	case 6: /* not who it was */
		h->stack[0] ^= 1;
		hello_send(fd, h, give, 2);
		break;
	case 7: /* an answer to something else */
		h->kind = HELLO_NEW;
		hello_send(fd, h, give, 2);
		break;
	default: /* something short */
		if (write(fd, "x", 1) != 1)
			_exit(7);
	}
}

static void serve_badly(int listen_fd)
{
	static const uint8_t stack[16] = "stack of server";
	struct pollfd p = {.fd = listen_fd, .events = POLLIN};
	poll(&p, 1, TIMEOUT_MS);
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	struct hello h;
	int got[3];
	hello_receive(fd, &h, got, 3, handshake_now_ms() + TIMEOUT_MS, NULL);
	assert_int_equal(h.kind, HELLO_ASK);
	if (answer_kind < 9) {
		hello_fill(&h, HELLO_NEW, h.nonce, stack);
		hello_send(fd, &h, NULL, 0);
		hello_receive(fd, &h, got, 3, handshake_now_ms() + TIMEOUT_MS, NULL);
	}
	hello_fill(&h, HELLO_MADE, h.nonce, stack);
	answer_badly(fd, &h);
}

static void bad_answers_are_refused(void **state)
{
	(void)state;
	for (answer_kind = 0; answer_kind < 10; answer_kind++) {
		struct server s = start((struct plan){SOCK_TCP, 4, at4("127.0.0.1", 0), .serve = serve_badly});
		int before = open_fds();
		struct rdv_wire w;
		bool squatted;
		assert_int_equal(try_connect(&s, 4, s.ep, TIMEOUT_MS, &w, &squatted), -EPROTO);
		assert_int_equal(open_fds(), before);
		stop(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_good_hello_is_accepted),
	    cmocka_unit_test(a_silent_client_is_given_up),
	    cmocka_unit_test(bad_hellos_are_refused),
	    cmocka_unit_test(a_wrong_number_of_descriptors_is_refused),
	    cmocka_unit_test(wires_that_could_fault_are_refused),
	    cmocka_unit_test(doorbells_that_are_something_else_are_refused),
	    cmocka_unit_test(a_full_descriptor_table_loses_nothing),
	    cmocka_unit_test(bad_answers_are_refused),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
