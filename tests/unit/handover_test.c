/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a message says of the descriptors that travel in it (socket/handover.c) is another process's word: whatever it
 * says, each descriptor goes to one place at most, none stays open unnoticed, and nothing outside is read.
 */
#include <fcntl.h>
#include <unistd.h>

#include "lib/test_vsock.h"
#include "socket/handover.h"

#define FDS 6u

/* As a giver writes it. */
static struct handover *new_message(void)
{
	int memfd = -1;
	struct handover *h = handover_new(HEIR_FAR, &memfd);

	assert_non_null(h);
	close(memfd);
	h->stacks = 1;
	h->stack[0] = (struct handover_stack){.memfd = 0, .doorbell = {1, 2}, .alive_fd = 3};
	h->socks = 1;
	h->sock[0] = (struct handover_sock){.rdv_fd = 4, .port_fd = 5};
	h->places = FDS;
	return h;
}

static void open_some(int fds[FDS])
{
	for (uint32_t i = 0; i < FDS; i++) {
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		assert_true(fds[i] >= 0);
	}
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* place() refuses it, and all are closed. */
static void expect_refused(struct handover *h)
{
	int fds[FDS], had[FDS];

	open_some(fds);
	memcpy(had, fds, sizeof(had));
	assert_false(handover_place(h, fds, FDS));
	for (uint32_t i = 0; i < FDS; i++)
		assert_false(is_open(had[i]));
	handover_free(h, -1);
}

static void descriptors_go_where_the_message_says(void **state)
{
	struct handover *h = new_message();
	int fds[FDS], had[FDS];

	(void)state;
	open_some(fds);
	memcpy(had, fds, sizeof(had));
	assert_true(handover_place(h, fds, FDS));
	assert_int_equal(h->stack[0].memfd, had[0]);
	assert_int_equal(h->stack[0].doorbell[1], had[2]);
	assert_int_equal(h->sock[0].port_fd, had[5]);
	for (uint32_t i = 0; i < FDS; i++) {
		assert_true(is_open(had[i]));
		close(had[i]);
	}
	handover_free(h, -1);
}

static void one_that_is_named_twice_goes_once_and_one_that_is_not_named_is_closed(void **state)
{
	struct handover *h = new_message();
	int fds[FDS], had[FDS];

	(void)state;
	h->sock[0].rdv_fd = 5;
	h->stack[0].doorbell[0] = 1000;
	open_some(fds);
	memcpy(had, fds, sizeof(had));
	assert_true(handover_place(h, fds, FDS));
	assert_int_equal(h->sock[0].rdv_fd, had[5]);
	assert_int_equal(h->sock[0].port_fd, -1);
	assert_int_equal(h->stack[0].doorbell[0], -1);
	assert_false(is_open(had[4]));
	assert_false(is_open(had[1]));
	for (uint32_t i = 0; i < FDS; i++)
		if (is_open(had[i]))
			close(had[i]);
	handover_free(h, -1);
}

static void numbers_that_lead_outside_are_refused(void **state)
{
	struct handover *h;

	(void)state;
	h = new_message();
	h->stacks = VS_STACKS_MAX + 1;
	expect_refused(h);
	h = new_message();
	h->wires = 0xffffffffu;
	expect_refused(h);
	h = new_message();
	h->socks = HANDOVER_SOCKS + 1;
	expect_refused(h);
	h = new_message();
	h->sock[0].stack = 1;
	expect_refused(h);
	h = new_message();
	h->stack[0].slot = 0x80000000u;
	expect_refused(h);
	h = new_message();
	h->magic++;
	expect_refused(h);
	h = new_message();
	h->places = FDS - 1;
	expect_refused(h);
	h = new_message();
	h->places = 0x7fffffffu;
	expect_refused(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(descriptors_go_where_the_message_says),
	    cmocka_unit_test(one_that_is_named_twice_goes_once_and_one_that_is_not_named_is_closed),
	    cmocka_unit_test(numbers_that_lead_outside_are_refused),
	};

	return test_vsock_main(tests);
}
