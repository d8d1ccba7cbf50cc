# SPDX-License-Identifier: BSD-2-Clause
"""What udp_test.py runs, on the kernel and on Viaduct: prints what a program sees of datagrams, as lines to compare.

  udp.py hear FAMILY PORT COUNT [OPTION...]      datagrams with their control messages
  udp.py say ADDRESS PORT [OPTION...]            datagrams sent in all ways
  udp.py errors ADDRESS PORT connected|bound [OPTION...]
  udp.py member BOUND PORT GROUP HOW [OPTION...] what comes to a group, until "end" comes
  udp.py members PORT GROUP COUNT                 the same by several sockets
  udp.py quote HOW ADDRESS GROUP PORT TEXT...    to a group, without copies for members here
  udp.py corked ADDRESS PORT early|late           options that only the kernel follows
  udp.py far_away FAMILY ADDRESS=TTL...           what routers say
  udp.py sizes connected|bound ADDRESS VALUE...   what does not fit, by values of IP_MTU_DISCOVER
  udp.py segmented ADDRESS PORT                   UDP_SEGMENT
  udp.py publish ADDRESS GROUP PORT TEXT...      to a group, from the interface of ADDRESS
"""
import select
import socket
import struct
import sys
import time

IP, IP6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
PKTINFO, RECVERR, RECVTTL, RECVTOS, ORIGDST, MTU_DISCOVER = 8, 11, 12, 13, 20, 10
OPTIONS = {"pktinfo": (IP, PKTINFO), "ttl": (IP, RECVTTL), "tos": (IP, RECVTOS), "origdst": (IP, ORIGDST),
           "pktinfo6": (IP6, socket.IPV6_RECVPKTINFO), "hoplimit": (IP6, socket.IPV6_RECVHOPLIMIT),
           "tclass": (IP6, socket.IPV6_RECVTCLASS), "origdst6": (IP6, 74), "recverr": (IP, RECVERR),
           "recverr6": (IP6, 25)}


def prepared(family, options):
    s = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    for option in options:
        name, _, value = option.partition("=")
        level, number = OPTIONS[name] if name in OPTIONS else [int(part) for part in name.split(".")]
        s.setsockopt(level, number, int(value or 1))
    return s


def control_text(control):
    return " ".join(f"{level}.{kind}={data.hex()}" for level, kind, data in control)


def hear(family, port, count, *options):
    s = prepared(int(family), options)
    s.bind(("", int(port)))
    print("ready", flush=True)
    s.settimeout(10)
    for n in range(int(count)):
        room = 1024 if n % 4 else (0, 20, 40, 60)[n // 4 % 4]  # too little, too
        data, control, flags, sender = s.recvmsg(2000, room)
        print(len(data), sender[0], hex(flags), control_text(control), flush=True)
        s.sendto(b"heard", sender)


def say(address, port, *options):
    family = 6 if ":" in address else 4
    s = prepared(family, options)
    s.bind(("", 0))
    s.settimeout(5)
    to = (address, int(port))

    def heard(size, send):
        send(b"x" * size)
        assert s.recv(100) == b"heard"

    size = 0
    for ttl, tos in ((64, 0), (1, 0x10), (255, 0xb8), (7, 0x03)):
        if family == 4:
            s.setsockopt(IP, socket.IP_TTL, ttl)
            s.setsockopt(IP, socket.IP_TOS, tos)
        else:
            s.setsockopt(IP6, socket.IPV6_UNICAST_HOPS, ttl)
            s.setsockopt(IP6, socket.IPV6_TCLASS, tos)
        for _ in range(2):
            size += 1
            heard(size, lambda data: s.sendto(data, to))
    if family == 4:
        kinds = [[(IP, socket.IP_TTL, struct.pack("i", 9))], [(IP, socket.IP_TOS, b"\x20")],
                 [(IP, socket.IP_TOS, struct.pack("i", 0x28)), (IP, socket.IP_TTL, struct.pack("i", 33))],
                 [(IP, PKTINFO, struct.pack("=I4s4s", 0, bytes(4), bytes(4)))]]
    else:
        kinds = [[(IP6, socket.IPV6_HOPLIMIT, struct.pack("i", 9))], [(IP6, socket.IPV6_TCLASS, struct.pack("i", 32))],
                 [(IP6, socket.IPV6_PKTINFO, struct.pack("=16sI", bytes(16), 0))]]
    for control in kinds:
        size += 1
        heard(size, lambda data: s.sendmsg([data], control, 0, to))
    for bad in ([(IP, socket.IP_TTL, struct.pack("i", 0))], [(IP, socket.IP_TTL, b"\0")], [(IP, 77, b"")],
                [(IP6, socket.IPV6_HOPLIMIT, struct.pack("i", 256))]):
        try:
            print("sent", s.sendmsg([b"bad"], bad, 0, to))
        except OSError as error:
            print(error)


def error_text(s):
    try:
        data, control, flags, sender = s.recvmsg(2000, 1024, socket.MSG_ERRQUEUE)
    except OSError as error:
        return f"no error: {error.errno}"
    return f"{data!r} {sender[0]} {sender[1]} {hex(flags)} {control_text(control)}"


def ready(s, ms=2000):
    p = select.poll()
    p.register(s, select.POLLIN | select.POLLOUT)
    while ms > 0:
        events = p.poll(10)
        if events and events[0][1] & ~select.POLLOUT:
            break
        ms -= 10
    return hex(events[0][1]) if events else "nothing"


def errors(address, port, how, *options):
    s = prepared(6 if ":" in address else 4, options)
    s.bind(("", 0))
    s.setblocking(False)
    to = (address, int(port))
    if how == "connected":
        s.connect(to)
    for n in range(3):
        for i in range(n + 1):
            try:
                s.sendmsg([f"datagram {n} {i}".encode()], [], 0, None if how == "connected" else to)
            except OSError as error:
                print("send", error.errno)
            if i == n and n == 2:
                break
            ready(s, 300)
        print(n, ready(s))
        if n == 1:
            print("SO_ERROR", s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), ready(s, 100))
        for _ in range(4):
            print(error_text(s), ready(s, 30))
        try:
            print("recv", s.recv(100))
        except OSError as error:
            print("recv", error.errno)


