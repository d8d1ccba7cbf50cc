/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Knobs: parsing, checking and what they mean for a stack. The order is: the table's defaults, the profile, then
 * each knob of its own. Errors are sentences with cause and remedy, because users read them. Nothing here
 * allocates: the preload library calls it before the program's main.
 */
#define _GNU_SOURCE
#include "host/knobs.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

#include "engine/stack.h"
#include "host/host.h"

#define PREFIX "VIADUCT_"
#define NAME_MAX_LEN 40

const struct knob_info knob_info[KNOB_COUNT] = {
#define KNOB(name, type, low, high, def, unit, sentence) {#name, KNOB_##type, low, high, def, unit, sentence},
#include "host/knobs.def"
#undef KNOB
};

uint64_t knob[KNOB_COUNT] = {
#define KNOB(name, type, low, high, def, unit, sentence) def,
#include "host/knobs.def"
#undef KNOB
};

bool knob_given[KNOB_COUNT];

const char *const profile_sentence[PROFILE_COUNT] = {
    [PROFILE_DEFAULT] = "Spins for about as long as a wake-up costs, then sleeps.",
    [PROFILE_LATENCY] = "Spins longer, for programs that have a processor to themselves.",
    [PROFILE_THROUGHPUT] = "Larger buffers, and fewer looks at the kernel's descriptors.",
    [PROFILE_CPU] = "Never spins: a waiting thread sleeps at once.",
};

const struct knob_override knob_overrides[] = {
    {PROFILE_LATENCY, K_SPIN_US, 2000},          {PROFILE_LATENCY, K_POLL_KERNEL_US, 50},
    {PROFILE_THROUGHPUT, K_RCVBUF, 1048576},     {PROFILE_THROUGHPUT, K_SNDBUF, 1048576},
    {PROFILE_THROUGHPUT, K_POLL_KERNEL_US, 100}, {PROFILE_CPU, K_SPIN_US, 0},
};
const unsigned knob_override_count = sizeof(knob_overrides) / sizeof(knob_overrides[0]);

/* --- names --- */

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;
	return m < c ? m : c;
}

static char upper(char c)
{
	return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

/* Levenshtein distance, without regard to case. */
static unsigned distance(const char *a, size_t alen, const char *b)
{
	unsigned row[NAME_MAX_LEN + 1];
	size_t blen = strlen(b);
	for (size_t j = 0; j <= blen; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= alen; i++) {
		unsigned diagonal = row[0];
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= blen; j++) {
			unsigned above = row[j];
			unsigned differs = upper(a[i - 1]) != upper(b[j - 1]);
			row[j] = min3(above + 1, row[j - 1] + 1, diagonal + differs);
			diagonal = above;
		}
	}
	return row[blen];
}

static const char *nearest_name(const char *name, size_t len)
{
	unsigned best = ~0u;
	const char *nearest = knob_info[0].name;
	for (int k = 0; k < KNOB_COUNT; k++) {
		unsigned d = distance(name, len, knob_info[k].name);
		if (d < best) {
			best = d;
			nearest = knob_info[k].name;
		}
	}
	return nearest;
}

static int find_knob(const char *name, size_t len)
{
	for (int k = 0; k < KNOB_COUNT; k++)
		if (strlen(knob_info[k].name) == len && !memcmp(knob_info[k].name, name, len))
			return k;
	return -1;
}

/* --- values --- */

/* Index of the word in "a|b|c", or -1. */
static int enum_index(const char *list, const char *word)
{
	size_t len = strlen(word);
	for (int i = 0;; i++) {
		const char *end = strchrnul(list, '|');
		if ((size_t)(end - list) == len && !memcmp(list, word, len))
			return i;
		if (!*end)
			return -1;
		list = end + 1;
	}
}

static bool parse_uint(const char *text, uint64_t *out)
{
	uint64_t v = 0;
	if (!*text)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9' || v > UINT64_MAX / 10 - 1)
			return false;
		v = v * 10 + (uint64_t)(*text - '0');
	}
	*out = v;
	return true;
}

