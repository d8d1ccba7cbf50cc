/* SPDX-License-Identifier: BSD-2-Clause */
/* See share.h. */
#include "daemon/share.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xdp/libxdp.h>

#include "daemon/steer_internal.h"

#define RUN_PRIORITY 20 /* before those that set none (50): what stacks have is no longer anybody's to look at */

static int quiet(enum libxdp_print_level level, const char *format, va_list args)
{
	return level == LIBXDP_WARN && getenv("VIADUCTD_DEBUG") ? vfprintf(stderr, format, args) : 0;
}

void share_quiet(void)
{
	libxdp_set_print(quiet);
	/* where nobody has mounted the BPF file system */
	setenv("LIBXDP_BPFFS_AUTOMOUNT", "1", 0);
}

/* The object once more, for libxdp to load it in its way: over the same maps, with this program alone. */
static struct bpf_object *open_again(const struct steer *s)
{
	size_t size;
	const void *bytes = steer_bpf__elf_bytes(&size);
	struct bpf_object *obj = bpf_object__open_mem(bytes, size, NULL);
	struct bpf_program *prog;
	struct bpf_map *map;

	if (!obj)
		return NULL;
	bpf_object__for_each_map(map, obj)
	{
		struct bpf_map *ours = bpf_object__find_map_by_name(s->skel->obj, bpf_map__name(map));

		if (ours)
			bpf_map__reuse_fd(map, bpf_map__fd(ours));
	}
	bpf_object__for_each_program(prog, obj) bpf_program__set_autoload(
	    prog, !strcmp(bpf_program__name(prog), bpf_program__name(s->skel->progs.vd_steer2)));
	return obj;
}

int share_attach(struct steer *s, uint32_t device, bool *native, struct xdp_program **out)
{
	struct bpf_object *obj = open_again(s);
	struct xdp_program_opts opts = {
	    .sz = sizeof(opts), .obj = obj, .prog_name = bpf_program__name(s->skel->progs.vd_steer2)};
	struct xdp_program *prog;
	int rc;

	if (!obj)
		return -ENOMEM;
	prog = xdp_program__create(&opts);
	rc = (int)libxdp_get_error(prog);
	if (rc) {
		bpf_object__close(obj);
		return rc;
	}
	xdp_program__set_run_prio(prog, RUN_PRIORITY);
	rc = xdp_program__attach(prog, (int)device, XDP_MODE_NATIVE, 0);
	*native = !rc;
	if (rc == -EOPNOTSUPP)
		rc = xdp_program__attach(prog, (int)device, XDP_MODE_SKB, 0);
	if (rc)
		xdp_program__close(prog);
	else
		*out = prog;
	return rc;
}

void share_detach(struct xdp_program *prog, uint32_t device)
{
	enum xdp_attach_mode mode = xdp_program__is_attached(prog, (int)device);

	if (mode != XDP_MODE_UNSPEC)
		xdp_program__detach(prog, (int)device, mode, 0);
	xdp_program__close(prog);
}

static bool is_named(const struct xdp_program *prog, const char *name)
{
	return prog && !strcmp(xdp_program__name(prog), name);
}

struct xdp_program *share_find(uint32_t device, const char *name, bool *native)
{
	struct xdp_multiprog *all = xdp_multiprog__get_from_ifindex((int)device);
	struct xdp_program *at = NULL, *copy = NULL;

	if (libxdp_get_error(all))
		return NULL;
	/* without a dispatcher there is just the one */
	if (xdp_multiprog__is_legacy(all))
		at = xdp_multiprog__main_prog(all);
	else
		do
			at = xdp_multiprog__next_prog(at, all);
		while (at && !is_named(at, name));
	if (is_named(at, name))
		copy = xdp_program__from_id(xdp_program__id(at));
	*native = xdp_multiprog__attach_mode(all) == XDP_MODE_NATIVE;
	xdp_multiprog__close(all);
	return copy && !libxdp_get_error(copy) ? copy : NULL;
}

void share_forget(struct xdp_program *prog)
{
	xdp_program__close(prog);
}

uint32_t share_program_id(const struct xdp_program *prog)
{
	return xdp_program__id(prog);
}
