/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a file of rules is any bytes. Whatever it is, what is reported lies within the text, what is kept is
 * within its limits, and explaining, matching and looking for hidden rules end.
 */
#include <string.h>

#include "fuzz.h"
#include "host/rules.h"

static struct rules parsed;
static const char *text;
static size_t text_len;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void told(void *arg, const struct rules_error *e)
{
	char out[1024];

	(void)arg;
	fuzz_require(e->line && e->line <= text_len + 1 && e->column && e->column <= text_len + 1 && e->width);
	rules_explain("rules", text, text_len, e, out, sizeof(out));
	fuzz_require(strlen(out) < sizeof(out));
}

static void look_at(const struct rule *one)
{
	fuzz_require(one->action <= RULE_KERNEL && one->role <= RULE_SERVER && one->proto <= SOCK_UDP);
	fuzz_require(one->prefix <= 128 && one->port_low <= one->port_high);
	fuzz_require(memchr(one->program, 0, sizeof(one->program)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct endpoint ep = {.port = len > 1 ? (uint16_t)(data[0] << 8 | data[1]) : 53};

	text = (const char *)data;
	text_len = len;
	rules_parse(&parsed, text, len, told, NULL);
	fuzz_require(parsed.count <= RULES_MAX);
	for (uint32_t i = 0; i < parsed.count; i++)
		look_at(&parsed.rule[i]);
	rules_unreachable(&parsed, told, NULL);
	memcpy(ep.addr, data, len < 16 ? len : 16);
	rules_match(&parsed, SOCK_TCP, RULE_CLIENT, &ep);
	rules_keep(&parsed, "/usr/bin/program", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
	fuzz_require(parsed.count <= RULES_MAX);
	return 0;
}
