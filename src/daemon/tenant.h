/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stack as viaductd knows it: who owns it, its vNICs, its filters, the ports held for it. It exists from HELLO until
 * its processes are dead and its connections finished. All functions are the daemon's one thread's.
 */
#ifndef VD_TENANT_H
#define VD_TENANT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/cellar.h"
#include "daemon/filters.h"
#include "daemon/groups.h"
#include "daemon/mirror.h"
#include "daemon/policy.h"
#include "daemon/port.h"
#include "daemon/steer.h"

#define TENANT_VNICS 8u
#define TENANT_NO_NUMBER 0xffffffffu
#define TENANT_PROCESSES 64u /* as many as a stack has room for */

/* A stack's number in the maps. */
struct house_number {
	bool used;
	bool adopted; /* of an earlier viaductd's stack that was not heard of yet */
	uint32_t uid; /* adopted: whose */
};

/* The means that tenants share. */
struct house {
	struct policy policy;
	struct steer *steer;
	struct mirror *mirror;
	struct filters *filters;
	struct groups *groups; /* filters for groups: not among the others */
	struct cellar *cellar;
	struct tenant *tenant[STEER_STACKS]; /* by seat */
	struct house_number number[STEER_STACKS];
	uint32_t descriptors;      /* that we may have open */
	int epoll;                 /* of server.c: what is closed is taken out first, others may have it open too */
	struct own_rule *own_rule; /* own_queue.c */
	uint32_t own_rules;
	int sock; /* any socket of our network namespace, for ioctl */
	struct port_kernel kernel;
	uint64_t netns;      /* its cookie */
	int64_t queues_left; /* ms: when somebody has last left an interface's queues */
};

struct tenant_vnic {
	uint32_t ifindex; /* as the route names it; 0: free */
	uint32_t iface;   /* number in the maps */
	struct steer_if_key where;
	uint32_t below[MIRROR_BELOW], belows; /* devices that have the program for it */
	uint32_t sends;                       /* the device by which its frames leave */
	uint32_t outer;                       /* DAEMON_MODE_VETH: ifindex of the pair's end on our side */
	struct port port;
	struct xdp_port *rings; /* NULL where they can be mapped any time (rings.h) */
	struct daemon_vnic about;
};

/* A kernel socket that keeps a port taken. */
struct tenant_hold {
	int fd;           /* -1: free */
	uint32_t filters; /* that need it */
	uint32_t ports;   /* of those: not bound to one peer */
	uint8_t proto;
	uint16_t port;
	uint8_t addr[16];
};

struct tenant_filter {
	struct steer_key key[2]; /* an IPv6 socket may take IPv4 too */
	uint32_t keys;           /* 0: free */
	uint32_t hold;
	uint32_t next_free;
	uint32_t asker; /* connection that named it last; 0: gone */
	bool shared;
	struct daemon_filter asked;
	struct steer_key *kernel; /* flows at that port that stay the kernel's */
	int kernels;
};

struct tenant {
	struct house *house;
	uint32_t seat, uid;
	uint32_t number;               /* in the maps; TENANT_NO_NUMBER: nothing is there yet */
	pid_t pid;                     /* who said HELLO first */
	uint32_t clients;              /* connections */
	int memory;                    /* the stack's memfd; -1: an orphan that an earlier viaductd has started */
	int process[TENANT_PROCESSES]; /* pidfds, -1 free */
	pid_t process_pid[TENANT_PROCESSES];
	struct tenant_vnic vnic[TENANT_VNICS];
	struct tenant_hold *hold;
	uint32_t holds;
	struct tenant_filter *filter;               /* [id - 1] */
	uint32_t filters, filter_high, filter_free; /* in use; ever used; head of the free ones plus 1 */
	/* when its processes are gone (orphan.h) */
	pid_t orphan;                /* child that finishes the connections; 0 none */
	int orphan_fd, orphan_words; /* its pidfd; what it says, -1 when closed */
	uint64_t orphan_waits;       /* for nothing but the end of TIME-WAIT: as which in turn; 0 not */
};

/* A new tenant. NULL: no room. */
struct tenant *tenant_new(struct house *h, uint32_t uid, pid_t pid);
/* Removes all: filters, ports, rings. */
void tenant_free(struct tenant *t);
uint32_t tenants_of(const struct house *h, uint32_t uid);
/* The living stack of the user that has this memory; NULL none. */
struct tenant *tenant_of_memory(const struct house *h, uint32_t uid, int memory);
/* A connection of the stack's is gone. */
void tenant_client_gone(struct tenant *t, uint32_t asker);

