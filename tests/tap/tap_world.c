/* SPDX-License-Identifier: BSD-2-Clause */
/* Namespace, tap device, engine and pump; see tap_world.h. */
#define _GNU_SOURCE
#include "tap_world.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "lib/test_stack.h"

#define LINK_BUFS 1024
#define LINK_BUF_SIZE 2048

static const uint8_t engine_mac[6] = {2, 0, 0, 0, 0, 2}, kernel_mac[6] = {2, 0, 0, 0, 0, 1};

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return done;
}

bool tap_enter_namespace(void)
{
	char map[64];
	unsigned int uid = getuid();

	if (unshare(CLONE_NEWNET) == 0)
		return access("/dev/net/tun", R_OK | W_OK) == 0;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return false;
	snprintf(map, sizeof(map), "0 %u 1", uid);
	return write_file("/proc/self/uid_map", map) && access("/dev/net/tun", R_OK | W_OK) == 0;
}

uint64_t tap_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

static int open_tap(void)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -1;
	strcpy(ifr.ifr_name, "vdtap");
	if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Addresses and both neighbours are given, so no ARP and no neighbour discovery is needed. */
static bool configure_tap(void)
{
	static const char *const commands[] = {
	    "ip link set lo up",
	    "ip link set vdtap address 02:00:00:00:00:01 mtu 1500 up",
	    "ip address add " KERNEL_ADDR4 "/24 dev vdtap",
	    "ip address add " KERNEL_ADDR6 "/64 dev vdtap nodad",
	    "ip neigh replace " ENGINE_ADDR4 " lladdr 02:00:00:00:00:02 dev vdtap nud permanent",
	    "ip neigh replace " ENGINE_ADDR6 " lladdr 02:00:00:00:00:02 dev vdtap nud permanent",
	};

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (system(commands[i]) != 0) {
			fprintf(stderr, "failed: %s\n", commands[i]);
			return false;
		}
	}
	return true;
}

static void make_stack(struct tap_world *w, uint64_t seed)
{
	struct stack_config cfg = test_config();

	cfg.max_socks = cfg.hash_buckets = 256;
	cfg.max_pkts = 16384;
	cfg.max_private = 8192;
	cfg.defaults.sndbuf = 262144;
	cfg.defaults.time_wait_ms = 1000;
	cfg.defaults.somaxconn = 128;
	for (size_t i = 0; i < sizeof(cfg.secret); i++)
		cfg.secret[i] = (uint8_t)sim_random(&seed);
	w->e = calloc(1, sizeof(*w->e));
	if (!w->e)
		abort();
	test_stack_new(w->e, &cfg, tap_now_us());
}

static void captured(void *arg, uint64_t now_us, int from, const uint8_t *frame, uint32_t len, enum sim_fate fate)
{
	(void)from;
	if (fate == SIM_DELIVERED)
		capture_frame(arg, now_us, frame, len);
}

static void make_link(struct tap_world *w, uint64_t seed, const struct sim_dir *dir)
{
	struct sim_config cfg = {.seed = seed,
				 .mtu = TAP_MTU,
				 .buf_size = LINK_BUF_SIZE,
				 .tx_bufs = LINK_BUFS,
				 .rx_bufs = LINK_BUFS,
				 .flights = 4096};
	struct vnic_state *st;

	cfg.dir[0] = cfg.dir[1] = dir ? *dir : (struct sim_dir){.delay_us = 50};
	w->link = test_link_new(&cfg);
	w->vnic = test_link_join(w->link, 0, w->e);
	sim_attach(w->link, 1, &w->far, &w->far_state);
	st = w->e->vnic[w->vnic].st;
	memcpy(st->mac, engine_mac, 6);
	memcpy(st->peer_mac, kernel_mac, 6);
	sim_set_tap(w->link, captured, w->capture);
}

struct tap_world *tap_world_new(uint64_t seed, const struct sim_dir *dir)
{
	struct tap_world *w = calloc(1, sizeof(*w));

	if (!w)
		abort();
	w->tap_fd = open_tap();
	if (w->tap_fd < 0 || !configure_tap()) {
		perror("tap device");
		abort();
	}
	w->capture = capture_new();
	make_stack(w, seed);
	make_link(w, seed, dir);
	return w;
}

void tap_world_free(struct tap_world *w)
{
	close(w->tap_fd);
	capture_free(w->capture);
	test_link_free(w->link);
	test_stack_free(w->e);
	free(w->e);
	free(w);
}

/* Frames that Linux sends: onto the link. Without a free buffer they stay in the tap's queue. */
static bool from_tap(struct tap_world *w)
{
	bool any = false;

	while (w->far_state.free_top > 1) {
		uint8_t frame[LINK_BUF_SIZE];
		ssize_t n = read(w->tap_fd, frame, sizeof(frame));

		if (n <= 0)
			break;
		int buf = vnic_tx_alloc(&w->far);
		struct vnic_desc d = {.buf = (uint32_t)buf, .len = (uint16_t)n, .type = VNIC_DESC_FRAME};

		memcpy(vnic_tx_buf(&w->far, d.buf), frame, (size_t)n);
		w->far.ops->post(&w->far, &d, 1);
		vnic_tx_free(&w->far, d.buf);
		any = true;
	}
	return any;
}

/* Frames that the link delivers: into the tap. */
static bool to_tap(struct tap_world *w)
{
	struct vnic_desc ev[VNIC_BURST];
	bool any = false;
	int n;

	while ((n = w->far.ops->poll(&w->far, ev, VNIC_BURST)) > 0) {
		for (int i = 0; i < n; i++) {
			/* the link's buffers hold a whole frame, so there is never a second part */
			if (write(w->tap_fd, vnic_rx_buf(&w->far, ev[i].buf) + ev[i].off, ev[i].len) < 0)
				perror("write to the tap");
			w->far.ops->release(&w->far, ev[i].buf);
		}
		any = true;
	}
	return any;
}

void tap_pump(struct tap_world *w)
{
	bool any = from_tap(w);
	uint64_t now = tap_now_us();

	sim_step(w->link, now);
	while (engine_poll(w->e, now, 64) > 0)
		any = true;
	if (engine_deadline(w->e) <= now)
		engine_tick(w->e, now);
	sim_step(w->link, now);
	any |= to_tap(w);
	w->e->s->proc[0].dirty_head = w->e->s->proc[0].dirty_tail; /* the tests look at levels, not at news */
	for (uint32_t i = 1; i < w->e->s->cfg.max_socks && i < w->e->s->sock_pool.mark; i++)
		sock_at(w->e->s, i)->dirty_mask = 0;
	if (!any && sim_next(w->link) > now + 200) {
		struct pollfd p = {.fd = w->tap_fd, .events = POLLIN};

		poll(&p, 1, 1);
	}
}

bool tap_until(struct tap_world *w, bool (*condition)(void *), void *arg, uint32_t ms)
{
	uint64_t end = tap_now_us() + ms * 1000ull;

	while (!condition(arg)) {
		if (tap_now_us() > end)
			return false;
		tap_pump(w);
	}
	return true;
}
