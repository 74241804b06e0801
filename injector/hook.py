"""The part of the guest that only Python can do: where the model is, what it is made of, when a step ends.

Embedded in libmoeprof.so and executed once, under the GIL, when torch is in the process. `_moeprof` (C) is
put among the globals before; without it nothing is installed and only build_spec() is of use.

Rules (injector/BRIDGE.md): no print, no import of a module the job has not imported, no sync with the GPU,
no reference that keeps a model alive, and no exception that reaches the job.

Five parts, executed in this order among the same globals: hook.py, hook_model.py, hook_spec.py, hook_tokens.py,
hook_session.py.
"""
import collections
import collections.abc
import contextlib
import inspect
import json
import os
import sys
import weakref

torch = sys.modules["torch"]
guest = globals().get("_moeprof")

MEASURED = 1  # enum mp_basis: without a mask every token is attended to, by the model's own rule


# Never a way out for an exception

broken = set()


def guarded(feature):
    """A function that fails once is switched off, said so, and not called again; the training goes on."""
    def wrap(function):
        def call(*args):
            if feature in broken:
                return None
            try:
                return function(*args)
            except Exception as error:
                broken.add(feature)
                guest.feature_off(feature, "%s: %s: %s" % (function.__name__, type(error).__name__, error))
                return None
        return call
    return wrap


is_compiling = next((f for f in (getattr(getattr(torch, "compiler", None), name, None)
                                 for name in ("is_dynamo_compiling", "is_compiling")) if f is not None), bool)


class Hook:
    """What hangs on a module: calls into C, and three things a bare C function cannot do.

    Dynamo cannot trace a C function (a graph break, an error under fullgraph=True) but folds is_compiling()
    to True and sees an empty function: no break, no extra guard, no recompile. No global may be read here:
    Dynamo would look for it in sys.modules. Pickling and deepcopy leave an inert stand-in, since a copy of
    the model is another model and may be loaded where there is no guest. Two of these run for every module
    that is marked, in each traced step: no loop.
    """
    __slots__ = ("call", "then")
    is_compiling = staticmethod(is_compiling)

    def __init__(self, call, then=None):
        self.call, self.then = call, then

    def __call__(self, *args):
        if not self.is_compiling():
            self.call(*args)
            if self.then is not None:
                self.then(*args)

    def __reduce__(self):
        # nullcontext().__exit__ takes anything, returns None, and exists in every Python.
        return getattr, (contextlib.nullcontext(), "__exit__")
