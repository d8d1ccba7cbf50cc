/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes pcapng (draft-ietf-opsawg-pcapng): one section, an interface per vNIC, a packet block per frame with its
 * direction. libpcap reads this format but does not write it.
 */
#ifndef VD_PCAPNG_H
#define VD_PCAPNG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* All return false when the stream has failed. */
bool pcapng_section(FILE *out, const char *hardware, const char *os, const char *program, const char *comment);
/* Interfaces are numbered from 0 in the order written. Ethernet, microseconds. */
bool pcapng_interface(FILE *out, uint32_t snap, const char *name, const char *comment);
/* comment: NULL none. */
bool pcapng_packet(FILE *out, uint32_t interface, uint64_t us, const uint8_t *bytes, uint32_t caplen, uint32_t len,
		   bool sent, const char *comment);
/* At the end: what was received and lost there. */
bool pcapng_statistics(FILE *out, uint32_t interface, uint64_t us, uint64_t received, uint64_t dropped);

#endif
