/* SPDX-License-Identifier: BSD-2-Clause */
/* Parser and matcher of rules, see rules.h. The text is whatever lies in the file: any bytes, no terminator needed. */
#define _GNU_SOURCE
#include "host/rules.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* --- words of a line --- */

struct word {
	const char *at;
	size_t len;
};

struct line {
	const char *start, *end; /* without the comment and the newline */
	uint32_t number;
	rules_report *report;
	void *arg;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* The next word from *at on; len 0: there is none. */
static struct word next_word(const struct line *l, const char **at)
{
	struct word w;

	while (*at < l->end && is_space(**at))
		(*at)++;
	w.at = *at;
	while (*at < l->end && !is_space(**at))
		(*at)++;
	w.len = (size_t)(*at - w.at);
	return w;
}

static bool is_word(struct word w, const char *text)
{
	return w.len == strlen(text) && !memcmp(w.at, text, w.len);
}

/* Always false: the line is wrong. */
static bool wrong(const struct line *l, struct word w, const char *text)
{
	struct rules_error e = {
	    .line = l->number, .column = (uint32_t)(w.at - l->start) + 1, .width = w.len ? (uint32_t)w.len : 1};

	snprintf(e.text, sizeof(e.text), "%s", text);
	if (l->report)
		l->report(l->arg, &e);
	return false;
}

/* --- values --- */

static bool parse_number(struct word w, uint32_t max, uint32_t *out)
{
	uint32_t n = 0;

	if (!w.len || w.len > 5)
		return false;
	for (size_t i = 0; i < w.len; i++) {
		if (w.at[i] < '0' || w.at[i] > '9')
			return false;
		n = n * 10 + (uint32_t)(w.at[i] - '0');
	}
	*out = n;
	return n <= max;
}

static bool parse_program(const struct line *l, struct rule *r, struct word v)
{
	if (!v.len)
		return wrong(l, v,
			     "program= lacks a name; write a program's name, or its path, with * and ? if need be");
	if (v.len >= sizeof(r->program))
		return wrong(l, v, "this name is longer than 63 characters; shorten it with *");
	if (memchr(v.at, 0, v.len))
		return wrong(l, v, "a name can't hold a zero byte");
	memcpy(r->program, v.at, v.len);
	return true;
}

static bool parse_protocol(const struct line *l, struct rule *r, struct word v)
{
	if (!is_word(v, "tcp") && !is_word(v, "udp"))
		return wrong(l, v, "there is no such protocol here; write protocol=tcp or protocol=udp");
	r->proto = is_word(v, "tcp") ? SOCK_TCP : SOCK_UDP;
	return true;
}

static bool parse_role(const struct line *l, struct rule *r, struct word v)
{
	if (!is_word(v, "client") && !is_word(v, "server"))
		return wrong(l, v, "a socket's role is client (it connects) or server (it listens, or is bound)");
	r->role = is_word(v, "client") ? RULE_CLIENT : RULE_SERVER;
	return true;
}

/* Are all bits of the address behind the prefix zero? */
static bool rest_is_zero(const uint8_t address[16], unsigned prefix)
{
	for (unsigned bit = prefix; bit < 128; bit++)
		if (address[bit / 8] >> (7 - bit % 8) & 1)
			return false;
	return true;
}

static bool parse_address(const struct line *l, struct rule *r, struct word v)
{
	char text[INET6_ADDRSTRLEN];
	const char *slash = memchr(v.at, '/', v.len);
	struct word host = {v.at, slash ? (size_t)(slash - v.at) : v.len};
	uint32_t prefix, bits;

	if (host.len >= sizeof(text) || memchr(host.at, 0, host.len))
		return wrong(l, v, "this is no address; write 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32");
	memcpy(text, host.at, host.len);
	text[host.len] = 0;
	if (inet_pton(AF_INET, text, r->address + 12) == 1) {
		memset(r->address + 10, 0xff, 2);
		bits = 32;
	} else if (inet_pton(AF_INET6, text, r->address) == 1) {
		bits = 128;
	} else {
		return wrong(l, v, "this is no address; write 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32");
	}
	prefix = bits;
	if (slash && !parse_number((struct word){slash + 1, v.len - host.len - 1}, bits, &prefix))
		return wrong(l, (struct word){slash, v.len - host.len},
			     bits == 32 ? "a prefix length of IPv4 is a number from 0 to 32"
					: "a prefix length of IPv6 is a number from 0 to 128");
	r->prefix = (uint8_t)(128 - bits + prefix);
	if (!rest_is_zero(r->address, r->prefix))
		return wrong(l, v, "the address has bits behind its prefix; make them 0, or lengthen the prefix");
	r->has_address = 1;
	return true;
}

static bool parse_port(const struct line *l, struct rule *r, struct word v)
{
	const char *dash = memchr(v.at, '-', v.len);
	struct word first = {v.at, dash ? (size_t)(dash - v.at) : v.len};
	uint32_t low, high;

	if (!parse_number(first, 65535, &low) || !low)
		return wrong(l, v, "a port is a number from 1 to 65535; several are FIRST-LAST");
	high = low;
	if (dash && !parse_number((struct word){dash + 1, v.len - first.len - 1}, 65535, &high))
		return wrong(l, v, "a port is a number from 1 to 65535; several are FIRST-LAST");
	if (high < low)
		return wrong(l, v, "the first port is above the last; turn them round");
	r->port_low = (uint16_t)low;
	r->port_high = (uint16_t)high;
	return true;
}

static const struct {
	const char *name;
	bool (*parse)(const struct line *l, struct rule *r, struct word value);
} conditions[] = {{"program", parse_program},
		  {"protocol", parse_protocol},
		  {"role", parse_role},
		  {"address", parse_address},
		  {"port", parse_port}};

/* --- lines --- */

static bool parse_condition(const struct line *l, struct rule *r, struct word w, uint32_t *seen)
{
	const char *equals = memchr(w.at, '=', w.len);
	struct word name = {w.at, equals ? (size_t)(equals - w.at) : w.len};

	for (unsigned i = 0; i < sizeof(conditions) / sizeof(conditions[0]); i++) {
		if (!is_word(name, conditions[i].name))
			continue;
		if (!equals)
			return wrong(l, w, "this condition lacks a value; write it as NAME=VALUE, without spaces");
		if (*seen >> i & 1)
			return wrong(l, w, "this condition is there twice; write a second rule instead");
		*seen |= 1u << i;
		return conditions[i].parse(l, r, (struct word){equals + 1, w.len - name.len - 1});
	}
	return wrong(l, name, "there is no such condition; there are program, protocol, role, address and port");
}

/* One line that is not empty. False: it is wrong, and reported. */
static bool parse_line(const struct line *l, struct rule *r)
{
	const char *at = l->start;
	struct word w = next_word(l, &at);
	uint32_t seen = 0;

	*r = (struct rule){.line = (uint16_t)l->number, .port_high = 65535};
	if (is_word(w, "kernel"))
		r->action = RULE_KERNEL;
	else if (!is_word(w, "accelerate"))
		return wrong(l, w, "a rule begins with accelerate or kernel");
	for (w = next_word(l, &at); w.len; w = next_word(l, &at))
		if (!parse_condition(l, r, w, &seen))
			return false;
	return true;
}

uint32_t rules_parse(struct rules *r, const char *text, size_t len, rules_report *report, void *arg)
{
	const char *end = text + len;
	struct line l = {.report = report, .arg = arg};
	uint32_t errors = 0;

	r->count = 0;
	while (text < end) {
		const char *newline = memchr(text, '\n', (size_t)(end - text)), *stop = newline ? newline : end;
		const char *comment = memchr(text, '#', (size_t)(stop - text)), *at = text;
		struct rule one;

		l.start = text;
		l.end = comment ? comment : stop;
		l.number++;
		text = newline ? newline + 1 : end;
		if (!next_word(&l, &at).len)
			continue;
		if (r->count == RULES_MAX || l.number > RULES_LINE_MAX) {
			wrong(&l, (struct word){l.start, 1}, "a file has at most 256 rules; join some");
			return errors + 1;
		}
		if (parse_line(&l, &one))
			r->rule[r->count++] = one;
		else
			errors++;
	}
	return errors;
}

/* --- what rules mean --- */

/* Shell patterns of * and ?, in time proportional to the product of the lengths. */
static bool glob(const char *pattern, const char *text)
{
	const char *star = NULL, *resume = text;

	while (*text) {
		if (*pattern == '*') {
			star = pattern++;
			resume = text;
		} else if (*pattern && (*pattern == '?' || *pattern == *text)) {
			pattern++;
			text++;
		} else if (star) {
			pattern = star + 1;
			text = ++resume;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return !*pattern;
}

void rules_keep(struct rules *r, const char *path, const char *called)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < r->count; i++) {
		const char *program = r->rule[i].program;
		bool ours = !*program ||
			    (strchr(program, '/') ? glob(program, path) : glob(program, name) || glob(program, called));

		if (ours)
			r->rule[kept++] = r->rule[i];
	}
	r->count = kept;
}

static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	if (memcmp(a, b, bits / 8))
		return false;
	return !(bits % 8) || !((a[bits / 8] ^ b[bits / 8]) >> (8 - bits % 8));
}

