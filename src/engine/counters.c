/* SPDX-License-Identifier: BSD-2-Clause */
/* Names and sentences of the counters. */
#include "engine/counters.h"

const struct counter_info counter_info[COUNTER_COUNT] = {
#define COUNTER(name, text) [C_##name] = {#name, text},
#include "engine/counters.def"
#undef COUNTER
};
