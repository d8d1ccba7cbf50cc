/* SPDX-License-Identifier: BSD-2-Clause */
/* What a descriptor is, and why a socket is not accelerated: one table, shown by `viaduct explain`. */
#ifndef VD_REASON_H
#define VD_REASON_H

enum fd_kind { FD_OTHER, FD_ACCELERATED, FD_KERNEL_SOCKET, FD_EPOLL, FD_OWN /* ours, published only */ };

#define REASON_TABLE(R)                                                                                                \
	R(NONE, "It is accelerated.")                                                                                  \
	R(FAMILY, "Its address family is neither IPv4 nor IPv6.")                                                      \
	R(TYPE, "It is neither a TCP stream nor a UDP datagram socket.")                                               \
	R(NO_LISTENER, "Nobody who runs under viaduct listens at the address it connected to on this machine.")        \
	R(NETWORK_OFF, "Its peer is on another machine, and VIADUCT_NETWORK=off leaves the network to the kernel.")    \
	R(NO_DAEMON, "viaductd, which the network needs, does not answer in this network namespace; start it.")        \
	R(DAEMON_VERSION, "viaductd is of another version than the library; start the installed one anew.")            \
	R(NOT_ALLOWED, "viaductd does not let this user use the network; viaduct check says who may.")                 \
	R(NO_INTERFACE, "viaductd could not attach to the interface of its route; viaduct check says why.")            \
	R(ROUTE, "Only the kernel follows its route: none, an encapsulation, policy rules, or a local address.")       \
	R(FILTER, "viaductd could not steer its port to this process: another one has it, or there are too many.")     \
	R(NOT_STEERED, "It came over an interface from which nothing was steered to its listener when it came.")       \
	R(FOREIGN_STACK, "It was made before fork; only the process that made it speaks with viaductd.")               \
	R(PLAIN_PEER, "The peer that connected to the listener does not run under viaduct.")                           \
	R(OTHER_USER,                                                                                                  \
	  "The process at the other end runs as another user, and knob VIADUCT_PEERS allows only the same user's.")    \
	R(SQUATTED, "The process that answered for the address does not own the listening port.")                      \
	R(NO_STACK, "The stack's memory could not be made (see the program's first lines of output).")                 \
	R(NO_SOCKETS, "The stack has no free socket; raise VIADUCT_SOCKETS.")                                          \
	R(PEER_FULL, "The process at the other end has no free socket; raise VIADUCT_SOCKETS there.")                  \
	R(NO_VNICS, "The stack has no free vNIC.")                                                                     \
	R(HANDSHAKE, "The process at the other end did not answer the wire's handshake in time.")                      \
	R(VERSION, "The process at the other end runs another version of viaduct.")                                    \
	R(DISABLED, "Acceleration is switched off by a knob.")                                                         \
	R(ADDRESS, "The address is multicast, broadcast or otherwise the kernel's business.")                          \
	R(OPTION, "The program set an option that only the kernel implements.")                                        \
	R(REUSEPORT, "Several sockets share its port (SO_REUSEPORT); only the first is accelerated.")                  \
	R(PASSED, "It was passed to a process that could not take it over, so the kernel serves both.")                \
	R(NOT_PASSED,                                                                                                  \
	  "It could not be passed to another process (SCM_RIGHTS): that does not run under viaduct, as this user.")    \
	R(INHERITED, "It was there before the program was started under viaduct (inherited descriptor).")              \
	R(UNCONNECTED, "It has not been used yet.")                                                                    \
	R(RULE, "A rule leaves it to the kernel.")

enum reason {
#define R(name, sentence) REASON_##name,
	REASON_TABLE(R)
#undef R
	    REASON_COUNT
};
/* Above its low byte a reason may carry a number: RULE the line of the rule. */
#define REASON_DETAIL_SHIFT 8
static inline enum reason reason_with(enum reason why, unsigned detail)
{
	return (enum reason)((unsigned)why | detail << REASON_DETAIL_SHIFT);
}

extern const char *const reason_sentence[REASON_COUNT];

#endif
