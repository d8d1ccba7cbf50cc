/* SPDX-License-Identifier: BSD-2-Clause */
/* What `viaduct check` finds: sentences in sections, each fine, worth knowing, or in the way of the network path. */
#ifndef VD_CLI_CHECK_H
#define VD_CLI_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/netdev.h"
#include "viaduct/daemon.h"
#include "viaduct/netview.h"

enum level {
	LEVEL_OK,
	LEVEL_NOTE, /* works, but not as well as it could */
	LEVEL_LACK, /* the network path does not work */
};

#define FINDINGS_MAX 256u
#define MEND_LEN 200u

struct finding {
	const char *section;
	enum level level;
	char text[400];
	char mend[MEND_LEN]; /* the one command or step that mends it; "": none */
};

struct check {
	struct finding list[FINDINGS_MAX];
	unsigned count, lacks;
	const char *section; /* of what is added now */
	/* facts that later checks ask for */
	unsigned version; /* of the kernel: major << 8 | minor */
	uint64_t caps;    /* effective capabilities, bit per CAP_* */
	bool daemon;      /* viaductd answers */
	bool may_start;   /* viaduct run would start it */
	struct daemon_status status;
	struct netview *view; /* its page; NULL: none */
	struct netdev dev[NETDEVS_MAX];
	int devs;
};

/* Add a sentence. mend: "" or NULL for none. */
void check_add(struct check *c, enum level level, const char *mend, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
bool check_cap(const struct check *c, int cap);

/* The sections, in this order: each looks at what those before it found. */
void check_kernel(struct check *c);
void check_user(struct check *c);
void check_daemon(struct check *c);
void check_driver(struct check *c);
void check_limits(struct check *c);
void check_interfaces(struct check *c);
void check_rules(struct check *c, const char *path);

#endif
