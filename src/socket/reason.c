/* SPDX-License-Identifier: BSD-2-Clause */
/* The reasons' sentences, made from the table in reason.h. */
#include "socket/reason.h"

const char *const reason_sentence[REASON_COUNT] = {
#define R(name, sentence) [REASON_##name] = sentence,
    REASON_TABLE(R)
#undef R
};
