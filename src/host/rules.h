/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rules: which sockets are accelerated and which are left to the kernel (docs/rules.md). One rule a line,
 *
 *   accelerate|kernel [program=GLOB] [protocol=tcp|udp] [role=client|server] [address=CIDR] [port=N[-M]]
 *
 * the first that matches wins, and what none matches is accelerated. Address and port are always the server's: a
 * client's remote end, a server's own.
 *
 * Parser and matcher are pure: no system call, no allocation (rules.c); reading the file is rules_file.c's. The library
 * reads it once, before main, and drops the rules of other programs; sockets ask at bind, listen and connect.
 */
#ifndef VD_RULES_H
#define VD_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/sock.h"

#define RULES_MAX 256u        /* rules of a file */
#define RULES_TEXT_MAX 65536u /* bytes of a file */
#define RULES_LINE_MAX 65535u

enum rule_action { RULE_ACCELERATE, RULE_KERNEL };
enum rule_role { RULE_ANY_ROLE, RULE_CLIENT, RULE_SERVER };

struct rule {
	uint16_t line;
	uint8_t action, role;         /* enum rule_action, enum rule_role */
	uint8_t proto;                /* enum sock_proto; SOCK_FREE: any */
	uint8_t has_address, prefix;  /* prefix: 96 + n for IPv4 */
	uint16_t port_low, port_high; /* 0 to 65535: any */
	uint8_t address[16];
	char program[64]; /* "": any. With a slash it is the file's path, else its name */
};

struct rules {
	uint32_t count;
	struct rule rule[RULES_MAX];
};

/* What is wrong with a line; column and width (from 1) say where. */
struct rules_error {
	uint32_t line, column, width;
	char text[200]; /* a sentence with the remedy */
};
typedef void rules_report(void *arg, const struct rules_error *error);

/* Read a file's text. Each wrong line is reported and left out. The number of wrong lines. */
uint32_t rules_parse(struct rules *r, const char *text, size_t len, rules_report *report, void *arg);
/* Report each rule that can never match, because one before it matches all that it does. */
void rules_unreachable(const struct rules *r, rules_report *report, void *arg);
/* "FILE:LINE:COLUMN: sentence", the line, and carets under what is meant. */
void rules_explain(const char *path, const char *text, size_t len, const struct rules_error *error, char *out,
		   size_t out_len);
/* Leave only the rules for a program: its file's path, and the name that it was called by. */
void rules_keep(struct rules *r, const char *path, const char *called);
/* The first that matches (programs are not looked at), or NULL. */
const struct rule *rules_match(const struct rules *r, enum sock_proto proto, enum rule_role role,
			       const struct endpoint *server);

/* --- rules_file.c: this process's own --- */

#define RULES_FILE_DEFAULT "/etc/viaduct/rules"
/* What holds where that file is missing. */
extern const char rules_builtin[];

/* Bytes read into text, or -errno (-EFBIG: longer than room). */
int rules_read(const char *path, char *text, size_t room);
/* Load what knob RULES names, for this program. 0, or -errno with a sentence. */
int rules_load(char *err, size_t err_len);
/* The file's path; "" for the built-in rules. */
const char *rules_file(void);
/* The line of the rule that leaves the socket to the kernel; 0: it is to be accelerated. */
uint32_t rules_refuse(enum sock_proto proto, enum rule_role role, const struct endpoint *server);

#endif
