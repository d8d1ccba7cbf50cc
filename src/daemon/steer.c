/* SPDX-License-Identifier: BSD-2-Clause */
/* Loading and attaching; what is in the maps is steer_maps.c's. See steer.h. */
#include "daemon/share.h"
#include "daemon/steer_internal.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <linux/mount.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <fcntl.h>

#define PROGRAM_MAPS 32
#define DISPATCHER "xdp_dispatcher" /* libxdp's, which calls ours and others' */
#define LINK_DYING_MS 2000          /* the kernel frees a link that nobody holds a little later */
#define LINK_STEP_MS 5

#ifndef XDP_USE_SG
#define XDP_USE_SG (1 << 4) /* Linux 6.6 */
#endif

/* --- the directory that holds the links --- */

static int keep_make(void)
{
	int fs = (int)syscall(SYS_fsopen, "bpf", FSOPEN_CLOEXEC), mount, dir;

	if (fs < 0)
		return -errno;
	if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "mode", "0700", 0) ||
	    syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0)) {
		close(fs);
		return -errno;
	}
	mount = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	close(fs);
	if (mount < 0)
		return -errno;
	/* the mount goes with its descriptor, its files stay with the directory's */
	dir = openat(mount, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		dir = -errno;
	close(mount);
	return dir;
}

/* kind: if (a device, by ifindex) or port (a veth's inner end, by number). */
static void link_path(const struct steer *s, const char *kind, uint32_t number, char *path, size_t size)
{
	snprintf(path, size, "/proc/self/fd/%d/%s%u", s->keep, kind, number);
}

/* --- an earlier viaductd --- */

/* The program's descriptor, its name and the numbers of its maps. -errno. */
static int open_program(uint32_t id, struct bpf_prog_info *info, uint32_t maps[PROGRAM_MAPS])
{
	uint32_t len = sizeof(*info);
	int fd = bpf_prog_get_fd_by_id(id);

	if (fd < 0)
		return -errno;
	*info = (struct bpf_prog_info){.nr_map_ids = PROGRAM_MAPS, .map_ids = (uint64_t)(uintptr_t)maps};
	if (!bpf_obj_get_info_by_fd(fd, info, &len)) {
		if (info->nr_map_ids > PROGRAM_MAPS)
			info->nr_map_ids = PROGRAM_MAPS;
		return fd;
	}
	close(fd);
	return -ENOENT;
}

/* Go on with the maps of these numbers. */
static void adopt_maps(struct steer *s, const uint32_t *ids, uint32_t count)
{
	struct bpf_map *map;

	for (uint32_t i = 0; i < count; i++) {
		struct bpf_map_info info = {0};
		uint32_t len = sizeof(info);
		int fd = bpf_map_get_fd_by_id(ids[i]);

		if (fd < 0)
			continue;
		bpf_obj_get_info_by_fd(fd, &info, &len);
		bpf_object__for_each_map(map, s->skel->obj)
		{
			if (strcmp(bpf_map__name(map), info.name) != 0 || bpf_map__reuse_fd(map, fd))
				continue;
			s->adopted = true;
			if (map == s->skel->maps.vd_xsks)
				s->adopted_xsks = info.id;
		}
		close(fd);
	}
}

static struct device *device_slot(struct steer *s, uint32_t ifindex)
{
	for (int i = 0; i < STEER_DEVICES; i++)
		if (s->device[i].ifindex == ifindex)
			return &s->device[i];
	return NULL;
}

/* Ours on the device, alone or among others: 0 none. */
static uint32_t program_on(struct steer *s, uint32_t ifindex)
{
	const char *name = bpf_program__name(s->skel->progs.vd_steer2);
	uint32_t id = 0, maps[PROGRAM_MAPS];
	struct xdp_program *shared;
	struct bpf_prog_info info;
	bool native;
	int fd;

	if (bpf_xdp_query_id((int)ifindex, 0, &id) || !id)
		return 0;
	fd = open_program(id, &info, maps);
	if (fd >= 0)
		close(fd);
	if (fd >= 0 && !strcmp(info.name, name))
		return id;
	/* libxdp keeps descriptors of other programs that it has looked at */
	if (fd < 0 || strcmp(info.name, DISPATCHER) != 0)
		return 0;
	shared = share_find(ifindex, name, &native);
	if (!shared)
		return 0;
	id = share_program_id(shared);
	share_forget(shared);
	return id;
}

