/* SPDX-License-Identifier: BSD-2-Clause */
/* viaduct stat: stacks, processes, sockets, vNICs and counters, as text or JSON. See view.h for how it looks. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/commands.h"
#include "cli/json.h"
#include "cli/view.h"
#include "host/host.h"
#include "host/viaductd.h"

/* Bytes. A FIN is none, though it has a number: when it is acknowledged snd_una is beyond the last byte. */
static uint32_t unacknowledged(const struct sock *k)
{
	if (k->proto != SOCK_TCP || k->tcp.state == TCP_LISTEN)
		return 0;
	return (int32_t)(k->tcp.snd_end - k->tcp.snd_una) > 0 ? k->tcp.snd_end - k->tcp.snd_una : 0;
}

/* A listener's queues are connections, as ss(8) has them. */
static uint32_t recv_queue(const struct sock *k)
{
	return k->proto == SOCK_TCP && k->tcp.state == TCP_LISTEN ? k->tcp.accept_count : k->rxq.bytes;
}

static uint32_t send_queue(const struct sock *k)
{
	return k->proto == SOCK_TCP && k->tcp.state == TCP_LISTEN ? k->tcp.backlog : unacknowledged(k);
}

/* --- what viaductd knows --- */

#define ANSWER_MS 2000

/* Of a stack that has vNICs on interfaces, from this network namespace's viaductd. False: it does not know it. */
static bool ask_viaductd(const struct view *w, struct daemon_stack *out)
{
	static int fd = -1;
	static struct viaductd_reply reply;
	struct daemon_stack_ask body = {.inode = w->inode};
	struct viaductd_request r = {.type = DAEMON_STACK, .body = &body, .len = sizeof(body)};
	if (fd < 0)
		fd = viaductd_connect();
	if (fd < 0 || viaductd_ask(fd, &r, ANSWER_MS, &reply) < 0) {
		/* after any other error than a refusal it is of no more use */
		if (fd >= 0 && !reply.refused) {
			close(fd);
			fd = -1;
		}
		return false;
	}
	memcpy(out, reply.body, sizeof(*out));
	viaductd_reply_drop(&reply);
	return out->vnics && out->vnics <= DAEMON_STACK_VNICS;
}

static const char *interface_name(uint32_t ifindex, char out[IF_NAMESIZE])
{
	if (!if_indextoname(ifindex, out))
		snprintf(out, IF_NAMESIZE, "%u", ifindex);
	return out;
}

/* --- text --- */

static void print_sock(void *arg, uint32_t index, const struct sock *k)
{
	char local[64], remote[64], vnic[16] = "-";
	int *lines = arg;
	if (!(*lines)++)
		printf("  %6s  %-5s %-12s %9s %9s  %-24s %-24s %s\n", "socket", "proto", "state", "recv-q", "send-q",
		       "local", "remote", "vnic");
	endpoint_text(&k->local, local, sizeof(local));
	endpoint_text(&k->remote, remote, sizeof(remote));
	if (k->vnic < VNIC_MAX)
		snprintf(vnic, sizeof(vnic), "%u", k->vnic);
	printf("  %6u  %-5s %-12s %9u %9u  %-24s %-24s %s\n", index, k->proto == SOCK_TCP ? "tcp" : "udp",
	       state_text(k), recv_queue(k), send_queue(k), local, remote, vnic);
}

static void print_vnics(const struct view *w)
{
	for (uint32_t i = 0; i < VNIC_MAX; i++) {
		struct vnic_state v;
		char end[64];
		if (!view_vnic(w, i, &v))
			continue;
		vnic_text(w, &v, end, sizeof(end));
		printf("  vnic %u: %s to %s%s, sent %" PRIu64 " frames %" PRIu64 " bytes, received %" PRIu64
		       " frames %" PRIu64 " bytes, doorbells %" PRIu64 "\n",
		       i, provider_text(v.provider), end, v.dead ? ", dead" : "", v.stats.tx_frames, v.stats.tx_bytes,
		       v.stats.rx_frames, v.stats.rx_bytes, v.stats.doorbells);
		if (v.stats.tx_no_buffer || v.stats.bad_desc || v.stats.bad_return || v.stats.bad_reuse)
			printf("    without a free buffer %" PRIu64 ", bad descriptors %" PRIu64
			       ", bad returns %" PRIu64 ", buffers sent twice %" PRIu64 "\n",
			       v.stats.tx_no_buffer, v.stats.bad_desc, v.stats.bad_return, v.stats.bad_reuse);
	}
}

