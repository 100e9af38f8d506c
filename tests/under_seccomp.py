"""Run a command under a Docker seccomp profile: `under_seccomp.py PROFILE COMMAND...`.

The exit code is 3 if libseccomp is not installed. As in a container, no_new_privs is set.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

NO_LIBRARY = 3
_ACTIONS = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000}
_OPERATORS = {"SCMP_CMP_LT": 2, "SCMP_CMP_EQ": 4}
_UNKNOWN = -1


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("index", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("other", ctypes.c_uint64),
    )


def load(profile: dict[str, Any]) -> None:
    """Load a profile into this process, without system calls that the library does not know."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    default = _ACTIONS[profile["defaultAction"]] | profile["defaultErrnoRet"]
    context = ctypes.c_void_p(library.seccomp_init(default))
    for rule in profile["syscalls"]:
        arguments = rule.get("args", ())
        comparisons = (_Comparison * len(arguments))(
            *(
                _Comparison(each["index"], _OPERATORS[each["op"]], each["value"], 0)
                for each in arguments
            )
        )
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number == _UNKNOWN:
                continue
            action = ctypes.c_uint32(_ACTIONS[rule["action"]])
            failed = library.seccomp_rule_add_array(
                context, action, number, len(arguments), comparisons
            )
            assert failed == 0, (name, failed)
    assert library.seccomp_load(context) == 0


def main(arguments: list[str]) -> None:
    """Load the profile and execute the command."""
    with open(arguments[0], encoding="utf-8") as file:
        profile = json.load(file)
    try:
        load(profile)
    except OSError:
        sys.exit(NO_LIBRARY)
    os.execv(arguments[1], arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
