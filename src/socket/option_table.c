/* SPDX-License-Identifier: BSD-2-Clause */
/* See option_table.h. The table becomes a switch, of which the compiler makes a few jumps. */
#include "socket/option_table.h"

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

/* The table's names of levels. */
enum {
	LEVEL_SOCKET = SOL_SOCKET,
	LEVEL_TCP = IPPROTO_TCP,
	LEVEL_UDP = IPPROTO_UDP,
	LEVEL_IP = IPPROTO_IP,
	LEVEL_IPV6 = IPPROTO_IPV6
};

static const struct option options[] = {
#define OPTION(level, name, number, value, treatment, sentence)                                                        \
	{LEVEL_##level, number, OPTION_##value, OPTION_##treatment},
#include "socket/options.def"
#undef OPTION
};

const unsigned option_count = sizeof(options) / sizeof(options[0]);

#define KEY(level, number) ((uint64_t)(uint32_t)(level) << 32 | (uint32_t)(number))

enum place {
#define OPTION(level, name, number, value, treatment, sentence) PLACE_##level##_##name,
#include "socket/options.def"
#undef OPTION
};

const struct option *option_find(int level, int number)
{
	switch (KEY(level, number)) {
#define OPTION(level, name, number, value, treatment, sentence)                                                        \
	case KEY(LEVEL_##level, number):                                                                               \
		return &options[PLACE_##level##_##name];
#include "socket/options.def"
#undef OPTION
	default:
		return NULL;
	}
}

unsigned option_index(const struct option *o)
{
	return (unsigned)(o - options);
}

const struct option *option_at(unsigned index)
{
	return index < option_count ? &options[index] : NULL;
}

bool option_on(const struct option *o, const void *val, unsigned len)
{
	int v = 0;

	if (o->value == OPTION_STRUCT || o->value == OPTION_NAME)
		return len > 0;
	memcpy(&v, val, len < sizeof(v) ? len : sizeof(v));
	if (o->level == SOL_SOCKET && o->number == SO_PEEK_OFF)
		return v >= 0;
	return v != 0 && v != -1;
}
