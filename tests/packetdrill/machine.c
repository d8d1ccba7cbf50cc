/* SPDX-License-Identifier: BSD-2-Clause */
/* See machine.h. What the engine posts to its device is copied out. */
#include "machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ETH_HEADER 14u
#define DEVICE_US 5u /* from the engine to where frames are watched: about what a tun device takes */
#define CAPTURE_BUFS 2048u
#define CAPTURE_BUF_SIZE 2048u

static void captured(void *arg, struct vnic *v, const struct vnic_desc *d, int n)
{
	struct machine *m = arg;
	struct out_frame *o = &m->out[m->out_tail % MACHINE_OUT];
	uint32_t total = 0;

	for (int i = 0; i < n; i++)
		total += d[i].len;
	if (!total || m->out_tail - m->out_head == MACHINE_OUT)
		return; /* packetdrill stopped reading: as a full queue, it loses the frame */
	o->bytes = malloc(total);
	if (!o->bytes)
		return;
	o->len = total;
	o->us = m->now_us + DEVICE_US;
	total = 0;
	for (int i = 0; i < n; i++) {
		memcpy(o->bytes + total, vnic_tx_buf(v, d[i].buf) + d[i].off, d[i].len);
		total += d[i].len;
	}
	m->out_tail++;
}

struct machine *machine_new(void)
{
	struct machine *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	pthread_mutex_init(&m->mutex, NULL);
	pthread_cond_init(&m->moved, NULL);
	pthread_cond_init(&m->looked, NULL);
	m->main_thread = pthread_self();
	m->now_us = 1000000000ull;
	m->next_port = 32768;
	m->mtu = 1500;
	return m;
}

/* The nth number of a sysctl of this namespace, or def where it can't be read. */
static uint32_t sysctl_number(const char *name, int nth, uint32_t def)
{
	char path[128], text[128] = "";
	unsigned long v[3] = {def, def, def};

	snprintf(path, sizeof(path), "/proc/sys/net/%s", name);
	FILE *f = fopen(path, "r");
	if (!f)
		return def;
	if (fgets(text, sizeof(text), f))
		sscanf(text, "%lu %lu %lu", &v[0], &v[1], &v[2]);
	fclose(f);
	return (uint32_t)v[nth];
}

static bool sysctl_is(const char *name, const char *value)
{
	char path[128], text[128] = "";

	snprintf(path, sizeof(path), "/proc/sys/net/%s", name);
	FILE *f = fopen(path, "r");
	if (!f)
		return false;
	bool is = fgets(text, sizeof(text), f) && !strncmp(text, value, strlen(value));
	fclose(f);
	return is;
}

static void read_defaults(struct sock_defaults *d)
{
	d->rcvbuf = sysctl_number("ipv4/tcp_rmem", 1, 131072);
	d->rcvbuf_max = sysctl_number("ipv4/tcp_rmem", 2, 6291456);
	d->sndbuf = sysctl_number("ipv4/tcp_wmem", 1, 16384);
	d->sndbuf_max = sysctl_number("ipv4/tcp_wmem", 2, 4194304);
	d->cc = sysctl_is("ipv4/tcp_congestion_control", "reno") ? TCP_CC_NEWRENO : TCP_CC_CUBIC;
	d->rto_min_ms = 200;
	d->rto_max_ms = 120000;
	d->delack_ms = 40;
	d->time_wait_ms = 60000;
	d->syn_retries = sysctl_number("ipv4/tcp_syn_retries", 0, 6);
	d->synack_retries = sysctl_number("ipv4/tcp_synack_retries", 0, 5);
	d->retries2 = sysctl_number("ipv4/tcp_retries2", 0, 15);
	d->keep_idle_s = sysctl_number("ipv4/tcp_keepalive_time", 0, 7200);
	d->keep_intvl_s = sysctl_number("ipv4/tcp_keepalive_intvl", 0, 75);
	d->keep_cnt = sysctl_number("ipv4/tcp_keepalive_probes", 0, 9);
	d->fin_timeout_s = sysctl_number("ipv4/tcp_fin_timeout", 0, 60);
	d->somaxconn = sysctl_number("core/somaxconn", 0, 4096);
	d->burst_min = sysctl_number("ipv4/tcp_min_tso_segs", 0, 2);
	d->keep_cwnd_idle = sysctl_number("ipv4/tcp_slow_start_after_idle", 0, 1) == 0;
	d->notsent_lowat = sysctl_number("ipv4/tcp_notsent_lowat", 0, UINT32_MAX);
	d->linux_cubic = 1;
	switch (sysctl_number("ipv4/tcp_ecn", 0, 2)) {
	case 0:
		d->ecn = TCP_ECN_NEVER;
		break;
	case 1:
		d->ecn = TCP_ECN_ASK;
		break;
	default:
		d->ecn = TCP_ECN_ANSWER;
	}
	d->no_timestamps = sysctl_number("ipv4/tcp_timestamps", 0, 1) == 0;
}

