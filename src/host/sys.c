/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The real calls, libc's own until somebody replaces them. The preload library, which interposes these very
 * names, fills the table with dlsym(RTLD_NEXT) before its first use; programs that link the layers (the
 * command, the tests) use it as it is.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <fcntl.h>
#include <unistd.h>

struct host_sys host_sys = {
    .socket = socket,
    .bind = bind,
    .listen = listen,
    .accept4 = accept4,
    .connect = connect,
    .close = close,
    .getsockname = getsockname,
    .getpeername = getpeername,
    .getsockopt = getsockopt,
    .setsockopt = setsockopt,
    .shutdown = shutdown,
    .sendto = sendto,
    .sendmsg = sendmsg,
    .recvmsg = recvmsg,
    .read = read,
    .write = write,
    .poll = poll,
    .fcntl = fcntl,
    .epoll_create1 = epoll_create1,
    .epoll_ctl = epoll_ctl,
    .epoll_pwait = epoll_pwait,
    .sigmask = pthread_sigmask,
};
