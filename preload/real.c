/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libc's own functions behind the intercepted names, found with dlsym(RTLD_NEXT), and the table of real calls that
 * the lower layers use. Resolved once: by the constructor, or by a call that comes before it. The early call
 * comes while the dynamic linker runs constructors, so there is only one thread.
 *
 * Where libc stands before us (it is named first in LD_PRELOAD), nothing comes after us: then libc is asked by name.
 * Few of the program's calls reach us there, but those that do must work.
 */
#include <dlfcn.h>
#include <sys/syscall.h>

#include "calls.h"
#include "host/host.h"

struct real_calls real_table;
bool real_ready;

struct symbol {
	const char *name;
	void **where;
};

static const struct symbol symbols[] = {
#define CALL(ret, name, params, sentence) {#name, (void **)&real_table.name},
#define TWIN(name, target)
#include "calls.def"
#undef CALL
#undef TWIN
};

/* The casts: libc declares address parameters as a union of pointers, passed like one. */
static void fill_host_sys(void)
{
	host_sys.socket = real_table.socket;
	host_sys.bind = (void *)real_table.bind;
	host_sys.listen = real_table.listen;
	host_sys.accept4 = (void *)real_table.accept4;
	host_sys.connect = (void *)real_table.connect;
	host_sys.close = real_table.close;
	host_sys.getsockname = (void *)real_table.getsockname;
	host_sys.getpeername = (void *)real_table.getpeername;
	host_sys.getsockopt = real_table.getsockopt;
	host_sys.setsockopt = real_table.setsockopt;
	host_sys.shutdown = real_table.shutdown;
	host_sys.sendto = (void *)real_table.sendto;
	host_sys.sendmsg = real_table.sendmsg;
	host_sys.recvmsg = real_table.recvmsg;
	host_sys.read = real_table.read;
	host_sys.write = real_table.write;
	host_sys.poll = real_table.poll;
	host_sys.fcntl = real_table.fcntl;
	host_sys.epoll_create1 = real_table.epoll_create1;
	host_sys.epoll_ctl = real_table.epoll_ctl;
	host_sys.epoll_pwait = real_table.epoll_pwait;
	host_sys.sigmask = pthread_sigmask;
}

static void *find(const char *name)
{
	void *found = dlsym(RTLD_NEXT, name), *libc;

	if (found)
		return found;
	libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
	return libc ? dlsym(libc, name) : NULL;
}

void real_resolve(void)
{
	for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++)
		*symbols[i].where = find(symbols[i].name);
	fill_host_sys();
	real_ready = true;
}