/* Some interface has our program: its maps. The maps that only the others use are not among them, but all that matters
 * of those is written anew. */
static void find_maps(struct steer *s)
{
	struct if_nameindex *all = if_nameindex();

	for (struct if_nameindex *i = all; i && i->if_index && !s->adopted; i++) {
		uint32_t id = program_on(s, i->if_index), maps[PROGRAM_MAPS];
		struct bpf_prog_info info;
		int fd = id ? open_program(id, &info, maps) : -1;

		if (fd < 0)
			continue;
		adopt_maps(s, maps, info.nr_map_ids);
		close(fd);
	}
	if_freenameindex(all);
}

/* A link whose program uses our maps: our program in its place, and it is held with ours. */
static bool take_link(struct steer *s, int link, const char *program, uint32_t ifindex)
{
	bool steer = !strcmp(program, bpf_program__name(s->skel->progs.vd_steer2));
	struct bpf_program *ours = steer ? s->skel->progs.vd_steer2 : s->skel->progs.vd_inner2;
	struct bpf_xdp_query_opts q = {.sz = sizeof(q)};
	struct device *d = steer ? device_slot(s, 0) : NULL;
	char path[64];

	if (bpf_link_update(link, bpf_program__fd(ours), NULL))
		return false;
	link_path(s, steer ? "if" : "port", steer ? ifindex : ifindex - STEER_INNER, path, sizeof(path));
	bpf_obj_pin(link, path);
	if (!d)
		return false;
	*d = (struct device){.ifindex = ifindex, .link = link};
	if (!bpf_xdp_query((int)ifindex, 0, &q))
		d->native = q.attach_mode == XDP_ATTACHED_DRV;
	return true;
}

static bool uses_our_maps(const struct steer *s, const uint32_t *maps, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (maps[i] == s->adopted_xsks)
			return true;
	return false;
}

/* True if the link's descriptor is kept. */
static bool look_at_link(struct steer *s, int link)
{
	struct bpf_link_info info = {0};
	uint32_t len = sizeof(info), maps[PROGRAM_MAPS];
	struct bpf_prog_info prog;
	int fd;

	if (bpf_obj_get_info_by_fd(link, &info, &len) || info.type != BPF_LINK_TYPE_XDP || !info.xdp.ifindex)
		return false;
	fd = open_program(info.prog_id, &prog, maps);
	if (fd < 0)
		return false;
	close(fd);
	return uses_our_maps(s, maps, prog.nr_map_ids) && take_link(s, link, prog.name, info.xdp.ifindex);
}

static void take_links(struct steer *s)
{
	uint32_t id = 0;

	while (s->adopted && !bpf_link_get_next_id(id, &id)) {
		int fd = bpf_link_get_fd_by_id(id);

		if (fd >= 0 && !look_at_link(s, fd))
			close(fd);
	}
}

/* Is our program there by a link? Then the kernel won't have it replaced by itself in the other way. */
static bool by_link(uint32_t ifindex, uint32_t id)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, q);
	LIBBPF_OPTS(bpf_xdp_attach_opts, opts);
	int fd = bpf_prog_get_fd_by_id(id), rc = -ENOENT;

	opts.old_prog_fd = fd;
	if (fd >= 0 && !bpf_xdp_query((int)ifindex, 0, &q))
		rc = bpf_xdp_attach((int)ifindex, fd,
				    XDP_FLAGS_REPLACE |
					(q.attach_mode == XDP_ATTACHED_DRV ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE),
				    &opts);
	if (fd >= 0)
		close(fd);
	return rc == -EBUSY;
}

/* A link whose last holder has just died is not to be found any more, while its program is still on the interface. True
 * if that is so; it is gone then. */
static bool was_dying(struct steer *s, uint32_t ifindex)
{
	uint32_t id = 0;

	if (bpf_xdp_query_id((int)ifindex, 0, &id) || !id || program_on(s, ifindex) != id || !by_link(ifindex, id))
		return false;
	for (uint32_t ms = 0; id && ms < LINK_DYING_MS; ms += LINK_STEP_MS) {
		usleep(LINK_STEP_MS * 1000);
		if (bpf_xdp_query_id((int)ifindex, 0, &id))
			id = 0;
	}
	return true;
}

