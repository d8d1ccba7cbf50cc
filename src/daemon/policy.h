/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who may use which interface, and how much of what: from command-line options and a small file. One table
 * (policy.c) makes the parser of both and the help text.
 */
#ifndef VD_POLICY_H
#define VD_POLICY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define POLICY_NAMES 32u
#define POLICY_FILE "/etc/viaduct/viaductd.conf"

struct policy {
	char interface[POLICY_NAMES][16]; /* none named: all */
	uint32_t interfaces;
	uint32_t user[POLICY_NAMES]; /* may open vNICs; none named: all */
	uint32_t users;
	uint32_t direct[POLICY_NAMES]; /* may send what they like, as root may */
	uint32_t directs;
	char own_queues[POLICY_NAMES][16]; /* interfaces whose spare queues and flow rules are ours (own_queue.h) */
	uint32_t own_queues_count;
	uint32_t stacks;  /* of one user at once */
	uint32_t filters; /* of one stack at once */
	bool transient;   /* leave with the last stack */
	bool share;       /* beside other XDP programs, by libxdp's dispatcher */
	bool native;      /* XDP in the driver of a veth, too */
	bool veth_only;   /* nobody gets the interface's own queues */
};

void policy_defaults(struct policy *p);
/* Read options and the file that they name, or the default one if it exists. 0; 1: --help or --version was asked for
 * and answered; -EINVAL: said on standard error. */
int policy_read(struct policy *p, int argc, char **argv);
/* One line of a file: `name value`. NULL, or what is wrong with it. */
const char *policy_line(struct policy *p, char *line);

bool policy_interface(const struct policy *p, const char *name);
bool policy_own_queues(const struct policy *p, const char *name);
bool policy_user(const struct policy *p, uint32_t uid);
/* licence: has shown that he may send any frame anyway (daemon.h). */
bool policy_direct(const struct policy *p, uint32_t uid, bool licence);

#endif