static void print_interfaces(const struct view *w, bool explain)
{
	struct daemon_stack d;
	char name[IF_NAMESIZE];
	if (!ask_viaductd(w, &d))
		return;
	for (uint32_t i = 0; i < d.vnics; i++) {
		interface_name(d.vnic[i].ifindex, name);
		if (d.vnic[i].mode == DAEMON_MODE_DIRECT)
			printf("  interface %s: its own queues (direct), %u from %u on\n", name, d.vnic[i].queues,
			       d.vnic[i].first);
		else
			printf("  interface %s: behind a veth, let out %" PRIu64 " frames, refused %" PRIu64 "\n", name,
			       d.vnic[i].sent, d.vnic[i].refused);
	}
	if (explain)
		printf(
		    "  refused: frames that the stack sent, and that are not from a port or flow that it has, or not "
		    "from the interface's address; they were dropped.\n");
}

static void print_counters(const struct stack *s, bool explain)
{
	for (int i = 0; i < COUNTER_COUNT; i++) {
		if (!explain && !s->counters[i])
			continue;
		printf("  %-28s %12" PRIu64 "%s%s\n", counter_info[i].name, s->counters[i], explain ? "  " : "",
		       explain ? counter_info[i].sentence : "");
	}
}

static void print_view(const struct view *w, bool explain)
{
	const struct stack *s = w->s;
	char program[sizeof(s->program) + 1];
	int lines = 0;
	safe_text(s->program, sizeof(s->program), program, sizeof(program));
	printf("%s (stack of process %u)\n  processes:", program, s->creator_pid);
	for (unsigned i = 0; i < PROC_MAX; i++)
		if (s->proc[i].pid)
			printf(" %u", s->proc[i].pid);
	if (view_orphan(w))
		printf(" (ended; viaductd finishes the connections)");
	printf("\n  sockets in use %u of %u, packets %u of %u, private buffers %u of %u\n", s->sock_pool.in_use,
	       s->cfg.max_socks - 1, s->pkt_pool.in_use, s->cfg.max_pkts - 1, s->private_pool.in_use,
	       s->cfg.max_private - 1);
	if (s->lock.repairs)
		printf("  lock taken over from a dead thread %u times\n", s->lock.repairs);
	view_each_sock(w, print_sock, &lines);
	print_vnics(w);
	print_interfaces(w, explain);
	print_counters(s, explain);
}

/* --- JSON --- */

static void json_sock(void *arg, uint32_t index, const struct sock *k)
{
	char local[64], remote[64];
	(void)arg;
	endpoint_text(&k->local, local, sizeof(local));
	endpoint_text(&k->remote, remote, sizeof(remote));
	json_open(NULL, '{');
	json_number("index", index);
	json_string("protocol", k->proto == SOCK_TCP ? "tcp" : "udp");
	if (k->proto == SOCK_TCP)
		json_string("state", state_text(k));
	json_string("local", local);
	json_string("remote", remote);
	json_number("recv_queue", recv_queue(k));
	json_number("send_queue", send_queue(k));
	json_number("rx_bytes", k->proto == SOCK_TCP ? k->tcp.bytes_received : k->rx_bytes);
	json_number("tx_bytes", k->proto == SOCK_TCP ? k->tcp.bytes_sent : k->tx_bytes);
	if (k->vnic < VNIC_MAX)
		json_number("vnic", k->vnic);
	if (k->proto == SOCK_TCP && k->tcp.state != TCP_LISTEN) {
		json_number("srtt_us", k->tcp.srtt_us);
		json_number("rto_us", k->tcp.rto_us);
		json_number("cwnd", k->tcp.cwnd);
		json_number("mss", k->tcp.mss);
		json_number("retransmissions", k->tcp.retrans_total);
	}
	json_number("inode", k->inode);
	json_close('}');
}

static void json_vnics(const struct view *w)
{
	json_open("vnics", '[');
	for (uint32_t i = 0; i < VNIC_MAX; i++) {
		struct vnic_state v;
		if (!view_vnic(w, i, &v))
			continue;
		json_open(NULL, '{');
		json_number("index", i);
		json_string("provider", provider_text(v.provider));
		if (vnic_is_network(&v)) {
			json_number("ifindex", v.ifindex);
			json_number("queue", v.queue);
			json_number("vlan", v.vlan);
		}
		json_number("peer_pid", v.peer_pid);
		json_bool("dead", v.dead);
		json_number("tx_frames", v.stats.tx_frames);
		json_number("tx_bytes", v.stats.tx_bytes);
		json_number("rx_frames", v.stats.rx_frames);
		json_number("rx_bytes", v.stats.rx_bytes);
		json_number("tx_no_buffer", v.stats.tx_no_buffer);
		json_number("bad_desc", v.stats.bad_desc);
		json_number("bad_return", v.stats.bad_return);
		json_number("bad_reuse", v.stats.bad_reuse);
		json_number("doorbells", v.stats.doorbells);
		json_close('}');
	}
	json_close(']');
}