/* What no link holds was attached by libxdp. It stays as it is. */
static void take_shared(struct steer *s)
{
	struct if_nameindex *all = if_nameindex();

	for (struct if_nameindex *i = all; i && i->if_index && s->adopted; i++) {
		struct device *d = device_slot(s, i->if_index) ? NULL : device_slot(s, 0);
		struct xdp_program *shared;
		bool native;

		if (!d || !program_on(s, i->if_index) || was_dying(s, i->if_index))
			continue;
		shared = share_find(i->if_index, bpf_program__name(s->skel->progs.vd_steer2), &native);
		if (shared)
			*d = (struct device){.ifindex = i->if_index, .link = -1, .shared = shared, .native = native};
	}
	if_freenameindex(all);
}

/* --- start and stop --- */

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	return level == LIBBPF_WARN && getenv("VIADUCTD_DEBUG") ? vfprintf(stderr, format, args) : 0;
}

int steer_start(struct steer **out, bool share, bool native, const char **why)
{
	struct steer *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return -ENOMEM;
	s->share = share;
	s->native = native;
	libbpf_set_print(quiet);
	share_quiet();
	*why = "this kernel, or this user, has no BPF file system (CAP_SYS_ADMIN is needed at the start)";
	s->keep = keep_make();
	rc = s->keep;
	if (rc >= 0) {
		*why =
		    "the kernel does not take the steering program (CAP_BPF, CAP_NET_ADMIN and Linux 5.18 are needed)";
		s->skel = steer_bpf__open();
		rc = s->skel ? 0 : -errno;
	}
	if (!rc) {
		find_maps(s);
		rc = steer_bpf__load(s->skel);
	}
	if (rc) {
		steer_stop(s);
		return rc;
	}
	take_links(s);
	take_shared(s);
	*out = s;
	return 0;
}

void steer_stop(struct steer *s)
{
	for (int i = 0; i < STEER_DEVICES; i++)
		if (s->device[i].shared)
			share_forget(s->device[i].shared);
		else if (s->device[i].ifindex)
			close(s->device[i].link);
	if (s->table)
		munmap(s->table, DAEMON_FLOW_SETS * sizeof(*s->table));
	if (s->skel)
		steer_bpf__destroy(s->skel);
	if (s->keep >= 0)
		close(s->keep);
	free(s);
}

bool steer_adopted(const struct steer *s)
{
	return s->adopted;
}

int steer_program(const struct steer *s)
{
	return bpf_program__fd(s->skel->progs.vd_steer2);
}

int steer_keep(const struct steer *s)
{
	return s->keep;
}

/* --- on devices --- */

/* -ENODEV only if it knows the flag, which it looks at before it looks for the device: since Linux 6.6. */
static bool kernel_scatters(void)
{
	struct sockaddr_xdp nowhere = {.sxdp_family = AF_XDP, .sxdp_flags = XDP_USE_SG, .sxdp_ifindex = INT32_MAX};
	int xsk = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0), rc;

	if (xsk < 0)
		return false;
	rc = bind(xsk, (struct sockaddr *)&nowhere, sizeof(nowhere)) ? -errno : 0;
	close(xsk);
	return rc == -ENODEV;
}

static bool is_veth(uint32_t ifindex)
{
	struct ethtool_drvinfo driver = {.cmd = ETHTOOL_GDRVINFO};
	struct ifreq ifr = {.ifr_data = (void *)&driver};
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool veth = sock >= 0 && if_indextoname(ifindex, ifr.ifr_name) && !ioctl(sock, SIOCETHTOOL, &ifr) &&
		    !strcmp(driver.driver, "veth");

	if (sock >= 0)
		close(sock);
	return veth;
}

/*
 * XDP in the driver of a veth costs more than generic XDP does: each frame is copied once more, goes by way of NAPI,
 * and the other end's kernel may no longer send large segments. Which come in pieces: without XDP_USE_SG they would be
 * dropped.
 */
static bool generic_is_better(const struct steer *s, uint32_t ifindex)
{
	return !s->native && is_veth(ifindex) && kernel_scatters();
}