static bool parse_bool(const char *text, uint64_t *out)
{
	static const char *const words[] = {"0", "1", "no", "yes", "off", "on", "false", "true"};
	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (!strcmp(text, words[i])) {
			*out = i & 1;
			return true;
		}
	}
	return false;
}

static bool parse_value(const struct knob_info *info, const char *text, uint64_t *out)
{
	switch (info->type) {
	case KNOB_BOOL:
		return parse_bool(text, out);
	case KNOB_ENUM: {
		int i = enum_index(info->unit, text);
		*out = (uint64_t)i;
		return i >= 0;
	}
	case KNOB_UINT:
		return parse_uint(text, out) && *out >= info->low && *out <= info->high;
	case KNOB_PATH:
		*out = (uintptr_t)text;
		return *text == '/';
	}
	return false;
}

static void describe_range(const struct knob_info *info, char *out, size_t len)
{
	if (info->type == KNOB_BOOL)
		snprintf(out, len, "0 or 1");
	else if (info->type == KNOB_ENUM)
		snprintf(out, len, "one of %s", info->unit);
	else if (info->type == KNOB_PATH)
		snprintf(out, len, "a path from the root, as %s", info->unit);
	else
		snprintf(out, len, "a whole number from %llu to %llu%s%s", (unsigned long long)info->low,
			 (unsigned long long)info->high, *info->unit ? " " : "", info->unit);
}

void knob_format(enum knob k, uint64_t value, char *out, int len)
{
	const struct knob_info *info = &knob_info[k];
	if (info->type == KNOB_PATH) {
		snprintf(out, (size_t)len, "%s", value ? (const char *)(uintptr_t)value : info->unit);
		return;
	}
	if (info->type != KNOB_ENUM) {
		snprintf(out, (size_t)len, "%llu", (unsigned long long)value);
		return;
	}
	const char *word = info->unit;
	for (uint64_t i = 0; i < value && *strchrnul(word, '|'); i++)
		word = strchrnul(word, '|') + 1;
	snprintf(out, (size_t)len, "%.*s", (int)(strchrnul(word, '|') - word), word);
}

/* "NAME=VALUE" -> which knob and what value; -EINVAL with the sentence. */
static int parse_assignment(const char *assignment, enum knob *k, uint64_t *value, char *err, size_t err_len)
{
	const char *equals = strchr(assignment, '=');
	size_t len = equals ? (size_t)(equals - assignment) : strlen(assignment);
	int found = find_knob(assignment, len);
	if (found < 0) {
		if (len > NAME_MAX_LEN)
			len = NAME_MAX_LEN;
		snprintf(err, err_len, "there is no knob %.*s; the nearest is %s", (int)len, assignment,
			 nearest_name(assignment, len));
		return -EINVAL;
	}
	const struct knob_info *info = &knob_info[found];
	char range[160];
	describe_range(info, range, sizeof(range));
	if (!equals) {
		snprintf(err, err_len, "knob %s lacks a value; write %s=VALUE with %s", info->name, info->name, range);
		return -EINVAL;
	}
	if (!parse_value(info, equals + 1, value)) {
		snprintf(err, err_len, "knob %s can't be \"%.60s\"; it takes %s", info->name, equals + 1, range);
		return -EINVAL;
	}
	*k = (enum knob)found;
	return 0;
}

int knob_check(const char *assignment, char *err, int err_len)
{
	enum knob k;
	uint64_t value;
	return parse_assignment(assignment, &k, &value, err, (size_t)err_len);
}

/* --- loading --- */

static void load_profile(uint64_t profile)
{
	memset(knob_given, 0, sizeof(knob_given));
	for (int k = 0; k < KNOB_COUNT; k++)
		knob[k] = knob_info[k].def;
	for (unsigned i = 0; i < knob_override_count; i++)
		if (knob_overrides[i].profile == profile) {
			knob[knob_overrides[i].knob] = knob_overrides[i].value;
			knob_given[knob_overrides[i].knob] = true;
		}
	knob[K_PROFILE] = profile;
}

