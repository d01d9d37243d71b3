"""Least privilege: what each process may still do, and how it gives up the rest.

libc.py          the system calls Python has no wrapper for
identity.py      who the daemon and the workers run as
capabilities.py  what the helper keeps, and why; dropping the rest
jail.py          the file system a confined process sees
syscalls.py      the system calls a confined process may make (seccomp)
confine.py       the order in which a forked child gives everything up
"""
