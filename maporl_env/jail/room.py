"""The file system of a worker: Python's library, read-only, an empty folder, and nothing else.

There is no /proc, no /etc, no /home, no shell, no device but null, zero and urandom, and no
installed package. What a worker writes lies in memory and vanishes with it.
"""

from __future__ import annotations

import os
import sys

from . import kernel

FOLDER = "/tmp"
_BUILD = "/proc"  # a folder that exists everywhere and in which nothing lies that is needed here
_SYSTEM = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_PACKAGES = ("site-packages", "dist-packages")
_KEPT = kernel.READ_ONLY | kernel.NO_SUID | kernel.NO_DEVICES | kernel.NO_EXEC


def libraries() -> list[str]:
    """Return the folders that hold Python's standard library and the system's shared libraries."""
    own = [os.path.join(prefix, "lib") for prefix in (sys.base_prefix, sys.base_exec_prefix)]
    store = ["/nix/store"] if sys.base_prefix.startswith("/nix/store/") else []
    wanted = [*_SYSTEM, *store, *own, *(path for path in sys.path if os.path.isabs(path))]
    kept: list[str] = []
    for path in sorted(dict.fromkeys(wanted), key=len):
        inside = any(path.startswith(folder + "/") for folder in kept if not os.path.islink(folder))
        if os.path.isdir(path) and not inside:
            kept.append(path)
    return kept


def build() -> None:
    """Replace the file system of this process, which must own its mount namespace."""
    shown = libraries()
    kernel.mount("none", "/", None, kernel.RECURSIVE | kernel.PRIVATE)
    kernel.mount("tmpfs", _BUILD, "tmpfs", kernel.NO_SUID | kernel.NO_DEVICES, "size=1m,mode=755")
    for path in shown:
        _show(path)
    os.mkdir(_BUILD + "/dev")
    for path in _DEVICES:
        with open(_BUILD + path, "wb"):
            pass
        kernel.mount(path, _BUILD + path, None, kernel.BIND)
    for name in (FOLDER, "/old"):
        os.mkdir(_BUILD + name)
    os.chdir(_BUILD)
    kernel.pivot_root(".", "old")
    kernel.unmount("/old")
    os.rmdir("/old")
    os.chdir("/")
    _seal("/")


def _show(path: str) -> None:
    inside = _BUILD + path
    os.makedirs(os.path.dirname(inside), exist_ok=True)
    if os.path.islink(path) and not os.path.isabs(os.readlink(path)):
        os.symlink(os.readlink(path), inside)
        return
    os.makedirs(inside)
    kernel.mount(path, inside, None, kernel.BIND | kernel.RECURSIVE)
    for folder in _package_folders(inside):
        kernel.mount("tmpfs", folder, "tmpfs", kernel.READ_ONLY | kernel.NO_DEVICES, "size=4k")
    _seal(inside)


def _package_folders(path: str) -> list[str]:
    """Folders of installed packages: they may hold the answers to well-known tests."""
    below = [entry.path for entry in os.scandir(path) if entry.name.startswith("python")]
    found = [os.path.join(place, name) for place in (path, *below) for name in _PACKAGES]
    return [folder for folder in found if os.path.isdir(folder)]


def _seal(path: str) -> None:
    given = os.statvfs(path).f_flag & _KEPT  # what stands already may not be taken away
    flags = kernel.REMOUNT | kernel.BIND | kernel.READ_ONLY | kernel.NO_SUID | given
    kernel.mount("none", path, None, flags)


def furnish(max_bytes: int) -> None:
    """Give a worker its own empty folder, in memory, and go there."""
    options = f"size={max_bytes},nr_inodes=1000,mode=777"
    kernel.mount("tmpfs", FOLDER, "tmpfs", kernel.NO_SUID | kernel.NO_DEVICES, options)
    os.chdir(FOLDER)
