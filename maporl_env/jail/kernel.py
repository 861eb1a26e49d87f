"""Linux system calls that Python 3.10 does not offer, each raising OSError when refused."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from collections.abc import Iterable

NEW_MOUNTS = 0x00020000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_USERS = 0x10000000
NEW_PIDS = 0x20000000
NEW_NETWORK = 0x40000000

READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8
REMOUNT, BIND, RECURSIVE, PRIVATE = 32, 4096, 16384, 1 << 18
DETACH = 2

SET_PARENT_DEATH_SIGNAL = 1
_SET_DUMPABLE, _SET_SECCOMP, _DROP_BOUNDING = 4, 22, 24
_SET_CHILD_SUBREAPER, _SET_NO_NEW_PRIVILEGES = 36, 38
_SECCOMP_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63

_NUMBERS = {"x86_64": {"clone": 56, "pivot_root": 155}, "aarch64": {"clone": 220, "pivot_root": 41}}
MACHINES = tuple(_NUMBERS)

_libc = ctypes.CDLL(None, use_errno=True)
_fork_libc = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock over the call


def machine() -> str:
    """Return the processor's name, a member of :data:`MACHINES`; OSError for another one."""
    name = platform.machine()
    if name not in _NUMBERS:
        raise OSError(f"processor {name!r} is none of {', '.join(MACHINES)}")
    return name


def _check(result: int, what: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Move this process into new namespaces."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def fork(flags: int) -> int:
    """`os.fork` into new namespaces; a new process namespace makes the child its first process."""
    number = _NUMBERS[machine()]["clone"]
    arguments = [ctypes.c_long(n) for n in (number, flags | signal.SIGCHLD, 0, 0, 0, 0)]
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(_fork_libc.syscall(*arguments))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    return _check(pid, "clone")


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str = "") -> None:
    """Mount a file system, or change one."""
    name = kind.encode() if kind is not None else None
    place = os.fsencode(target)
    data = options.encode() or None
    done = _libc.mount(os.fsencode(source), place, name, ctypes.c_ulong(flags), data)
    _check(done, f"mount {kind or source} on {target}")


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root of all paths; the old root appears at `old`, below it."""
    number = ctypes.c_long(_NUMBERS[machine()]["pivot_root"])
    _check(_libc.syscall(number, os.fsencode(new), os.fsencode(old)), "pivot_root")


def unmount(target: str) -> None:
    """Detach whatever is mounted at and below `target`."""
    _check(_libc.umount2(os.fsencode(target), DETACH), f"unmount {target}")


def _prctl(what: str, *arguments: int | ctypes.Array[ctypes.c_char]) -> None:
    given = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    padding = [ctypes.c_ulong(0)] * (5 - len(given))
    _check(_libc.prctl(*given, *padding), what)


def die_with_parent() -> None:
    """Be killed when the parent dies. A change of user undoes this: call it afterwards."""
    _prctl("parent-death signal", SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def hide_memory() -> None:
    """Refuse other processes of the same user a look into this one."""
    _prctl("dumpable", _SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies."""
    _prctl("subreaper", _SET_CHILD_SUBREAPER, 1)


def drop_privileges() -> None:
    """Give up every capability, now and for whatever is executed later."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            _prctl("bounding set", _DROP_BOUNDING, capability)
        except OSError:
            break  # past the last one that this kernel knows
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def install_filter(instructions: Iterable[bytes]) -> None:
    """Install a seccomp filter, for good; also promises the kernel to gain no privileges."""
    code = list(instructions)
    program = _Program(len(code), b"".join(code))
    _prctl("no new privileges", _SET_NO_NEW_PRIVILEGES, 1)
    done = _libc.prctl(
        *(ctypes.c_ulong(n) for n in (_SET_SECCOMP, _SECCOMP_FILTER)), ctypes.byref(program), 0, 0
    )
    _check(done, "seccomp")
