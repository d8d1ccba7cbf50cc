/* SPDX-License-Identifier: BSD-2-Clause */
/* The tool's half of a capture: what it takes from a stack that belongs to somebody else, and the pcapng it writes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "dump/pcapng.h"
#include "dump/source.h"
#include "lib/test_stack.h"

/* A stack in a memfd, as another process's would be found. */
struct found {
	struct view view;
	struct stack *theirs;
	struct capture *c;
	struct source source;
};

static struct found *find(uint32_t capture, int seals)
{
	struct found *f = calloc(1, sizeof(*f));
	struct stack_config cfg = test_config();

	cfg.capture = capture;
	f->view.fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(f->view.fd, (off_t)stack_size(&cfg)), 0);
	assert_int_equal(fcntl(f->view.fd, F_ADD_SEALS, seals), 0);
	f->theirs = mmap(NULL, stack_size(&cfg), PROT_READ | PROT_WRITE, MAP_SHARED, f->view.fd, 0);
	assert_true(f->theirs != MAP_FAILED);
	assert_int_equal(stack_format(f->theirs, stack_size(&cfg), &cfg), 0);
	f->c = stack_capture(f->theirs);
	f->view.s = f->theirs;
	return f;
}

static void lose(struct found *f)
{
	munmap(f->theirs, f->theirs->total_size);
	close(f->view.fd);
	free(f);
}

static int open_it(struct found *f)
{
	uint32_t other;

	return source_open(&f->source, &f->view, 96, &other);
}

/* What the stack would put there, of `size` bytes whatever the record says. */
static void put_sized(struct found *f, const struct capture_record *r, uint32_t size)
{
	uint8_t head[sizeof(*r)];

	memcpy(head, r, sizeof(head));
	for (size_t i = 0; i < size; i++)
		f->c->ring[(f->c->head + i) % CAPTURE_RING] = i < sizeof(head) ? head[i] : (uint8_t)(i - sizeof(head));
	f->c->head += size;
}

static void put(struct found *f, const struct capture_record *r)
{
	put_sized(f, r, r->size);
}

static struct capture_record record_of(uint32_t caplen)
{
	return (struct capture_record){
	    .size = (uint32_t)(sizeof(struct capture_record) + caplen + 7) & ~7u, .caplen = caplen, .len = caplen};
}

static uint8_t frame[CAPTURE_SNAP_MAX];

static void a_capture_sets_its_wishes_and_renews_its_lease(void **state)
{
	struct found *f = find(1, F_SEAL_SHRINK);
	struct timespec now;

	(void)state;
	clock_gettime(CLOCK_MONOTONIC, &now);
	assert_int_equal(open_it(f), 0);
	assert_int_equal(f->c->snap, 96);
	assert_int_equal(f->c->pid, getpid());
	assert_int_equal(f->c->epoch, 1);
	assert_in_range(f->theirs->capture - capture_clock((uint64_t)now.tv_sec * 1000000), 1, CAPTURE_LEASE + 3);
	f->theirs->capture = 0;
	source_renew(&f->source);
	assert_true(f->theirs->capture != 0);
	source_stop(&f->source);
	assert_int_equal(f->theirs->capture, 0);
	source_close(&f->source);
	lose(f);
}

static void frames_come_out_as_they_were_put_in_over_the_rings_end(void **state)
{
	struct found *f = find(1, F_SEAL_SHRINK);
	struct capture_record r;

	(void)state;
	f->c->head = CAPTURE_RING - 40; /* the first record lies across the end */
	assert_int_equal(open_it(f), 0);
	for (uint32_t n = 1; n <= 300; n++) {
		struct capture_record in = record_of(n);

		put(f, &in);
		assert_true(source_next(&f->source, &r, frame));
		assert_int_equal(r.caplen, n);
		for (uint32_t i = 0; i < n; i++)
			assert_int_equal(frame[i], (uint8_t)i);
		assert_int_equal(f->c->tail, f->c->head);
	}
	assert_false(source_next(&f->source, &r, frame));
	assert_int_equal(source_dropped(&f->source), 0);
	source_close(&f->source);
	lose(f);
}

