"""The tool's side of the control socket (profiler/core/wire.h) for tests, and a job under the real guest."""
import collections
import ctypes
import os
import socket
import struct
import sys
import time

HELLO, STATUS, SWAP, CHECK, MEMORY, CANCEL = 1, 2, 3, 4, 5, 6
STATE, ARM, LAYER, PARITY, DONE, SWAPPED, REVERTED, LOSS, COSINE = 32, 33, 34, 35, 36, 37, 38, 39, 40
LEASE, FRESH, PARTIAL, RESET, YES, ACTIVE, TWICE = 1, 1, 2, 1, 1, 2, 4
OK, EINVAL, ENOTSUP, EGONE, EBUSY, EPARITY = 0, -1, -6, -7, -9, -100

Msg = collections.namedtuple("Msg", "version kind id code step layer flags value name text")
FIXED = struct.Struct("<HHIiIiI4d")


def pack(kind, id=0, step=0, flags=0, name="", text=""):
    body = FIXED.pack(1, kind, id, 0, step, -1, flags, 0, 0, 0, 0)
    for word in (name, text):
        body += struct.pack("<H", len(word.encode())) + word.encode()
    return struct.pack("<I", len(body)) + body


def unpack(frame):
    fields, at, words = FIXED.unpack_from(frame), FIXED.size, []
    for _ in range(2):
        n = struct.unpack_from("<H", frame, at)[0]
        words.append(frame[at + 2:at + 2 + n].decode())
        at += 2 + n
    return Msg(*fields[:7], fields[7:11], *words)


class Client:
    def __init__(self, folder, pid=None, flags=0, patience=60):
        self.sock = socket.socket(socket.AF_UNIX)
        end = time.time() + patience
        while True:
            try:
                self.sock.connect("%s/%d.sock" % (folder, pid or os.getpid()))
                break
            except OSError:
                if time.time() > end:
                    raise
                time.sleep(0.01)
        self.id, self.buffer, self.notices, self.rows = 1, b"", [], collections.defaultdict(list)
        self.send(HELLO, flags=flags, name="test")
        self.hello = self.receive()

    def send(self, kind, **fields):
        self.id += 1
        self.sock.sendall(pack(kind, id=self.id, **fields))
        return self.id

    def receive(self, timeout=60):
        self.sock.settimeout(timeout)
        while len(self.buffer) < 4 or len(self.buffer) < 4 + struct.unpack_from("<I", self.buffer)[0]:
            more = self.sock.recv(65536)
            if not more:
                raise EOFError
            self.buffer += more
        n = struct.unpack_from("<I", self.buffer)[0]
        frame, self.buffer = self.buffer[4:4 + n], self.buffer[4 + n:]
        return unpack(frame)

    def answer(self, id=None, timeout=60):
        """All rows up to DONE of that request; notices are put aside."""
        rows = self.rows[id or self.id]
        while not rows or rows[-1].kind != DONE:
            m = self.receive(timeout)
            (self.rows[m.id] if m.id else self.notices).append(m)
        return rows

    def settle(self):
        """Until the agent has taken what was sent: an unknown request is answered at once, in order."""
        self.answer(self.send(31))

    def close(self):
        self.sock.close()


def attach(folder, more=""):
    library = ctypes.PyDLL(os.environ["MOEPROF_GUEST"])
    library.moeprof_attach(("dir=%s,session=t,cuda=none%s" % (folder, more)).encode())
    until_hooked()


def until_hooked(patience=60):
    """The agent's thread installs the hooks, last of all the one that looks for a model."""
    calls, end = sys.modules["torch"].nn.modules.module, time.time() + patience
    while not calls._global_forward_pre_hooks:
        assert time.time() < end, "no hooks"
        time.sleep(0.01)


def ask(client, step, kind, steps=2, **fields):
    """Sends a request, trains some steps, and returns its answer."""
    id = client.send(kind, **fields)
    client.settle()
    for _ in range(steps):
        step()
    return client.answer(id)
