/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Knobs: one table (knobs.def) of environment variables VIADUCT_<NAME> makes the parser, --help and the docs.
 * KNOB(NAME, type, low, high, default, unit, sentence); type: BOOL, UINT, ENUM (unit: its values, "a|b|c", from 0),
 * PATH (unit: the file taken where it is 0).
 */
#ifndef VD_KNOBS_H
#define VD_KNOBS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct stack_config;

enum knob {
#define KNOB(name, type, low, high, def, unit, sentence) K_##name,
#include "host/knobs.def"
#undef KNOB
	KNOB_COUNT
};

/* Parsed values; index by enum knob. Set once by knobs_load. A path is the address of its text in the environment. */
extern uint64_t knob[KNOB_COUNT];
/* True: the environment or the profile says so. Others may follow the kernel (sysctl.h). */
extern bool knob_given[KNOB_COUNT];

enum knob_type { KNOB_BOOL, KNOB_UINT, KNOB_ENUM, KNOB_PATH };

struct knob_info {
	const char *name; /* without VIADUCT_ */
	enum knob_type type;
	uint64_t low, high, def;
	const char *unit; /* of UINT, may be ""; of ENUM the values */
	const char *sentence;
};
extern const struct knob_info knob_info[KNOB_COUNT];

/* Values of the enumerations, in the order of their lists in knobs.def. */
enum { PROFILE_DEFAULT, PROFILE_LATENCY, PROFILE_THROUGHPUT, PROFILE_CPU, PROFILE_COUNT };
enum { PEERS_SAME_USER, PEERS_ANY };
enum { NETWORK_AUTO, NETWORK_OFF, NETWORK_REQUIRE };
enum { LOG_QUIET, LOG_WARN };

/* What a profile changes, in words and as knobs (knobs.c). */
struct knob_override {
	unsigned profile;
	enum knob knob;
	uint64_t value;
};
extern const struct knob_override knob_overrides[];
extern const unsigned knob_override_count;
extern const char *const profile_sentence[PROFILE_COUNT];

/* Apply the profile, then the environment. 0, or -EINVAL with a sentence (cause and remedy) in err. */
int knobs_load(char *const *envp, char *err, int err_len);
/* Check one NAME=VALUE (without VIADUCT_). 0, or -EINVAL with a sentence: unknown name gives the nearest,
 * bad value gives the range. */
int knob_check(const char *assignment, char *err, int err_len);
/* A value as the environment spells it. */
void knob_format(enum knob k, uint64_t value, char *out, int len);

/* A stack's sizes and its sockets' defaults from the knobs, and a fresh secret. */
void knobs_defaults_for_stack(struct stack_config *cfg);

#endif
