/* SPDX-License-Identifier: BSD-2-Clause */
/* What Linux says of its end (TCP_INFO). Apart, because the C library's TCP names and the engine's are the same. */
#ifndef TAP_KERNEL_H
#define TAP_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

struct kernel_tcp {
	bool timestamps, sack, wscale, ecn;
	uint32_t snd_wscale, rcv_wscale, snd_mss;
	uint32_t delivered_ce; /* segments that the other end said came with CE */
};

/* False: not a TCP socket. */
bool kernel_tcp_of(int fd, struct kernel_tcp *out);

#endif
