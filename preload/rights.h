/* SPDX-License-Identifier: BSD-2-Clause */
/* Accelerated sockets in messages of Unix sockets (SCM_RIGHTS, unix(7)); rights.c has the theory of operation. */
#ifndef VD_RIGHTS_H
#define VD_RIGHTS_H

#include <stdbool.h>
#include <sys/socket.h>

/* Does the message carry a descriptor of an accelerated socket? */
bool rights_ours(const struct msghdr *m);
/* Send it, on a socket of the kernel's. As sendmsg(2); EOPNOTSUPP: who gets it could do nothing with the connection. */
ssize_t rights_send(int fd, const struct msghdr *m, int flags);

/* May descriptors come with the next message? */
static inline bool rights_expected(const struct msghdr *m)
{
	return (uintptr_t)m >= 4096 && m->msg_control && m->msg_controllen >= CMSG_LEN(sizeof(int));
}

/* As recvmsg(2). */
ssize_t rights_receive(int fd, struct msghdr *m, int flags);

#endif
