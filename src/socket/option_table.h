/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of socket options (options.def), looked up by level and name. */
#ifndef VD_OPTION_TABLE_H
#define VD_OPTION_TABLE_H

#include <stdbool.h>
#include <stddef.h>

enum option_value { OPTION_INT, OPTION_FLAG, OPTION_TIMEVAL, OPTION_LINGER, OPTION_NAME, OPTION_STRUCT, OPTION_LIVE };
enum option_treatment {
	OPTION_STACK,
	OPTION_SWITCH,
	OPTION_STORED,
	OPTION_ROUTE,
	OPTION_DATAGRAM,
	OPTION_KERNEL,
	OPTION_GROUP,
	OPTION_REFUSED
};

struct option {
	int level, number;
	enum option_value value;
	enum option_treatment treatment;
};

/* NULL: none of the table's. */
const struct option *option_find(int level, int number);
/* Its place in the table, from 0; OPTION_COUNT of them. */
extern const unsigned option_count;
unsigned option_index(const struct option *o);
const struct option *option_at(unsigned index);
/* Does the value, which the kernel took, switch it on? */
bool option_on(const struct option *o, const void *val, unsigned len);

#endif
