/* SPDX-License-Identifier: BSD-2-Clause */
/* See json.h. */
#include "cli/json.h"

#include <inttypes.h>
#include <stdio.h>

static unsigned depth;
static bool first = true; /* no comma before the next thing */

static void quoted(const char *text)
{
	putchar('"');
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if (*p == '"' || *p == '\\')
			printf("\\%c", *p);
		else if (*p < ' ' || *p >= 127) /* what comes here is ASCII; other bytes as code points of Latin-1 */
			printf("\\u%04x", *p);
		else
			putchar(*p);
	}
	putchar('"');
}

static void begin(const char *key)
{
	if (!first)
		putchar(',');
	if (depth)
		printf("\n%*s", (int)(2 * depth), "");
	first = false;
	if (key) {
		quoted(key);
		fputs(": ", stdout);
	}
}

void json_open(const char *key, char bracket)
{
	begin(key);
	putchar(bracket);
	depth++;
	first = true;
}

void json_close(char bracket)
{
	depth--;
	if (!first)
		printf("\n%*s", (int)(2 * depth), "");
	putchar(bracket);
	first = false;
	if (!depth)
		putchar('\n');
}

void json_number(const char *key, uint64_t value)
{
	begin(key);
	printf("%" PRIu64, value);
}

void json_bool(const char *key, bool value)
{
	begin(key);
	fputs(value ? "true" : "false", stdout);
}

void json_string(const char *key, const char *value)
{
	begin(key);
	quoted(value);
}
