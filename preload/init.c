/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The start of the library in a program: real calls, knobs, clock, descriptor table. Without VIADUCT_ENABLE, or when a
 * knob is wrong, every call passes through to libc (fd_limit stays 0, so no descriptor is ours).
 */
#include <string.h>
#include <unistd.h>

#include "calls.h"
#include "fdtable.h"
#include "fork.h"
#include "heirs.h"
#include "host/host.h"
#include "host/knobs.h"
#include "host/rules.h"
#include "signals.h"
#include "stdio_streams.h"

static void complain(const char *text)
{
	static const char head[] = "viaduct: ";

	if (real.write(2, head, sizeof head - 1) < 0 || real.write(2, text, strlen(text)) < 0 ||
	    real.write(2, "\n", 1) < 0)
		return;
}

__attribute__((constructor(101))) static void init(void)
{
	char err[512];

	if (!real_ready)
		real_resolve();
	if (knobs_load(environ, err, sizeof err) < 0) {
		complain(err);
		return;
	}
	if (!knob[K_ENABLE])
		return;
	if (rules_load(err, sizeof err) < 0) {
		complain(err);
		return;
	}
	clock_init();
	signals_init();
	if (!fd_table_init()) {
		complain("no memory for the table of descriptors: nothing is accelerated");
		return;
	}
	vs_connect_in_kernel = connect_in_kernel;
	fork_init();
	streams_init();
	heirs_init();
	heirs_inherit();
}