void machine_configure(struct machine *m)
{
	struct stack_config cfg = test_config();

	if (m->configured)
		return;
	cfg.max_pkts = 16384;
	cfg.max_private = 8192;
	read_defaults(&cfg.defaults);
	for (size_t i = 0; i < sizeof(cfg.secret); i++)
		cfg.secret[i] = (uint8_t)(i * 37 + 11); /* runs repeat exactly */
	test_stack_new(&m->e, &cfg, m->now_us);
	m->device = (struct test_device){
	    .sent = captured, .arg = m, .mtu = m->mtu, .bufs = CAPTURE_BUFS, .buf_size = CAPTURE_BUF_SIZE};
	m->vnic = test_device_join(&m->device, &m->e);
	m->configured = true;
}

void machine_free(struct machine *m)
{
	if (m->configured) {
		test_device_free(&m->device);
		test_stack_free(&m->e);
	}
	free(m);
}

void machine_moved(struct machine *m)
{
	struct timespec limit;
	int parked = m->parked;

	sets_news(m);
	if (!parked)
		return;
	m->epoch++;
	m->fresh = 0;
	pthread_cond_broadcast(&m->moved);
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 2; /* a parked thread only has to look once */
	while (m->fresh < m->parked)
		if (pthread_cond_timedwait(&m->looked, &m->mutex, &limit))
			break;
	if (m->parked == parked)
		return;
	/* A call has returned to packetdrill: it reads the clock for the call's end, so let it before time moves. */
	pthread_mutex_unlock(&m->mutex);
	usleep(2000);
	pthread_mutex_lock(&m->mutex);
}

void machine_run_until(struct machine *m, uint64_t us)
{
	while (m->configured && m->now_us < us) {
		uint64_t next = engine_deadline(&m->e);

		if (next > us)
			break;
		if (next > m->now_us)
			m->now_us = next;
		engine_tick(&m->e, m->now_us);
		machine_moved(m);
		if (next <= m->now_us && engine_deadline(&m->e) <= m->now_us)
			m->now_us++; /* a deadline that stays due must not stop the clock */
	}
	if (m->now_us < us)
		m->now_us = us;
}

bool machine_run_for_frame(struct machine *m)
{
	uint64_t limit = m->now_us + 600000000ull;

	while (m->out_head == m->out_tail && m->configured) {
		uint64_t next = engine_deadline(&m->e);

		if (next > limit)
			return false;
		machine_run_until(m, next > m->now_us ? next : m->now_us + 1);
	}
	return m->out_head != m->out_tail;
}

bool machine_block(struct machine *m)
{
	if (pthread_equal(pthread_self(), m->main_thread)) {
		uint64_t next = engine_deadline(&m->e);

		if (next > m->now_us + 60000000ull)
			return false;
		machine_run_until(m, next > m->now_us ? next : m->now_us + 1);
		return true;
	}
	uint64_t seen = m->epoch;
	m->parked++;
	m->fresh++;
	pthread_cond_signal(&m->looked);
	while (m->epoch == seen)
		pthread_cond_wait(&m->moved, &m->mutex);
	m->parked--;
	pthread_cond_signal(&m->looked);
	return true;
}

void machine_input(struct machine *m, const void *packet, size_t len)
{
	uint8_t frame[ETH_HEADER + 65536];

	if (len < 1 || len > 65536)
		return;
	memset(frame, 0, ETH_HEADER);
	bool v6 = (*(const uint8_t *)packet >> 4) == 6;
	frame[12] = v6 ? 0x86 : 0x08;
	frame[13] = v6 ? 0xdd : 0x00;
	memcpy(frame + ETH_HEADER, packet, len);
	machine_configure(m);
	engine_input(&m->e, m->vnic, frame, (uint32_t)(ETH_HEADER + len), false, m->now_us);
	machine_moved(m);
}

struct machine_fd *machine_fd(struct machine *m, int fd, enum fd_use use)
{
	if (fd < 0 || fd >= MACHINE_FDS || m->fd[fd].use == FD_FREE) {
		errno = EBADF;
		return NULL;
	}
	if (m->fd[fd].use != use) {
		errno = use == FD_SOCK ? ENOTSOCK : EINVAL;
		return NULL;
	}
	return &m->fd[fd];
}

int machine_fd_new(struct machine *m, enum fd_use use, int family, struct machine_fd **out)
{
	int fd = socket(family == 6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (fd >= MACHINE_FDS) {
		close(fd);
		errno = EMFILE;
		return -1;
	}
	m->fd[fd] = (struct machine_fd){.use = use};
	*out = &m->fd[fd];
	return fd;
}