static void records_that_lie_are_left_out_and_counted(void **state)
{
	struct capture_record lies[] = {
	    {.size = 0},
	    {.size = 8},
	    {.size = 44, .caplen = 4, .len = 4},
	    {.size = 64, .caplen = 4096, .len = 4096},
	    {.size = 1u << 20, .caplen = 4, .len = 4},
	    {.size = 64, .caplen = 8, .len = 4},
	    {.size = 64, .caplen = 8, .len = 8, .vnic = 60000},
	    {.size = 0xfffffff8, .caplen = 0xffffff00, .len = 0xffffffff},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct found *f = find(1, F_SEAL_SHRINK);
		struct capture_record r, good = record_of(10);

		assert_int_equal(open_it(f), 0);
		put_sized(f, &lies[i], 128);
		assert_false(source_next(&f->source, &r, frame));
		assert_int_equal(source_dropped(&f->source), 1);
		put(f, &good); /* what comes later is read again */
		assert_true(source_next(&f->source, &r, frame));
		source_close(&f->source);
		lose(f);
	}
}

static void a_head_that_runs_away_is_not_followed(void **state)
{
	struct found *f = find(1, F_SEAL_SHRINK);
	struct capture_record r;

	(void)state;
	assert_int_equal(open_it(f), 0);
	f->c->head = 1ull << 50;
	assert_false(source_next(&f->source, &r, frame));
	assert_int_equal(f->c->tail, 1ull << 50);
	f->c->head = 5; /* and back */
	assert_false(source_next(&f->source, &r, frame));
	assert_true(source_dropped(&f->source) >= 2);
	source_close(&f->source);
	lose(f);
}

static void memory_that_can_shrink_is_not_mapped(void **state)
{
	struct found *f = find(1, 0);

	(void)state;
	assert_int_equal(open_it(f), -EPROTO);
	lose(f);
}

static void a_stack_without_room_for_captures_is_refused(void **state)
{
	struct found *f = find(0, F_SEAL_SHRINK);

	(void)state;
	assert_int_equal(open_it(f), -ENOTSUP);
	lose(f);
}

static void a_living_tool_is_not_disturbed_and_a_dead_one_is_replaced(void **state)
{
	struct found *f = find(1, F_SEAL_SHRINK);

	(void)state;
	assert_int_equal(open_it(f), 0);
	source_close(&f->source);
	f->c->pid = (uint32_t)getppid();
	assert_int_equal(open_it(f), -EBUSY);
	f->c->pid = 0x3fffffff;
	assert_int_equal(open_it(f), 0);
	source_close(&f->source);
	lose(f);
}

static void blocks_of_pcapng_have_the_lengths_that_they_say(void **state)
{
	char *bytes = NULL, text[3000];
	size_t len = 0, at = 0;
	uint32_t types[8], n = 0;
	FILE *out = open_memstream(&bytes, &len);

	(void)state;
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = 0;
	assert_true(pcapng_section(out, "m", "os", text, "a comment")); /* what does not fit is left out */
	assert_true(pcapng_interface(out, 100, "name", "comment"));
	for (uint32_t caplen = 0; caplen < 4; caplen++)
		assert_true(pcapng_packet(out, 0, 1, (const uint8_t *)"abcd", caplen, 9, caplen & 1,
					  caplen & 2 ? "of whom" : NULL));
	assert_true(pcapng_statistics(out, 0, 2, 3, 4));
	fclose(out);
	while (at < len) {
		uint32_t head[2], tail;

		memcpy(head, bytes + at, 8);
		assert_true(head[1] % 4 == 0 && head[1] >= 12 && at + head[1] <= len);
		memcpy(&tail, bytes + at + head[1] - 4, 4);
		assert_int_equal(tail, head[1]);
		types[n++] = head[0];
		at += head[1];
	}
	assert_int_equal(n, 7);
	assert_int_equal(types[0], 0x0a0d0d0a);
	assert_int_equal(types[1], 1);
	assert_int_equal(types[2], 6);
	assert_int_equal(types[6], 5);
	free(bytes);
}

static void a_full_disk_is_noticed(void **state)
{
	FILE *out = fopen("/dev/full", "w");

	(void)state;
	setvbuf(out, NULL, _IONBF, 0);
	assert_false(pcapng_section(out, "m", "os", "p", NULL));
	fclose(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_capture_sets_its_wishes_and_renews_its_lease),
	    cmocka_unit_test(frames_come_out_as_they_were_put_in_over_the_rings_end),
	    cmocka_unit_test(records_that_lie_are_left_out_and_counted),
	    cmocka_unit_test(a_head_that_runs_away_is_not_followed),
	    cmocka_unit_test(memory_that_can_shrink_is_not_mapped),
	    cmocka_unit_test(a_stack_without_room_for_captures_is_refused),
	    cmocka_unit_test(a_living_tool_is_not_disturbed_and_a_dead_one_is_replaced),
	    cmocka_unit_test(blocks_of_pcapng_have_the_lengths_that_they_say),
	    cmocka_unit_test(a_full_disk_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