const struct rule *rules_match(const struct rules *r, enum sock_proto proto, enum rule_role role,
			       const struct endpoint *server)
{
	for (uint32_t i = 0; i < r->count; i++) {
		const struct rule *one = &r->rule[i];

		if ((one->proto == SOCK_FREE || one->proto == proto) && (!one->role || one->role == role) &&
		    server->port >= one->port_low && server->port <= one->port_high &&
		    (!one->has_address || same_prefix(one->address, server->addr, one->prefix)))
			return one;
	}
	return NULL;
}

/* Does a match all that b matches? */
static bool covers(const struct rule *a, const struct rule *b)
{
	return (!*a->program || !strcmp(a->program, b->program)) && (!a->proto || a->proto == b->proto) &&
	       (!a->role || a->role == b->role) && a->port_low <= b->port_low && a->port_high >= b->port_high &&
	       (!a->has_address ||
		(b->has_address && a->prefix <= b->prefix && same_prefix(a->address, b->address, a->prefix)));
}

void rules_unreachable(const struct rules *r, rules_report *report, void *arg)
{
	for (uint32_t i = 0; i < r->count; i++) {
		for (uint32_t j = 0; j < i; j++) {
			struct rules_error e = {.line = r->rule[i].line, .column = 1, .width = 1};

			if (!covers(&r->rule[j], &r->rule[i]))
				continue;
			snprintf(e.text, sizeof(e.text),
				 "this rule never matches: the one in line %u matches all that it does; put it before "
				 "that one",
				 r->rule[j].line);
			report(arg, &e);
			break;
		}
	}
}

