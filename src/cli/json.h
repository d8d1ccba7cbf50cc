/* SPDX-License-Identifier: BSD-2-Clause */
/* Writes JSON (RFC 8259) to standard output as it goes: commas, indentation and escapes are done here. */
#ifndef VD_CLI_JSON_H
#define VD_CLI_JSON_H

#include <stdbool.h>
#include <stdint.h>

/* key NULL: an element of an array, or the whole document. */
void json_open(const char *key, char bracket); /* '{' or '[' */
void json_close(char bracket);                 /* '}' or ']' */
void json_number(const char *key, uint64_t value);
void json_bool(const char *key, bool value);
void json_string(const char *key, const char *value);

#endif