static void json_interfaces(const struct view *w)
{
	struct daemon_stack d;
	char name[IF_NAMESIZE];
	if (!ask_viaductd(w, &d))
		return;
	json_open("interfaces", '[');
	for (uint32_t i = 0; i < d.vnics; i++) {
		json_open(NULL, '{');
		json_number("ifindex", d.vnic[i].ifindex);
		json_string("name", interface_name(d.vnic[i].ifindex, name));
		json_string("mode", d.vnic[i].mode == DAEMON_MODE_DIRECT ? "direct" : "veth");
		json_number("queues", d.vnic[i].queues);
		if (d.vnic[i].mode == DAEMON_MODE_DIRECT)
			json_number("first_queue", d.vnic[i].first);
		if (d.vnic[i].mode == DAEMON_MODE_VETH) {
			json_number("sent", d.vnic[i].sent);
			json_number("refused", d.vnic[i].refused);
		}
		json_close('}');
	}
	json_close(']');
}

static void json_counters(const struct stack *s, bool explain)
{
	json_open("counters", '{');
	for (int i = 0; i < COUNTER_COUNT; i++)
		if (explain || s->counters[i])
			json_number(counter_info[i].name, s->counters[i]);
	json_close('}');
	if (!explain)
		return;
	json_open("counter_sentences", '{');
	for (int i = 0; i < COUNTER_COUNT; i++)
		json_string(counter_info[i].name, counter_info[i].sentence);
	json_close('}');
}

static void json_view(const struct view *w, bool explain)
{
	const struct stack *s = w->s;
	char program[sizeof(s->program) + 1];
	safe_text(s->program, sizeof(s->program), program, sizeof(program));
	json_open(NULL, '{');
	json_number("pid", s->creator_pid);
	json_string("program", program);
	json_bool("orphan", view_orphan(w));
	json_open("processes", '[');
	for (unsigned i = 0; i < PROC_MAX; i++)
		if (s->proc[i].pid)
			json_number(NULL, s->proc[i].pid);
	json_close(']');
	json_number("sockets_in_use", s->sock_pool.in_use);
	json_number("sockets_max", s->cfg.max_socks - 1);
	json_number("packets_in_use", s->pkt_pool.in_use);
	json_number("private_buffers_in_use", s->private_pool.in_use);
	json_number("lock_repairs", s->lock.repairs);
	json_open("sockets", '[');
	view_each_sock(w, json_sock, NULL);
	json_close(']');
	json_vnics(w);
	json_interfaces(w);
	json_counters(s, explain);
	json_close('}');
}

/* --- the command --- */

static int nothing_found(int pid, int rc, const struct views *v)
{
	if (v->foreign)
		return cli_error(EXIT_FAILED,
				 "the stack found is not one of this version of viaduct; use the version that "
				 "the program runs with");
	if (!pid && v->denied)
		return cli_error(EXIT_FAILED,
				 "no program that you may look at has a stack; %u processes belong to others "
				 "(try as root)",
				 v->denied);
	if (!pid)
		return cli_error(EXIT_FAILED,
				 "no program runs with accelerated sockets; start one with: viaduct run PROGRAM");
	if (rc == -ENOENT || rc == -ESRCH)
		return cli_error(EXIT_FAILED, "there is no process %d", pid);
	if (rc < 0)
		return cli_error(EXIT_FAILED, "you may not look into process %d (%s); try as its user or as root", pid,
				 strerror(-rc));
	if (proc_accelerated(pid) == 1)
		return cli_error(EXIT_FAILED, "process %d runs under viaduct but has made no TCP or UDP socket yet",
				 pid);
	return cli_error(EXIT_FAILED, "process %d does not run under viaduct; start it with: viaduct run PROGRAM", pid);
}

int cmd_stat(int argc, char **argv)
{
	bool json = false, explain = false;
	struct views v = {0};
	int c, pid = 0, rc = 0;
	while ((c = command_option(CMD_stat, argc, argv, 0)) >= 0) {
		if (c == 'h')
			return cmd_help(2, (char *[]){"help", "stat"});
		if (c == '?')
			return cli_usage("stat");
		json |= c == 'j';
		explain |= c == 'e';
	}
	if (optind < argc)
		pid = cli_pid(argv[optind++]);
	if (optind < argc || pid < 0) {
		cli_error(EXIT_USAGE, "\"%s\" is not a process id", argv[optind < argc ? optind : argc - 1]);
		return cli_usage("stat");
	}
	if (pid)
		rc = views_of_process(&v, pid);
	else
		views_of_all(&v);
	if (!v.count && (pid || !json)) {
		rc = nothing_found(pid, rc, &v);
		views_free(&v);
		return rc;
	}
	if (json) {
		json_open(NULL, '{');
		json_open("stacks", '[');
	}
	for (unsigned i = 0; i < v.count; i++) {
		if (json)
			json_view(&v.list[i], explain);
		else
			print_view(&v.list[i], explain);
	}
	if (json) {
		json_close(']');
		json_close('}');
	}
	views_free(&v);
	return EXIT_OK;
}
