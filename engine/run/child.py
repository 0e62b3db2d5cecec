"""Turns itself into one supervised process: `child.py --signal N --parent PID [...] -- COMMAND`.

It runs between fork and exec, in an interpreter of its own, because the calls below are unsafe
inside a forked copy of a program that has threads. It asks the kernel to signal the process when
its parent dies, and gives Postgres, which refuses to run as root or without a name, another
user: a user namespace in which our files belong to somebody else (`--namespace UID`), or a plain
change of user (`--uid UID`).
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000

_libc = ctypes.CDLL(None, use_errno=True)


def enter_user_namespace(inner: int) -> None:
    """Become user `inner` in a namespace of our own; outside of it we remain who we were."""
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWUSER)")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inner} {uid} 1"),
        ("gid_map", f"{inner} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def become(uid: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def die_with_parent(signal_number: int, parent: int) -> None:
    """Have the kernel send us `signal_number` when our parent dies; leave if it already did."""
    _libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def open_many_files() -> None:
    """Raise the soft limit to the hard one: a connection is a file, and doors have thousands."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(arguments: list[str]) -> None:
    split = arguments.index("--")
    options, command = arguments[:split], arguments[split + 1 :]
    values = dict(zip(options[::2], options[1::2], strict=True))
    open_many_files()
    # The order matters: the kernel forgets the parent-death signal when credentials change.
    if "--namespace" in values:
        enter_user_namespace(int(values["--namespace"]))
    elif "--uid" in values:
        become(int(values["--uid"]))
    die_with_parent(int(values["--signal"]), int(values["--parent"]))
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