def join(s, group, how):
    """how: any, or the device that has an address, or number, or a source; "-": not at all."""
    kind, _, value = how.partition("=")
    four = ":" not in group
    address = socket.inet_pton(socket.AF_INET if four else socket.AF_INET6, group)
    name = struct.pack("=HH4s120x", 2, 0, address) if four else struct.pack("=HHI16s104x", 10, 0, 0, address)
    level = IP if four else IP6
    if kind == "any":
        s.setsockopt(level, 35 if four else 20, address + bytes(4))
    elif kind == "by":
        s.setsockopt(IP, 35, address + socket.inet_aton(value))
    elif kind == "number":
        number = struct.pack("=I", socket.if_nametoindex(value))
        s.setsockopt(level, 35 if four else 20, address + (bytes(4) if four else b"") + number)
    elif kind == "group":
        s.setsockopt(level, 42, struct.pack("=I4x", socket.if_nametoindex(value)) + name)
    elif kind in ("source", "drop", "block", "unblock"):
        number = {"source": 39, "drop": 40, "block": 38, "unblock": 37}[kind]
        s.setsockopt(IP, number, address + bytes(4) + socket.inet_aton(value))
    elif kind == "leave":
        s.setsockopt(level, 36 if four else 21, address + bytes(4))


def member(bound, port, group, how, *options):
    early = "early" in options
    s = prepared(6 if ":" in bound else 4, [option for option in options if option != "early"])
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if not early:
        s.bind((bound, int(port)))
    for each in group.split(","):
        join(s, each, how)
    if early:
        s.bind((bound, int(port)))
    print("ready", flush=True)
    s.settimeout(20)
    while True:
        data, control, flags, sender = s.recvmsg(2000, 1024)
        print(data.decode(), sender[0], hex(flags), control_text(control), flush=True)
        if data == b"end":
            break
        if b"=" in data or data == b"leave":
            join(s, group, data.decode())


def members(port, group, count):
    """Several sockets of one program."""
    sockets = []
    for _ in range(int(count)):
        s = prepared(4, [])
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", int(port)))
        join(s, group, "any")
        s.settimeout(20)
        sockets.append(s)
    print("ready", flush=True)
    for n, s in enumerate(sockets):
        while (data := s.recv(100)) != b"end":
            print(f"{n}:{data.decode()}", flush=True)
        print(f"{n}:end", flush=True)


