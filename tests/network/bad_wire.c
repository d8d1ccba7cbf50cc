/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A bad wire between two interfaces of one network namespace: bad_wire A B [loss=PERCENT] [dup=PERCENT] [late=PERCENT]
 * [delay=MS] [most=BYTES] [seed=N]. Frames that come in by A go out by B and the other way round; some are lost, some
 * doubled, all are `delay` old, some of them (late) three times that, so that others overtake them; those longer than
 * `most` vanish without a word. It prints "ready", and at SIGTERM what it did.
 *
 * It stands in for tc-netem(8), which not every kernel has. Frames pass with their virtio_net_hdr (packet(7),
 * PACKET_VNET_HDR), so a kernel's partial checksums and large segments arrive as over a veth.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FRAME_MAX (66 * 1024)
#define WAITING_MAX 4096

struct waiting {
	struct waiting *next;
	uint64_t due_us;
	int out; /* socket */
	size_t len;
	uint8_t bytes[];
};

static struct {
	double loss, dup, late;
	uint64_t delay_us;
	size_t most;
	uint64_t seed;
} wanted = {.most = SIZE_MAX, .seed = 1};

static struct waiting *queue;
static uint32_t waiting;
static unsigned long passed, lost, doubled, overtaken, too_long, refused;
static volatile sig_atomic_t ended;

static void end(int number)
{
	(void)number;
	ended = 1;
}

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static bool chance(double percent)
{
	wanted.seed = wanted.seed * 6364136223846793005u + 1442695040888963407u;
	return (double)(wanted.seed >> 40) < percent / 100 * (1 << 24);
}

static int open_wire(const char *name)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	int on = 1, size = 8 << 20, fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL));
	struct packet_mreq all = {.mr_type = PACKET_MR_PROMISC};

	at.sll_ifindex = all.mr_ifindex = (int)if_nametoindex(name);
	if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all)) ||
	    bind(fd, (struct sockaddr *)&at, sizeof(at))) {
		perror(name);
		exit(1);
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	return fd;
}

static void pass(int out, const void *bytes, size_t len)
{
	if (send(out, bytes, len, 0) == (ssize_t)len)
		passed++;
	else
		refused++;
}

static void put_off(int out, const void *bytes, size_t len, uint64_t due_us)
{
	struct waiting *w = waiting < WAITING_MAX ? malloc(sizeof(*w) + len) : NULL, **at = &queue;

	if (!w) {
		lost++;
		return;
	}
	*w = (struct waiting){.due_us = due_us, .out = out, .len = len};
	memcpy(w->bytes, bytes, len);
	while (*at && (*at)->due_us <= due_us)
		at = &(*at)->next;
	w->next = *at;
	*at = w;
	waiting++;
}

static void one_frame(int out, const uint8_t *bytes, size_t len)
{
	uint64_t delay = wanted.delay_us;

	if (len - sizeof(struct virtio_net_hdr) > wanted.most) {
		too_long++;
		return;
	}
	if (chance(wanted.loss)) {
		lost++;
		return;
	}
	if (chance(wanted.dup)) {
		doubled++;
		pass(out, bytes, len);
	}
	if (chance(wanted.late)) {
		overtaken++;
		delay = 3 * delay + 1000;
	}
	if (delay)
		put_off(out, bytes, len, now_us() + delay);
	else
		pass(out, bytes, len);
}

static void all_frames(int in, int out)
{
	static uint8_t bytes[FRAME_MAX];
	ssize_t n;

	while ((n = recv(in, bytes, sizeof(bytes), 0)) > (ssize_t)sizeof(struct virtio_net_hdr))
		one_frame(out, bytes, (size_t)n);
}

/* Returns how long to wait for the next, in ms; -1: none. */
static int what_is_due(void)
{
	uint64_t now = now_us();

	while (queue && queue->due_us <= now) {
		struct waiting *w = queue;

		queue = w->next;
		waiting--;
		pass(w->out, w->bytes, w->len);
		free(w);
	}
	return queue ? (int)((queue->due_us - now) / 1000) : -1;
}

static void take_option(const char *text)
{
	const char *value = strchr(text, '=');
	size_t len = value ? (size_t)(value - text) : 0;
	double number = value ? atof(value + 1) : 0;

	if (len == 4 && !strncmp(text, "loss", len))
		wanted.loss = number;
	else if (len == 3 && !strncmp(text, "dup", len))
		wanted.dup = number;
	else if (len == 4 && !strncmp(text, "late", len))
		wanted.late = number;
	else if (len == 5 && !strncmp(text, "delay", len))
		wanted.delay_us = (uint64_t)(number * 1000);
	else if (len == 4 && !strncmp(text, "most", len))
		wanted.most = (size_t)number;
	else if (len == 4 && !strncmp(text, "seed", len))
		wanted.seed = (uint64_t)number;
	else
		exit(2);
}

int main(int argc, char **argv)
{
	struct sigaction act = {.sa_handler = end};
	struct pollfd p[2] = {{.events = POLLIN}, {.events = POLLIN}};

	if (argc < 3)
		return 2;
	for (int i = 3; i < argc; i++)
		take_option(argv[i]);
	for (int i = 0; i < 2; i++)
		p[i].fd = open_wire(argv[1 + i]);
	sigaction(SIGTERM, &act, NULL);
	puts("ready");
	fflush(stdout);
	while (!ended) {
		poll(p, 2, what_is_due());
		for (int i = 0; i < 2; i++)
			all_frames(p[i].fd, p[1 - i].fd);
	}
	printf("passed %lu lost %lu doubled %lu overtaken %lu too long %lu refused %lu\n", passed, lost, doubled,
	       overtaken, too_long, refused);
	return 0;
}
