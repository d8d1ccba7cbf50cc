/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See privileges.h. Kept: CAP_NET_ADMIN (attach XDP programs, make veths), CAP_NET_RAW (AF_XDP sockets), CAP_BPF (write
 * maps, and with CAP_NET_ADMIN update links). Not kept: CAP_SYS_ADMIN, which only finding an earlier viaductd's maps,
 * mounting the links' file system and the cellar took (libxdp's dispatcher, --share, takes it and CAP_PERFMON for each
 * program that it loads); CAP_SYS_RESOURCE; CAP_IPC_LOCK where the limit on pinned memory could be raised.
 */
#include "daemon/privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DESCRIPTORS 262144

static const int kept[] = {CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF};
static bool memory_limited;

void privileges_start(void)
{
	struct rlimit memory = {RLIM_INFINITY, RLIM_INFINITY}, files = {DESCRIPTORS, DESCRIPTORS}, core = {0, 0};

	setrlimit(RLIMIT_CORE, &core);
	/* what can't be raised stays: the kernel then says so where it matters */
	if (setrlimit(RLIMIT_NOFILE, &files) && !getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	memory_limited = setrlimit(RLIMIT_MEMLOCK, &memory);
}

uint32_t privileges_descriptors(void)
{
	struct rlimit files;

	return getrlimit(RLIMIT_NOFILE, &files) || files.rlim_cur > DESCRIPTORS ? DESCRIPTORS
										: (uint32_t)files.rlim_cur;
}

static int set_capabilities(uint64_t set)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {
	    {.effective = (uint32_t)set, .permitted = (uint32_t)set},
	    {.effective = (uint32_t)(set >> 32), .permitted = (uint32_t)(set >> 32)},
	};

	return syscall(SYS_capset, &head, data) ? -errno : 0;
}

int privileges_drop(bool share)
{
	uint64_t set = 0;

	for (unsigned int i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		set |= 1ull << kept[i];
	if (share)
		set |= 1ull << CAP_SYS_ADMIN | 1ull << CAP_PERFMON;
	if (memory_limited)
		set |= 1ull << CAP_IPC_LOCK;
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (!(set & 1ull << cap) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))
			return -errno;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return set_capabilities(set);
}
