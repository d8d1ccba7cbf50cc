/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A network namespace that nobody else sees, for the inner ends of the stacks' veths. A thread lives in it and does
 * there what it is given; the daemon waits for it. The AF_XDP sockets that are made there keep the namespace, so the
 * pairs of living stacks outlast viaductd, and vanish with the last of them.
 */
#ifndef VD_CELLAR_H
#define VD_CELLAR_H

struct cellar;

/* 0 or -errno (it takes CAP_SYS_ADMIN). */
int cellar_start(struct cellar **c);
/* Run what(arg) there; its result. */
int cellar_call(struct cellar *c, int (*what)(void *), void *arg);
/* Descriptor of the namespace where cellar_start was called. */
int cellar_home(const struct cellar *c);
void cellar_stop(struct cellar *c);

#endif
