/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stacks seen from outside: found through /proc/PID/fd, read with pread from their memfd.
 *
 * Reading, not mapping: a page that was never used stays unused, a region that shrinks under us gives a short read and
 * not SIGBUS, and the program is not touched at all. It goes on meanwhile, so what is read may be torn, and it
 * may be another user's: the header is copied once and checked (stack_check), all else is bounded by that copy.
 */
#ifndef VD_CLI_VIEW_H
#define VD_CLI_VIEW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/stack.h"

struct view {
	struct stack *s; /* our copy of the header */
	int fd;
	uint64_t inode; /* of the memfd: tells two views of one stack */
	uint32_t socks; /* socket slots ever used, slot 0 included */
};

struct views {
	struct view *list;
	unsigned count;
	unsigned denied;  /* processes that we may not look into */
	unsigned foreign; /* memfds of that name that are no stack of this version */
};

/* All stacks that a process has open. Adds to v those that it does not have yet. 0, or -errno of /proc/PID/fd. */
int views_of_process(struct views *v, pid_t pid);
/* All stacks on the machine, as far as we may look. */
void views_of_all(struct views *v);
void views_free(struct views *v);

/* None of its processes lives: viaductd, which has it open, finishes its connections. */
bool view_orphan(const struct view *w);

/* Call each() for every socket in use; *k is a copy with its fields as they were, not checked further. */
void view_each_sock(const struct view *w, void (*each)(void *arg, uint32_t index, const struct sock *k), void *arg);
bool view_sock(const struct view *w, uint32_t index, struct sock *out);
/* A vNIC in use. */
bool view_vnic(const struct view *w, uint32_t index, struct vnic_state *out);
/* What the creator's descriptor is; kind FD_OTHER if not known. */
struct stack_fdinfo view_fdinfo(const struct view *w, int fd);

/* --- /proc --- */

/* The command's name, "?" if it is gone. */
void proc_name(pid_t pid, char out[32]);
bool proc_exists(pid_t pid);

/* --- text --- */

/* "127.0.0.1:80", "[::1]:80", "*:80". */
void endpoint_text(const struct endpoint *ep, char *out, size_t len);
/* ESTABLISHED..., or "-" for UDP. */
const char *state_text(const struct sock *k);
const char *provider_text(unsigned provider);
/* What the vNIC of a stack leads to: "redis-server (77)", or "interface eth0, queue 0". */
void vnic_text(const struct view *w, const struct vnic_state *v, char *out, size_t len);
/* Copy with every byte that could upset a terminal replaced by "?". */
void safe_text(const char *from, size_t from_len, char *out, size_t len);

#endif