/* --- errors for people --- */

static struct word line_text(const char *text, size_t len, uint32_t number)
{
	const char *end = text + len, *newline;

	while (--number && (newline = memchr(text, '\n', (size_t)(end - text))))
		text = newline + 1;
	newline = memchr(text, '\n', (size_t)(end - text));
	return (struct word){text, (size_t)((newline ? newline : end) - text)};
}

void rules_explain(const char *path, const char *text, size_t len, const struct rules_error *error, char *out,
		   size_t out_len)
{
	struct word line = line_text(text, len, error->line);
	char shown[120], under[120];
	size_t n = line.len < sizeof(shown) - 1 ? line.len : sizeof(shown) - 1, width = 0;

	for (size_t i = 0; i < n; i++) {
		bool meant = i + 1 >= error->column && i + 1 < error->column + error->width;

		shown[i] = line.at[i] >= ' ' && line.at[i] < 127 ? line.at[i] : ' ';
		under[i] = meant ? '^' : ' ';
		if (meant)
			width = i + 1;
	}
	if (!width && n < sizeof(under) - 1) { /* what lacks stands behind the end */
		memset(under, ' ', sizeof(under));
		under[n] = '^';
		width = n + 1;
	}
	snprintf(out, out_len, "%s:%u:%u: %s\n    %.*s\n    %.*s", path, error->line, error->column, error->text,
		 (int)n, shown, (int)width, under);
}
