#!/usr/bin/env python3
"""A bad network for tests: a hub and a few spokes, each a network namespace, each spoke joined to the hub by a wire.

    wire.py SPOKES

A wire is a pair of TAP devices with this program between them. Hub and spoke of wire N (from 1) have the addresses
198.18.N.1 and 198.18.N.2, out of the block that is set apart for tests; they exist in the namespaces alone.

The first line that is printed is this program's word that all is there: for the hub and then for each spoke the number
of the open file by which others can enter its namespace (/proc/PID/fd/NUMBER). Then each line of input changes a wire,
and is answered by "ok" once frames are treated so:

    WIRE loss=SHARE delay=SECONDS cut=0|1       each way; what is not named stays
    WIRE frames                                 answers how many frames came and how many were dropped

Namespaces and devices have no name anywhere and live as long as this program, which ends with its input: nothing can be
left behind, however a test ends. Nothing in the machine's own network is touched. Needs root, Linux and `ip`.
"""

import ctypes
import fcntl
import heapq
import os
import random
import selectors
import struct
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
ARP = b"\x08\x06"
LARGEST = 65536

libc = ctypes.CDLL(None, use_errno=True)


def must(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


class Host:
    """A network namespace, kept by an open file; entered by this one thread."""

    def __init__(self):
        must(libc.unshare(CLONE_NEWNET), "unshare")
        self.file = os.open("/proc/self/ns/net", os.O_RDONLY)
        ip("link", "set", "lo", "up")

    def device(self, name, address):
        must(libc.setns(self.file, CLONE_NEWNET), "setns")
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        ip("addr", "add", address + "/24", "dev", name)
        ip("link", "set", name, "up")
        return file


def ip(*words):
    subprocess.run(("ip",) + words, check=True, stdin=subprocess.DEVNULL)


class Wire:
    def __init__(self, hub, spoke, number):
        here = hub.device(f"wire{number}", f"198.18.{number}.1")
        there = spoke.device("wire", f"198.18.{number}.2")
        self.other = {here: there, there: here}
        self.loss = self.delay = 0.0
        self.cut = False
        self.frames = self.dropped = 0

    def change(self, words):
        for word in words:
            key, value = word.split("=")
            if key == "cut":
                self.cut = value == "1"
            elif key in ("loss", "delay"):
                setattr(self, key, float(value))
            else:
                raise ValueError(f"no wire has a {key}")

    def take(self, frame):
        """Whether this frame goes on. Addresses are always found, unless the wire is cut: a real network has them."""
        self.frames += 1
        lost = self.cut or (frame[12:14] != ARP and random.random() < self.loss)
        self.dropped += lost
        return not lost


def forward(wires):
    ready = selectors.DefaultSelector()
    for wire in wires:
        for file in wire.other:
            ready.register(file, selectors.EVENT_READ, wire)
    ready.register(0, selectors.EVENT_READ, None)
    late, order, orders = [], 0, b""
    while True:
        wait = max(0.0, late[0][0] - time.monotonic()) if late else None
        for key, _ in ready.select(wait):
            wire = key.data
            if wire is None:
                piece = os.read(0, 4096)
                if not piece:
                    return
                orders += piece
                while b"\n" in orders:
                    line, orders = orders.split(b"\n", 1)
                    obey(wires, line.decode().split())
                continue
            while True:
                try:
                    frame = os.read(key.fd, LARGEST)
                except BlockingIOError:
                    break
                if wire.take(frame):
                    # The number keeps frames in order that are due at the same time.
                    order += 1
                    heapq.heappush(late, (time.monotonic() + wire.delay, order, wire.other[key.fd], frame))
        now = time.monotonic()
        while late and late[0][0] <= now:
            _, _, file, frame = heapq.heappop(late)
            try:
                os.write(file, frame)
            except OSError:
                pass  # a full queue or a device that is down loses frames, as networks do


def obey(wires, words):
    wire = wires[int(words[0]) - 1]
    if words[1:] == ["frames"]:
        print(wire.frames, wire.dropped, flush=True)
        return
    wire.change(words[1:])
    print("ok", flush=True)


def main():
    count = int(sys.argv[1])
    hub, spokes = Host(), [Host() for _ in range(count)]
    wires = [Wire(hub, spoke, number) for number, spoke in enumerate(spokes, 1)]
    print(*(host.file for host in [hub] + spokes), flush=True)
    forward(wires)


if __name__ == "__main__":
    main()
