"""Pickles as data sets are published, by Python 2, and as others write them."""

import pickle
import struct


def python2(value):
    """A value as Python 2's pickle wrote it in protocol 2, which is how CIFAR is published.

    Text was bytes then, and arrays named the module that numpy had at the time.
    """
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(k) + python2(v) for k, v in value.items()) + b"u"
    kind = value.dtype.str[1:].encode()
    dtype = b"cnumpy\ndtype\n" + python2(kind) + b"K\0K\1\x87R(K\3" + python2(b"|") + b"NNN"
    dtype += python2(-1) + python2(-1) + b"K\0tb"
    shape = b"(" + b"".join(map(python2, value.shape)) + b"t"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87R"
    return array + b"(K\1" + shape + dtype + b"\x89" + python2(value.tobytes()) + b"tb"


def write(path, value, protocol):
    path.parent.mkdir(parents=True, exist_ok=True)
    if protocol == "python 2":
        path.write_bytes(b"\x80\2" + python2(value) + b".")
    else:
        path.write_bytes(pickle.dumps(value, protocol))


def as_bytes(value):
    """The same with bytes for text."""
    if isinstance(value, dict):
        return {as_bytes(key): as_bytes(held) for key, held in value.items()}
    if isinstance(value, list):
        return [as_bytes(held) for held in value]
    return value.encode() if isinstance(value, str) else value
