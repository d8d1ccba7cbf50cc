/* SPDX-License-Identifier: BSD-2-Clause */
/* See tap_kernel.h. */
#include "tap_kernel.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

bool kernel_tcp_of(int fd, struct kernel_tcp *out)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	memset(&info, 0, sizeof(info));
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return false;
	*out = (struct kernel_tcp){.timestamps = info.tcpi_options & TCPI_OPT_TIMESTAMPS,
				   .sack = info.tcpi_options & TCPI_OPT_SACK,
				   .wscale = info.tcpi_options & TCPI_OPT_WSCALE,
				   .ecn = info.tcpi_options & TCPI_OPT_ECN,
				   .delivered_ce = info.tcpi_delivered_ce,
				   .snd_wscale = info.tcpi_snd_wscale,
				   .rcv_wscale = info.tcpi_rcv_wscale,
				   .snd_mss = info.tcpi_snd_mss};
	return true;
}
