"""Which system calls a worker is refused, as a seccomp filter.

Namespaces and limits carry the weight. The filter closes what they leave open: memory outside the
address-space limit (shared memory, memory files), sockets, new namespaces, looking into processes,
taking back the promise to die with the supervisor, and parts of the kernel with a history of holes.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from . import kernel

_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_COMMON = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "memfd_secret": 447,
}
_REFUSED = {  # name: (x86_64, aarch64)
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "userfaultfd": (323, 282),
    "open_by_handle_at": (304, 265),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "syslog": (103, 116),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "acct": (163, 89),
    "quotactl": (179, 60),
}
_SIGNALS = {  # without a process namespace: whom a worker could reach
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
}
_FORKS = {"x86_64": (56, 57, 58), "aarch64": (220,)}  # clone, fork, vfork
_CLONE, _PRCTL, _CLONE3 = (56, 220), (157, 167), 435
_NAMESPACES = 0x7E020080  # every CLONE_NEW... flag
_X32 = 0x40000000  # a second numbering of x86_64's calls

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16  # places in struct seccomp_data (arguments: low halves)
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_REFUSE = 0x00050000


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _refuse(number: int, reason: int = errno.EPERM) -> tuple[bytes, bytes]:
    return _step(_EQUAL, number, 0, 1), _step(_RETURN, _REFUSE | reason)


def instructions(signals: bool, forks: bool = True) -> Iterator[bytes]:
    """Yield the filter's instructions for this processor.

    Args:
        signals: whether the worker may send signals; harmless in a process namespace of its own.
        forks: whether it may start processes and threads, as far as its limit goes.
    """
    machine = kernel.machine()
    column = kernel.MACHINES.index(machine)
    yield _step(_LOAD, _ARCH)
    yield _step(_EQUAL, _ARCHITECTURE[machine], 1, 0)
    yield _step(_RETURN, _KILL)
    yield _step(_LOAD, _NUMBER)
    if machine == "x86_64":
        yield _step(_AT_LEAST, _X32, 0, 1)
        yield _step(_RETURN, _REFUSE | errno.EPERM)
    refused = _REFUSED if signals else _REFUSED | _SIGNALS
    for numbers in refused.values():
        yield from _refuse(numbers[column])
    for number in _COMMON.values():
        yield from _refuse(number)
    yield from _refuse(_CLONE3, errno.ENOSYS)  # its flags cannot be read here; libraries use clone
    for number in () if forks else _FORKS[machine]:
        yield from _refuse(number, errno.EAGAIN)
    yield from _if_argument(_CLONE[column], _ANY_BIT, _NAMESPACES)
    yield from _if_argument(_PRCTL[column], _EQUAL, kernel.SET_PARENT_DEATH_SIGNAL)
    yield _step(_RETURN, _ALLOW)


def _if_argument(number: int, comparison: int, value: int) -> Iterator[bytes]:
    """Refuse a call by its first argument."""
    yield _step(_EQUAL, number, 0, 4)
    yield _step(_LOAD, _ARGUMENT)
    yield _step(comparison, value, 0, 1)
    yield _step(_RETURN, _REFUSE | errno.EPERM)
    yield _step(_LOAD, _NUMBER)
