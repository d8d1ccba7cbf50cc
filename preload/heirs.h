/* SPDX-License-Identifier: BSD-2-Clause */
/* Programs that this process executes or spawns, and the sockets that they get from it (heirs.c). */
#ifndef VD_HEIRS_H
#define VD_HEIRS_H

#include <stdbool.h>

#include "socket/handover.h"

/* What is under way from before the call that makes the heir until after it. */
struct bequest {
	enum heir heir;
	struct handover *h; /* NULL: nothing is handed over */
	int memfd;
	char **env; /* the heir's; NULL: the caller's is good */
	size_t env_size;
	bool locked;
};

/* The program is to be executed here (HEIR_IMAGE), or in a new process; search: along PATH, for a name without a
 * slash. What of our sockets it can use is made ready for it. The environment to give it. */
char *const *heirs_prepare(struct bequest *b, enum heir heir, const char *file, bool search, char *const env[]);
/* The call has returned. pid: of the new process, 0: there is none. */
void heirs_done(struct bequest *b, int pid);

/* What another process of ours wrote into this memfd: a copy, for handover_free(copy, -1). NULL: it is none. */
struct handover *heirs_read(int memfd);
/* Descriptor fd of this process: is it a socket that has been handed over? Then it is accelerated from here on. */
void heirs_claim(const struct handover *h, int fd);
/* All that may be have been claimed: let the others go. */
void heirs_claimed(const struct handover *h);

/* At the start of this program: remember what its heirs will need. */
void heirs_init(void);
/* At the start of this program: take what was left to it. */
void heirs_inherit(void);

#endif