/* One pass over the environment. only_profile: find VIADUCT_PROFILE and nothing else. */
static int load_environment(char *const *envp, bool only_profile, char *err, size_t err_len)
{
	int result = 0;
	for (; envp && *envp; envp++) {
		enum knob k;
		uint64_t value;
		char sentence[256];
		if (strncmp(*envp, PREFIX, strlen(PREFIX)))
			continue;
		int rc = parse_assignment(*envp + strlen(PREFIX), &k, &value, sentence, sizeof(sentence));
		if (rc < 0 && !result) { /* the first error is told; the good ones count all the same */
			result = rc;
			snprintf(err, err_len, "environment variable %.*s: %s", (int)(strchrnul(*envp, '=') - *envp),
				 *envp, sentence);
		}
		if (rc < 0)
			continue;
		if (only_profile && k == K_PROFILE) {
			load_profile(value);
		} else if (!only_profile) {
			knob[k] = value;
			knob_given[k] = true;
		}
	}
	return result;
}

int knobs_load(char *const *envp, char *err, int err_len)
{
	load_profile(PROFILE_DEFAULT);
	load_environment(envp, true, err, (size_t)err_len);
	return load_environment(envp, false, err, (size_t)err_len);
}

/* --- what they mean for a stack --- */

static uint32_t power_of_two(uint32_t at_least)
{
	uint32_t p = 64;
	while (p < at_least)
		p *= 2;
	return p;
}

static uint32_t larger(uint64_t a, uint64_t b)
{
	return (uint32_t)(a > b ? a : b);
}

void knobs_defaults_for_stack(struct stack_config *cfg)
{
	uint32_t socks = (uint32_t)knob[K_SOCKETS] + 1; /* slot 0 is never used */
	memset(cfg, 0, sizeof(*cfg));
	cfg->max_socks = socks;
	/* Every buffer of 32 wires in use at once, both ways; private buffers for what is copied. */
	cfg->max_pkts = 32 * 2 * VNIC_BUFS_MAX + 32768;
	cfg->max_private = 16384;
	cfg->hash_buckets = power_of_two(socks);
	cfg->max_fdinfo = socks < 4096 ? 4096 : socks;
	cfg->capture = 1;
	if (getrandom(cfg->secret, sizeof(cfg->secret), 0) != (ssize_t)sizeof(cfg->secret)) {
		/* Only without the system call (kernels before 3.17): unpredictable enough from the counter. */
		uint64_t mix = clock_cycles() ^ (uintptr_t)cfg;
		for (unsigned i = 0; i < sizeof(cfg->secret); i++) {
			mix = mix * 6364136223846793005u + 1442695040888963407u + clock_cycles();
			cfg->secret[i] = (uint8_t)(mix >> 56);
		}
	}
	cfg->defaults = (struct sock_defaults){
	    .rcvbuf = (uint32_t)knob[K_RCVBUF],
	    .rcvbuf_max = larger(knob[K_RCVBUF_MAX], knob[K_RCVBUF]),
	    .sndbuf = (uint32_t)knob[K_SNDBUF],
	    .sndbuf_max = larger(knob[K_SNDBUF_MAX], knob[K_SNDBUF]),
	    .cc = (uint32_t)knob[K_CC],
	    .rto_min_ms = (uint32_t)knob[K_RTO_MIN_MS],
	    .rto_max_ms = larger(120000, knob[K_RTO_MIN_MS]),
	    .delack_ms = (uint32_t)knob[K_DELACK_MS],
	    .time_wait_ms = (uint32_t)knob[K_TIME_WAIT_MS],
	    .syn_retries = (uint32_t)knob[K_SYN_RETRIES],
	    .synack_retries = (uint32_t)knob[K_SYNACK_RETRIES],
	    .retries2 = (uint32_t)knob[K_RETRIES2],
	    .keep_idle_s = (uint32_t)knob[K_KEEPIDLE_S],
	    .keep_intvl_s = (uint32_t)knob[K_KEEPINTVL_S],
	    .keep_cnt = (uint32_t)knob[K_KEEPCNT],
	    .fin_timeout_s = (uint32_t)knob[K_FIN_TIMEOUT_S],
	    .somaxconn = (uint32_t)knob[K_SOMAXCONN],
	    .no_timestamps = !knob[K_TIMESTAMPS],
	};
}
