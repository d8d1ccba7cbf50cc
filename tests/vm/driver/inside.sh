#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# In the virtual machine: inside.sh MODULE COMMAND... loads the module, makes the veth that the tests want (v0, 10.9.0.1 here;
# v1, 10.9.0.2 in the network namespace "peer"), runs the command, unloads the module, and looks at what the kernel said.
# Its exit status is the command's, or 99 when something is left or the kernel complained (of more than a stall of RCU, which is
# that of a machine that others keep busy).
module=$1
shift
modprobe veth && modprobe 8021q && insmod "$module" || exit 98
# The kernel patches its own code when the first hook at ingress comes and when the last one goes. QEMU before 8.1 may run the
# old code for ever on an emulated processor that translates it at that moment ("Always lock pages before translation"), so one
# hook that does nothing stands throughout.
nft add table netdev keep && nft add chain netdev keep ingress '{ type filter hook ingress device lo priority 0; }' || exit 97
mount -t debugfs none /sys/kernel/debug 2>/dev/null
ip netns add peer
ip link add v0 type veth peer name v1 index 77 netns peer
ip address add 10.9.0.1/24 dev v0
ip address add fd09::1/64 dev v0 nodad
ip link set v0 up
ip -n peer address add 10.9.0.2/24 dev v1
ip -n peer address add fd09::2/64 dev v1 nodad
ip -n peer link set lo up
ip -n peer link set v1 up
chmod 666 /dev/viaduct
"$@"
status=$?
echo "--- counters"
cat /sys/kernel/debug/viaduct/counters
cat /sys/kernel/debug/viaduct/vnics
if ! rmmod viaduct; then
	sleep 1
	rmmod viaduct || status=99
fi
if dmesg | grep -E 'BUG|WARNING|Oops|general protection|refcount|unregister_netdevice|leak'; then
	dmesg | tail -n 60
	status=99
fi
exit $status
