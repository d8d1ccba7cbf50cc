/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Round trips over one TCP connection, both ends in blocking calls (or, with --spin, in nonblocking ones repeated).
 *
 *	bench-pingpong server HOST PORT [--spin]
 *	bench-pingpong client HOST PORT SIZE SECONDS [--spin]
 *
 * The client prints the median, the 99th percentile, the least and the mean in ns. Times are counted in a histogram of
 * 1/64 relative width, so that any number of rounds costs the same memory. The first tenth of the time is a warm-up.
 */
#include <stdbool.h>

#include "net.h"

#define LARGEST 65536u
#define SUB 64u
#define BUCKETS (64u * SUB)

static uint64_t histogram[BUCKETS];
static char buf[LARGEST];

static uint32_t bucket_of(uint64_t ns)
{
	uint32_t shift = 0;

	while (ns >> shift >= 2 * SUB)
		shift++;
	return shift * SUB + (uint32_t)(ns >> shift);
}

static uint64_t bucket_value(uint32_t bucket)
{
	uint32_t shift = bucket < 2 * SUB ? 0 : bucket / SUB - 1;

	return (uint64_t)(bucket - shift * SUB) << shift;
}

static uint64_t percentile(uint64_t count, double part)
{
	uint64_t wanted = (uint64_t)((double)count * part), seen = 0;

	for (uint32_t i = 0; i < BUCKETS; i++) {
		seen += histogram[i];
		if (seen > wanted)
			return bucket_value(i);
	}
	return 0;
}

/* Exactly len bytes; 0 at the end of the stream. */
static int take(int fd, size_t len, bool spin)
{
	size_t got = 0;

	if (!spin)
		return read_all(fd, buf, len);
	while (got < len) {
		ssize_t n = recv(fd, buf + got, len - got, MSG_DONTWAIT);

		if (n == 0)
			return 0;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			die("recv");
		if (n > 0)
			got += (size_t)n;
	}
	return 1;
}

static int server(const char *host, const char *port, bool spin)
{
	int listener = tcp_listen_on(host, port);

	for (;;) {
		int fd = accept(listener, NULL, NULL);
		uint32_t size;

		if (fd < 0)
			die("accept");
		set_nodelay(fd);
		if (read_all(fd, &size, sizeof(size)) && size <= LARGEST) {
			while (take(fd, size, spin))
				write_all(fd, buf, size);
		}
		close(fd);
	}
}

static int client(const char *host, const char *port, uint32_t size, double seconds, bool spin)
{
	int fd = tcp_connect_to(host, port);
	uint64_t start = now_ns(), warm = start + (uint64_t)(seconds * 1e8), end = start + (uint64_t)(seconds * 1e9);
	uint64_t least = UINT64_MAX, sum = 0, count = 0, t0 = start, t1;

	set_nodelay(fd);
	write_all(fd, &size, sizeof(size));
	for (; t0 < end; t0 = t1) {
		write_all(fd, buf, size);
		if (!take(fd, size, spin)) {
			fprintf(stderr, "the server closed the connection\n");
			return 1;
		}
		t1 = now_ns();
		if (t0 < warm)
			continue;
		histogram[bucket_of(t1 - t0)]++;
		sum += t1 - t0;
		count++;
		if (t1 - t0 < least)
			least = t1 - t0;
	}
	if (!count) {
		fprintf(stderr, "no round trip in time\n");
		return 1;
	}
	printf("p50_ns %lu p99_ns %lu p999_ns %lu min_ns %lu mean_ns %.1f count %lu\n", percentile(count, 0.5),
	       percentile(count, 0.99), percentile(count, 0.999), least, (double)sum / (double)count, count);
	return 0;
}

int main(int argc, char **argv)
{
	bool spin = argc > 4 && strcmp(argv[argc - 1], "--spin") == 0;

	argc -= spin;
	if (argc == 4 && strcmp(argv[1], "server") == 0)
		return server(argv[2], argv[3], spin);
	if (argc == 6 && strcmp(argv[1], "client") == 0) {
		unsigned long size = strtoul(argv[4], NULL, 10);

		if (size >= 1 && size <= LARGEST)
			return client(argv[2], argv[3], (uint32_t)size, strtod(argv[5], NULL), spin);
	}
	fprintf(stderr, "usage: bench-pingpong server HOST PORT [--spin] | client HOST PORT SIZE SECONDS [--spin]\n");
	return 2;
}