static int attach_new(struct steer *s, struct device *d, uint32_t ifindex)
{
	int prog = bpf_program__fd(s->skel->progs.vd_steer2), link;
	struct bpf_link_create_opts opts = {.sz = sizeof(opts), .flags = XDP_FLAGS_DRV_MODE};
	char path[64];

	if (s->share) {
		int err = share_attach(s, ifindex, &d->native, &d->shared);

		d->ifindex = err ? 0 : ifindex;
		d->link = -1;
		return err;
	}
	if (generic_is_better(s, ifindex))
		link = -EOPNOTSUPP;
	else
		link = bpf_link_create(prog, (int)ifindex, BPF_XDP, &opts);
	d->native = link >= 0;
	if (link == -EOPNOTSUPP || link == -EINVAL) {
		opts.flags = XDP_FLAGS_SKB_MODE;
		link = bpf_link_create(prog, (int)ifindex, BPF_XDP, &opts);
	}
	if (link < 0)
		return link == -EEXIST ? -EBUSY : link;
	d->ifindex = ifindex;
	d->link = link;
	link_path(s, "if", ifindex, path, sizeof(path));
	if (!bpf_obj_pin(link, path))
		return 0;
	int rc = -errno;

	*d = (struct device){0};
	close(link);
	return rc;
}

int steer_attach(struct steer *s, uint32_t ifindex, bool *native)
{
	struct device *d = device_slot(s, ifindex);

	if (!d) {
		int rc;

		d = device_slot(s, 0);
		if (!d)
			return -ENOSPC;
		rc = attach_new(s, d, ifindex);
		if (rc)
			return rc;
	}
	d->uses++;
	*native = d->native;
	return 0;
}

bool steer_by_skb(struct steer *s, uint32_t device)
{
	const struct device *d = device_slot(s, device);

	return d && !d->native && is_veth(device);
}

static void let_go(struct steer *s, struct device *d)
{
	char path[64];

	if (d->shared) {
		share_detach(d->shared, d->ifindex);
	} else {
		/* at once: left to the last who holds it, it would be in the way of the next for a while */
		bpf_link_detach(d->link);
		link_path(s, "if", d->ifindex, path, sizeof(path));
		unlink(path);
		close(d->link);
	}
	*d = (struct device){0};
}

void steer_detach(struct steer *s, uint32_t ifindex)
{
	struct device *d = device_slot(s, ifindex);

	if (d && d->uses && !--d->uses)
		let_go(s, d);
}

void steer_settle(struct steer *s)
{
	for (int i = 0; i < STEER_DEVICES; i++)
		if (s->device[i].ifindex && !s->device[i].uses)
			let_go(s, &s->device[i]);
}

int steer_attach_inner(struct steer *s, uint32_t at)
{
	struct bpf_link_create_opts opts = {.sz = sizeof(opts), .flags = XDP_FLAGS_DRV_MODE};
	int prog = bpf_program__fd(s->skel->progs.vd_inner2), rc = 0;
	int link = bpf_link_create(prog, (int)(STEER_INNER + at), BPF_XDP, &opts);
	char path[64];

	if (link < 0)
		return link;
	link_path(s, "port", at, path, sizeof(path));
	if (bpf_obj_pin(link, path))
		rc = -errno;
	close(link);
	return rc;
}

void steer_detach_inner(struct steer *s, uint32_t at)
{
	char path[64];

	link_path(s, "port", at, path, sizeof(path));
	unlink(path);
}

static int attach_tc(uint32_t ifindex, enum bpf_tc_attach_point point, const struct bpf_program *prog)
{
	struct bpf_tc_hook hook = {.sz = sizeof(hook), .ifindex = (int)ifindex, .attach_point = point};
	struct bpf_tc_opts opts = {.sz = sizeof(opts),
				   .handle = 1,
				   .priority = 1,
				   .flags = BPF_TC_F_REPLACE,
				   .prog_fd = bpf_program__fd(prog)};
	int rc = bpf_tc_hook_create(&hook);

	return rc && rc != -EEXIST ? rc : bpf_tc_attach(&hook, &opts);
}

int steer_attach_outer(struct steer *s, uint32_t ifindex, uint32_t device)
{
	int rc;

	if (steer_by_skb(s, device))
		rc = bpf_xdp_attach((int)ifindex, bpf_program__fd(s->skel->progs.vd_outerskb2), XDP_FLAGS_SKB_MODE,
				    NULL);
	else
		rc = attach_tc(ifindex, BPF_TC_INGRESS, s->skel->progs.vd_outer2);
	return rc ? rc : attach_tc(ifindex, BPF_TC_EGRESS, s->skel->progs.vd_shut2);
}
