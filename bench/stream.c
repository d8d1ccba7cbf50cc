/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One-directional stream: the client writes SIZE bytes at a time for SECONDS, the server counts (and with --verify
 * compares) what it reads and sends its count back at the end of the stream.
 *
 *	bench-stream server HOST PORT             serves one connection after the other
 *	bench-stream client HOST PORT SIZE SECONDS [--verify] [--nodelay]
 *
 * Without --nodelay small writes may be gathered, as by default on every TCP; with it each becomes a segment.
 *
 * The time ends when the server's count has come back, so nothing that is still in a buffer is counted. Byte number n
 * of the stream is pattern[n % PERIOD]; the period is prime, so that no lost, doubled or swapped block goes unnoticed.
 */
#include <stdbool.h>

#include "net.h"

#define PERIOD 65521u
#define LARGEST_WRITE (1u << 20)
#define READ_SIZE 65536u

struct request {
	uint32_t verify;
	uint32_t size;
};

struct report {
	uint64_t bytes;
	uint64_t reads;
	uint64_t wrong; /* offset of the first wrong byte plus 1, 0 if none */
};

static uint8_t pattern[PERIOD + LARGEST_WRITE];

static void make_pattern(void)
{
	uint32_t x = 2463534242u;

	for (size_t i = 0; i < sizeof(pattern); i++) {
		if (i >= PERIOD) {
			pattern[i] = pattern[i - PERIOD];
			continue;
		}
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		pattern[i] = (uint8_t)x;
	}
}

static void serve(int fd)
{
	static uint8_t buf[READ_SIZE];
	struct report r = {0};
	struct request q;
	ssize_t n;

	if (!read_all(fd, &q, sizeof(q)))
		return;
	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0) {
		if (q.verify && !r.wrong && memcmp(buf, pattern + r.bytes % PERIOD, (size_t)n) != 0) {
			size_t i = 0;

			while (buf[i] == pattern[r.bytes % PERIOD + i])
				i++;
			r.wrong = r.bytes + i + 1;
		}
		r.bytes += (uint64_t)n;
		r.reads++;
	}
	if (n < 0)
		die("recv");
	write_all(fd, &r, sizeof(r));
}

static int server(const char *host, const char *port)
{
	int listener = tcp_listen_on(host, port);

	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			die("accept");
		serve(fd);
		close(fd);
	}
}

struct options {
	bool verify, nodelay;
};

static int client(const char *host, const char *port, size_t size, double seconds, const struct options *o)
{
	struct request q = {o->verify, (uint32_t)size};
	int fd = tcp_connect_to(host, port);
	uint64_t start, end, sent = 0, writes = 0;
	struct report r;

	if (o->nodelay)
		set_nodelay(fd);
	write_all(fd, &q, sizeof(q));
	start = now_ns();
	end = start + (uint64_t)(seconds * 1e9);
	do {
		for (int i = 0; i < 64; i++) {
			write_all(fd, pattern + sent % PERIOD, size);
			sent += size;
			writes++;
		}
	} while (now_ns() < end);
	if (shutdown(fd, SHUT_WR) < 0)
		die("shutdown");
	if (!read_all(fd, &r, sizeof(r))) {
		fprintf(stderr, "the server closed without its report\n");
		return 1;
	}
	end = now_ns() - start;
	if (r.bytes != sent || r.wrong) {
		fprintf(stderr, "sent %lu bytes, the server read %lu, first wrong byte %ld\n", sent, r.bytes,
			(long)r.wrong - 1);
		return 1;
	}
	printf("writes_per_s %.0f gbit_per_s %.4f reads_per_write %.4f verified %s\n",
	       (double)writes * 1e9 / (double)end, (double)sent * 8 / (double)end, (double)r.reads / (double)writes,
	       o->verify ? "yes" : "no");
	return 0;
}

int main(int argc, char **argv)
{
	make_pattern();
	if (argc == 4 && strcmp(argv[1], "server") == 0)
		return server(argv[2], argv[3]);
	if (argc >= 6 && strcmp(argv[1], "client") == 0) {
		size_t size = strtoul(argv[4], NULL, 10);
		struct options o = {false, false};

		for (int i = 6; i < argc; i++) {
			o.verify |= strcmp(argv[i], "--verify") == 0;
			o.nodelay |= strcmp(argv[i], "--nodelay") == 0;
		}
		if (size >= 1 && size <= LARGEST_WRITE)
			return client(argv[2], argv[3], size, strtod(argv[5], NULL), &o);
	}
	fprintf(stderr,
		"usage: bench-stream server HOST PORT | client HOST PORT SIZE SECONDS [--verify] [--nodelay]\n");
	return 2;
}
