/* SPDX-License-Identifier: BSD-2-Clause */
/* See sysctl.h. docs/network.md has the table for users. */
#define _GNU_SOURCE
#include "host/sysctl.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "engine/tcp.h"
#include "engine/tcp_cc.h"
#include "host/host.h"
#include "host/knobs.h"

#define NO_KNOB KNOB_COUNT
#define TEXT_MAX 128u

/* 3 and more are of AccECN, which the engine does not speak: who asks for that asks for ECN. */
static uint64_t ecn_use(uint64_t v)
{
	return v == 0 ? TCP_ECN_NEVER : v == 1 || v == 3 ? TCP_ECN_ASK : TCP_ECN_ANSWER;
}

static uint64_t is_zero(uint64_t v)
{
	return v == 0;
}

/* The kernel counts its overhead in, we do not. */
static uint64_t payload(uint64_t v)
{
	return v / 3 * 2;
}

static uint64_t to_ms(uint64_t us)
{
	return us / 1000;
}

static uint64_t unlimited_is_zero(uint64_t v)
{
	return v >= UINT32_MAX ? 0 : v;
}

static uint64_t pmtu_default(uint64_t v)
{
	return v ? PMTU_DONT : PMTU_DEFAULT;
}

struct sysctl {
	const char *name;
	unsigned column;                 /* of the file's numbers */
	enum knob knob;                  /* that goes before, and whose range holds */
	uint32_t low, high;              /* without one */
	size_t at;                       /* in struct sock_defaults */
	uint64_t (*meaning)(uint64_t v); /* NULL: the number itself */
};

#define AT(field) offsetof(struct sock_defaults, field)

static const struct sysctl sysctls[] = {
    {"ipv4/tcp_ecn", 0, NO_KNOB, 0, TCP_ECN_NEVER, AT(ecn), ecn_use},
    {"ipv4/tcp_timestamps", 0, K_TIMESTAMPS, 0, 0, AT(no_timestamps), is_zero},
    {"ipv4/tcp_keepalive_time", 0, K_KEEPIDLE_S, 0, 0, AT(keep_idle_s), NULL},
    {"ipv4/tcp_keepalive_intvl", 0, K_KEEPINTVL_S, 0, 0, AT(keep_intvl_s), NULL},
    {"ipv4/tcp_keepalive_probes", 0, K_KEEPCNT, 0, 0, AT(keep_cnt), NULL},
    {"ipv4/tcp_syn_retries", 0, K_SYN_RETRIES, 0, 0, AT(syn_retries), NULL},
    {"ipv4/tcp_synack_retries", 0, K_SYNACK_RETRIES, 0, 0, AT(synack_retries), NULL},
    {"ipv4/tcp_retries2", 0, K_RETRIES2, 0, 0, AT(retries2), NULL},
    {"ipv4/tcp_fin_timeout", 0, K_FIN_TIMEOUT_S, 0, 0, AT(fin_timeout_s), NULL},
    {"ipv4/tcp_rto_min_us", 0, K_RTO_MIN_MS, 0, 0, AT(rto_min_ms), to_ms},
    {"ipv4/tcp_rmem", 1, K_RCVBUF, 0, 0, AT(rcvbuf), NULL},
    {"ipv4/tcp_rmem", 2, K_RCVBUF_MAX, 0, 0, AT(rcvbuf_max), payload},
    {"ipv4/tcp_wmem", 2, K_SNDBUF_MAX, 0, 0, AT(sndbuf_max), NULL},
    {"ipv4/tcp_slow_start_after_idle", 0, NO_KNOB, 0, 1, AT(keep_cwnd_idle), is_zero},
    {"ipv4/tcp_notsent_lowat", 0, NO_KNOB, 0, UINT32_MAX, AT(notsent_lowat), unlimited_is_zero},
    {"ipv4/ip_default_ttl", 0, NO_KNOB, 1, 255, AT(ttl), NULL},
    {"ipv4/ip_no_pmtu_disc", 0, NO_KNOB, PMTU_DEFAULT, PMTU_DONT, AT(pmtudisc), pmtu_default},
    {"core/somaxconn", 0, K_SOMAXCONN, 0, 0, AT(somaxconn), NULL},
};

static bool read_sysctl(const char *name, char text[TEXT_MAX])
{
	char path[80];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = host_sys.read(fd, text, TEXT_MAX - 1);
	host_sys.close(fd);
	text[n > 0 ? n : 0] = 0;
	return n > 0;
}

static bool number_at(const char *text, unsigned column, uint64_t *out)
{
	const char *digit = text + strspn(text, " \t");

	while (column--) {
		digit += strcspn(digit, " \t\n");
		digit += strspn(digit, " \t");
	}
	if (*digit < '0' || *digit > '9')
		return false;
	for (*out = 0; *digit >= '0' && *digit <= '9' && *out <= UINT32_MAX; digit++)
		*out = *out * 10 + (uint64_t)(*digit - '0');
	return true;
}

/* Beyond what a knob may be: the nearest that it may. no_timestamps is a knob's opposite, and in its range all the
 * same. */
static uint32_t within(const struct sysctl *s, uint64_t v)
{
	uint64_t low = s->knob == NO_KNOB ? s->low : knob_info[s->knob].low;
	uint64_t high = s->knob == NO_KNOB ? s->high : knob_info[s->knob].high;

	return (uint32_t)(v < low ? low : v > high ? high : v);
}

static void apply(struct sock_defaults *d, const struct sysctl *s)
{
	char text[TEXT_MAX];
	uint32_t value;
	uint64_t v;

	if (s->knob != NO_KNOB && knob_given[s->knob])
		return;
	if (!read_sysctl(s->name, text) || !number_at(text, s->column, &v))
		return;
	value = within(s, s->meaning ? s->meaning(v) : v);
	memcpy((char *)d + s->at, &value, sizeof(value));
}

/* Those that the engine has; with any other the default stays. */
static void apply_congestion_control(struct sock_defaults *d)
{
	char text[TEXT_MAX];

	if (knob_given[K_CC] || !read_sysctl("ipv4/tcp_congestion_control", text))
		return;
	if (!strcmp(text, "reno\n"))
		d->cc = TCP_CC_NEWRENO;
	else if (!strcmp(text, "cubic\n"))
		d->cc = TCP_CC_CUBIC;
}

void sysctls_apply(struct sock_defaults *d)
{
	for (size_t i = 0; i < sizeof(sysctls) / sizeof(sysctls[0]); i++)
		apply(d, &sysctls[i]);
	apply_congestion_control(d);
	if (d->rcvbuf_max < d->rcvbuf)
		d->rcvbuf_max = d->rcvbuf;
	if (d->sndbuf_max < d->sndbuf)
		d->sndbuf_max = d->sndbuf;
	if (d->rto_max_ms < d->rto_min_ms)
		d->rto_max_ms = d->rto_min_ms;
}
