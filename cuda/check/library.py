"""The CUDA library from Python: its C interface (engine/src/backend/cuda/abi.rs) through ctypes."""

import ctypes
from ctypes import POINTER, Structure, byref, c_char, c_double, c_float, c_int32, c_uint32, c_uint64, c_uint8, c_void_p

VERSION = 2
MOST_ROWS, MOST_CODEBOOKS, MOST_PUSHES, MOST_DRAWS, MOST_TAPS = 8, 16, 6, 2, 2
F32, AS_KEPT = 0, 1
LOGITS, TAP = 0, 1
TENSORS = (
    "Embeddings Positions SelfGain SelfOffset SelfIn SelfOut CrossGain CrossOffset CrossQuery CrossIn CrossOut FeedGain "
    "FeedOffset FeedIn FeedOut FinalGain FinalOffset Heads TextProjection TextOffset"
).split()


class Message(Structure):
    _fields_ = [("length", c_uint32), ("text", c_uint8 * 508)]


class DeviceFacts(Structure):
    _fields_ = [("name", c_char * 128), ("free", c_uint64), ("total", c_uint64), ("major", c_uint32),
                ("minor", c_uint32), ("multiprocessors", c_uint32), ("driver", c_uint32)]


class Shape(Structure):
    _fields_ = [(name, c_uint32) for name in
                "hidden heads feed vocab codebooks blocks text_width activation positions projected".split()]


class Settings(Structure):
    _fields_ = [(name, c_uint32) for name in "caches capacity injections overlap prefetch early".split()]


class PushRow(Structure):
    _fields_ = [("held", c_uint32), ("reach", c_float), ("share", c_float)]


class StepRow(Structure):
    _fields_ = [("cache", c_uint32), ("position", c_uint32), ("prompt", c_uint32), ("injection", c_int32),
                ("pushes", c_uint32), ("push", PushRow * MOST_PUSHES), ("codes", c_uint32 * MOST_CODEBOOKS)]


class Draw(Structure):
    _fields_ = [("temperature", c_float), ("guidance", c_float), ("top_k", c_uint32), ("seed", c_uint32),
                ("frame", c_uint32), ("live", c_uint32)]


class Tap(Structure):
    _fields_ = [("block", c_int32), ("row", c_int32)]


class Step(Structure):
    _fields_ = [("rows", c_uint32), ("row", StepRow * MOST_ROWS), ("draws", Draw * MOST_DRAWS),
                ("taps", Tap * MOST_TAPS)]

    def __init__(self):
        super().__init__()
        for tap in self.taps:
            tap.block = -1


class Drawn(Structure):
    _fields_ = [("codes", (c_uint32 * MOST_CODEBOOKS) * MOST_DRAWS), ("not_finite", c_uint32), ("unused", c_uint32 * 3)]


class CardError(Exception):
    """What the library says, with its status."""


class Library:
    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        for name in ("model_close", "player_close"):
            getattr(self.library, f"tiller_cuda_{name}").restype = None
        self.library.tiller_cuda_model_bytes.restype = c_uint64
        found = self.library.tiller_cuda_version()
        if found != VERSION:
            raise CardError(f"{path} is of version {found}, not {VERSION}")

    def call(self, name, *arguments):
        message = Message()
        status = getattr(self.library, f"tiller_cuda_{name}")(*arguments, byref(message))
        if status != 0:
            raise CardError(f"{name}: status {status}: {bytes(message.text[:message.length]).decode()}")

    def devices(self):
        facts, count = (DeviceFacts * 16)(), c_uint32()
        self.call("devices", facts, c_uint32(16), byref(count))
        return [{"name": f.name.decode(), "free": f.free, "total": f.total, "capability": f"{f.major}.{f.minor}",
                 "multiprocessors": f.multiprocessors, "driver": f.driver} for f in facts[: count.value]]

    def bandwidth(self, size):
        """Bytes per second of a plain read, and of a plain copy (both ways counted)."""
        rates = (c_double * 2)()
        self.call("bandwidth", c_uint32(0), c_uint64(size), rates)
        return list(rates)


class Model:
    def __init__(self, library, shape):
        self.library, self.shape, self.object = library, shape, c_void_p()
        library.call("model_open", c_uint32(0), byref(shape), byref(self.object))

    def tensor(self, name, block, values):
        """A torch tensor, contiguous, on the card or not: bf16 for weights, f32 for the rest."""
        self.library.call("model_tensor", self.object, c_uint32(TENSORS.index(name)), c_uint32(block),
                          c_void_p(values.data_ptr()), c_uint64(values.numel()), c_uint32(AS_KEPT))

    def bytes(self):
        return self.library.library.tiller_cuda_model_bytes(self.object)

    def close(self):
        self.library.library.tiller_cuda_model_close(self.object)


class Player:
    def __init__(self, model, capacity, overlap, prefetch, early):
        self.library, self.shape, self.object = model.library, model.shape, c_void_p()
        settings = Settings(4, capacity, 4, overlap, prefetch, early)
        self.library.call("player_open", model.object, byref(settings), byref(self.object))

    def prompt(self, states):
        """A contiguous f32 numpy array [tokens][text_width]."""
        number = c_uint32()
        self.library.call("prompt_open", self.object, pointer(states), c_uint32(states.size), byref(number))
        return number.value

    def inject(self, slot, table):
        self.library.call("inject", self.object, c_uint32(slot), pointer(table), c_uint64(table.size))

    def held(self, directions, levels, limits):
        number = c_uint32()
        self.library.call("held_open", self.object, pointer(directions), pointer(levels), pointer(limits), byref(number))
        return number.value

    def step(self, step):
        drawn = Drawn()
        self.library.call("step", self.object, byref(step), byref(drawn))
        return drawn

    def read(self, what, index, out):
        self.library.call("read", self.object, c_uint32(what), c_uint32(index), pointer(out), c_uint64(out.size))
        return out

    def time(self, step, count):
        """Seconds of each of so many steps, and of all by the card's clock."""
        seconds, milliseconds = (c_double * count)(), c_float()
        self.library.call("time", self.object, byref(step), c_uint64(count), seconds, byref(milliseconds))
        return list(seconds), milliseconds.value * 1e-3

    def close(self):
        self.library.library.tiller_cuda_player_close(self.object)


def pointer(array):
    return array.ctypes.data_as(POINTER(c_float))
