/* SPDX-License-Identifier: BSD-2-Clause */
/* The Internet checksum against its definition, and SipHash against its published vector. */
#include "engine_pair.h"

/* RFC 1071 by the book: 16-bit words in network order, one's complement sum. */
static uint16_t by_the_book(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static uint16_t ours(uint32_t sum)
{
	uint16_t folded = (uint16_t)~csum_fold(sum);

	return __builtin_bswap16(folded);
}

static void the_rfcs_example_comes_out(void **state)
{
	const uint8_t data[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};

	(void)state;
	assert_int_equal(ours(csum_add(data, sizeof(data), 0)), 0xddf2);
}

static void any_length_and_alignment_gives_the_books_sum(void **state)
{
	uint64_t seed = test_seed();
	uint8_t data[600];

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)random_below(&seed, 256);
	memset(data + 100, 0xff, 80);
	for (int i = 0; i < 4000; i++) {
		uint32_t from = random_below(&seed, 300), len = random_below(&seed, 300);

		assert_int_equal(ours(csum_add(data + from, len, 0)), by_the_book(data + from, len));
	}
}

static void a_sum_may_be_taken_in_even_pieces(void **state)
{
	uint64_t seed = test_seed();
	uint8_t data[512];

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)random_below(&seed, 256);
	for (int i = 0; i < 2000; i++) {
		uint32_t len = random_below(&seed, 512), cut = random_below(&seed, len / 2 + 1) * 2;
		uint32_t sum = csum_add(data + cut, len - cut, csum_add(data, cut, 0));

		assert_int_equal(ours(sum), by_the_book(data, len));
	}
}

static void large_data_loses_no_carry(void **state)
{
	size_t len = 1 << 20;
	uint8_t *data = malloc(len);

	(void)state;
	memset(data, 0xff, len);
	assert_int_equal(csum_fold(csum_add(data, len, 0xffffffff)), 0);
	free(data);
}

static void a_known_udp_packet_verifies(void **state)
{
	uint8_t f[128];
	uint32_t len = make_udp4(f, "hello", 5);
	const uint8_t *udp = f + ETH_HEADER + IPV4_HEADER;
	struct endpoint a = v4(1, 0), b = v4(2, 0);
	uint8_t pseudo[12] = {10, 0, 0, 1, 10, 0, 0, 2, 0, PROTO_UDP, 0, 13};
	uint32_t book = by_the_book(pseudo, 12) + by_the_book(udp, 13);

	(void)state;
	assert_int_equal(len, 47);
	assert_int_equal((book & 0xffff) + (book >> 16), 0xffff);
	assert_int_equal(csum_fold(csum_add(udp, 13, csum_pseudo(4, a.addr, b.addr, PROTO_UDP, 13))), 0);
}

/* From the paper's appendix and reference implementation: key 00..0f, data 00..len-1. */
static void siphash_matches_its_vectors(void **state)
{
	uint8_t key[16], data[64];

	(void)state;
	for (uint8_t i = 0; i < 16; i++)
		key[i] = i;
	for (uint8_t i = 0; i < 64; i++)
		data[i] = i;
	assert_true(keyed_hash(key, data, 15) == 0xa129ca6149be45e5ull);
	assert_true(keyed_hash(key, data, 0) == 0x726fdb47dd0e0e31ull);
	assert_true(keyed_hash(key, data, 8) == 0x93f5f5799a932462ull);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_rfcs_example_comes_out),
	    cmocka_unit_test(any_length_and_alignment_gives_the_books_sum),
	    cmocka_unit_test(a_sum_may_be_taken_in_even_pieces),
	    cmocka_unit_test(large_data_loses_no_carry),
	    cmocka_unit_test(a_known_udp_packet_verifies),
	    cmocka_unit_test(siphash_matches_its_vectors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
