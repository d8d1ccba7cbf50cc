/* SPDX-License-Identifier: BSD-2-Clause */
/* The counters of a stack, made from counters.def. */
#ifndef VD_COUNTERS_H
#define VD_COUNTERS_H

enum counter {
#define COUNTER(name, sentence) C_##name,
#include "engine/counters.def"
#undef COUNTER
	COUNTER_COUNT
};

struct counter_info {
	const char *name, *sentence;
};
extern const struct counter_info counter_info[COUNTER_COUNT];

#endif