/* Each of these returns 0 or -errno, and then *why, a sentence for the user. */
/* licence: see policy_direct. */
int tenant_open(struct tenant *t, const struct daemon_open *o, bool licence, struct tenant_vnic **made,
		const char **why);
/* Let frames through to the vNIC that was opened on the interface; when it can't be it is closed. */
int tenant_bind(struct tenant *t, uint32_t ifindex, struct tenant_vnic **made, const char **why);
/* Rings that exist: umem and sockets (-1: none) become the tenant's, or are closed. */
int tenant_resume(struct tenant *t, const struct daemon_vnic *about, int umem, const int xsk[DAEMON_QUEUES_MAX],
		  struct tenant_vnic **made, const char **why);
/* The vNIC on the interface, if its first AF_XDP socket is this one; NULL: not. */
struct tenant_vnic *tenant_has_rings(struct tenant *t, const struct daemon_vnic *about, int xsk);
/* fd: the socket that owns the port, the tenant's from now on (closed on failure); -1: none. The id. */
int tenant_filter_add(struct tenant *t, const struct daemon_filter *f, int fd, const char **why);
int tenant_filter_del(struct tenant *t, uint32_t id);
/*
 * A TCP port that is bound and does not listen may be bound, and served, by others too (SO_REUSEADDR), after the filter
 * was made: where another user does, the filter goes. Users who may have anybody's frames anyway are not looked at.
 * Returns whether there are filters that this may concern, so that it is worth calling again.
 */
bool house_check_ports(struct house *h);
/* A flow that an earlier viaductd steered to this stack, by itself or with its port: no socket is left to be shown. */
int tenant_filter_inherit(struct tenant *t, const struct daemon_filter *f);
/* Who has named it: the connection's number. */
void tenant_filter_name(struct tenant *t, uint32_t id, uint32_t asker);
/* The filters whose asker is gone become this one's, as many as *out has room for. */
void tenant_inherit(struct tenant *t, uint32_t asker, struct daemon_inherited *out);
/* Delete those whose asker is gone: he has come again, and named what he knows of. */
void tenant_forget_unnamed(struct tenant *t);
/* A process that keeps the stack alive. Its place, or -EEXIST: it does so already. */
int tenant_process(struct tenant *t, int pidfd, const char **why);
void tenant_process_gone(struct tenant *t, uint32_t at);

/* tenant_device.c: the program on all devices below the interface, and a number for the interface. 0 or -errno. */
int tenant_devices_open(struct tenant *t, struct tenant_vnic *v, const struct netview_iface *f, bool *native,
			const char **why);
void tenant_devices_close(struct tenant *t, struct tenant_vnic *v);
/* Some may have come or gone. */
void tenant_devices_follow(struct tenant *t, struct tenant_vnic *v, const struct netview_iface *f);

/* A number for the tenant, if it has none. -ENOSPC. */
int tenant_number(struct tenant *t);
const struct netview_iface *house_iface(const struct house *h, uint32_t ifindex);
/* A free place for a vNIC on the interface; NULL: there is one, or too many. */
struct tenant_vnic *tenant_vnic_place(struct tenant *t, uint32_t ifindex);
/* Let the veth's outer end know whose it is. 0 or -errno. */
int tenant_veth_set(struct tenant *t, struct tenant_vnic *v);

/* The mirror's view has changed: addresses, MACs, interfaces that are gone. */
void house_view(struct house *h);
/* Somebody has just left an interface's queues, or may have: the kernel frees them a little later. */
void house_queues_left(struct house *h);
/* Whose stack has the port of an AF_XDP socket with this cookie; -ENOENT: none that nobody has come for. */
int house_adopted_uid(const struct house *h, uint64_t cookie, uint32_t *uid);
/* What an earlier viaductd left in the maps (resume.c): its stacks' numbers are kept for them. 0 or -errno. */
int house_adopt(struct house *h);
/* Stacks of an earlier viaductd that have not come by now are gone, with all that they had. */
void house_sweep(struct house *h);

/* Is fd a socket that owns the filter's local end, in the namespace? 0; -EINVAL, -EPERM with *why. */
int tenant_socket_check(int fd, const struct daemon_filter *f, uint64_t netns, const char **why);
/* The keys of a filter: 1 or 2; 0: it makes no sense. */
uint32_t tenant_keys(const struct daemon_filter *f, struct steer_key key[2]);

#endif