def quote(how, address, group, port, *texts):
    """Sends without copies for members here. how: nothing said, or a TTL, interface, address, connection."""
    four = ":" not in group
    s = socket.socket(socket.AF_INET if four else socket.AF_INET6, socket.SOCK_DGRAM)
    level = IP if four else IP6
    s.setsockopt(level, socket.IP_MULTICAST_LOOP if four else socket.IPV6_MULTICAST_LOOP, 0)
    if not four:
        s.setsockopt(IP6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("wire0"))
    if how == "ttl":
        s.setsockopt(level, socket.IP_MULTICAST_TTL if four else socket.IPV6_MULTICAST_HOPS, 77)
        s.setsockopt(level, socket.IP_TOS if four else socket.IPV6_TCLASS, 0x48)
    elif how == "if":
        s.setsockopt(IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
    elif how == "number":
        s.setsockopt(IP, socket.IP_MULTICAST_IF, struct.pack("=8sI", bytes(8), socket.if_nametoindex("wire0")))
    elif how == "bound":
        s.bind((address, 0))
    elif how == "device":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wire0")
    if how == "connected":
        s.connect((group, int(port)))
        print(s.getsockname()[0])
    for text in texts:
        s.send(text.encode()) if how == "connected" else s.sendto(text.encode(), (group, int(port)))


def corked(address, port, when):
    """Datagrams gathered, and told of with the time: what only the kernel does."""
    s = prepared(6 if ":" in address else 4, [])
    s.settimeout(5)
    to = (address, int(port))
    if when == "late":
        s.sendto(b"plain", to)
        print(s.recvfrom(100)[0])
    s.setsockopt(socket.IPPROTO_UDP, 1, 1)
    s.setsockopt(socket.SOL_SOCKET, 29, 1)
    s.sendto(b"gath", to)
    s.sendto(b"ered", to)
    s.setsockopt(socket.IPPROTO_UDP, 1, 0)
    for _ in range(2):
        data, control, flags, sender = s.recvmsg(100, 1024)
        print(data, hex(flags), sender[0], [(level, kind, len(text)) for level, kind, text in control])
        if _ == 0:
            s.sendto(b"again", to)


def far_away(family, *targets):
    """Errors that routers send. target: ADDRESS=TTL"""
    for target in targets:
        address, _, ttl = target.partition("=")
        s = prepared(int(family), ["recverr" if family == "4" else "recverr6"])
        s.bind(("", 0))
        if ttl:
            s.setsockopt(*((IP, socket.IP_TTL) if family == "4" else (IP6, socket.IPV6_UNICAST_HOPS)), int(ttl))
        s.sendto(b"anybody?", (address, 7009))
        print(target, ready(s), error_text(s), ready(s, 30))


def sizes(how, address, *options):
    """Datagrams larger than the path takes, at each value of IP_MTU_DISCOVER."""
    four = ":" not in address
    for value in (int(option) for option in options):
        s = prepared(4 if four else 6, ["recverr" if four else "recverr6"])
        s.setsockopt(IP if four else IP6, MTU_DISCOVER if four else 23, value)
        s.bind(("", 0))
        s.setblocking(False)
        if how == "connected":
            s.connect((address, 7010))
        for size in (900, 1400, 1400, 1473, 3000, 900):
            try:
                s.send(b"x" * size) if how == "connected" else s.sendto(b"x" * size, (address, 7010))
                said = "sent"
            except OSError as error:
                said = error.errno
            print(value, size, said, ready(s, 100), error_text(s)[-140:], error_text(s)[-30:])


def segmented(address, port):
    """One write that the kernel makes several datagrams of."""
    s = prepared(6 if ":" in address else 4, [])
    s.settimeout(5)
    for size, total in ((1000, 3500), (100, 350)):
        s.setsockopt(socket.IPPROTO_UDP, 103, size)
        s.sendto(b"x" * total, (address, int(port)))
        for _ in range(4):
            print(s.recvfrom(100)[0])


def publish(address, group, port, *texts):
    four = ":" not in group
    s = socket.socket(socket.AF_INET if four else socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind((address, 0))
    if four:
        s.setsockopt(IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        s.setsockopt(IP, socket.IP_MULTICAST_TTL, 3)
    else:
        s.setsockopt(IP6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("wire0"))
    for text in texts:
        for each in group.split(","):
            s.sendto(text.encode(), (each, int(port)))
        time.sleep(0.05)


globals()[sys.argv[1]](*sys.argv[2:])
