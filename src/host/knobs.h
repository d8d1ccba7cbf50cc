/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Knobs: one table (knobs.def) of environment variables VIADUCT_<NAME> makes the parser, --help and the docs.
 * KNOB(NAME, type, low, high, default, unit, sentence); type: BOOL, UINT, ENUM (values in KNOB_ENUM lists).
 */
#ifndef VD_KNOBS_H
#define VD_KNOBS_H

#include <stdint.h>

enum knob {
#define KNOB(name, type, low, high, def, unit, sentence) K_##name,
#include "host/knobs.def"
#undef KNOB
	KNOB_COUNT
};

/* Parsed values; index by enum knob. Set once by knobs_load. */
extern uint64_t knob[KNOB_COUNT];

/* Apply the profile, then the environment. 0, or -EINVAL with a sentence (cause and remedy) in err. */
int knobs_load(char *const *envp, char *err, int err_len);
/* Check one NAME=VALUE (without VIADUCT_). 0, or -EINVAL with a sentence: unknown name gives the nearest,
 * bad value gives the range. */
int knob_check(const char *assignment, char *err, int err_len);

#endif
