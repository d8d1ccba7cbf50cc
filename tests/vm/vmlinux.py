# SPDX-License-Identifier: BSD-2-Clause
"""vmlinux.py BZIMAGE VMLINUX: the kernel as it is before compression. An emulated processor takes tens of seconds to unpack it.

Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length. The payload is a compressed file.
"""
import bz2
import gzip
import lzma
import struct
import subprocess
import sys


def payload(image):
    sectors = image[0x1f1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    return image[start:start + length]


def unpack(data):
    if data[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor().decompress(data)  # the image's size follows it
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data[:-4])
    if data[:3] == b"BZh":
        return bz2.BZ2Decompressor().decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return subprocess.run(["zstd", "-dcq"], input=data[:-4], stdout=subprocess.PIPE, check=True).stdout
    sys.exit(f"the kernel is compressed in a way that is not known here: it begins with {data[:8].hex()}")


with open(sys.argv[1], "rb") as source:
    kernel = unpack(payload(source.read()))
if kernel[:4] != b"\x7fELF":
    sys.exit("what was unpacked is no kernel")
with open(sys.argv[2], "wb") as out:
    out.write(kernel)
