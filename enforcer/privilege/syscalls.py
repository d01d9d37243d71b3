"""The system calls a confined process may make (seccomp(2), through libseccomp's own Python binding).

An allowlist. What is not on it fails with EPERM, so that a library that merely tries (io_uring, statistics) goes on without;
what only an attacker would call ends the process. clone3 answers ENOSYS: its flags lie in memory, where a filter cannot see
them, and glibc then takes clone, where it can. Other architectures' calls (i386, x32 on x86-64) end the process.
"""

from __future__ import annotations

import errno
import os
from itertools import product

import seccomp  # type: ignore[import-not-found, unused-ignore]  # Debian's python3-seccomp; it has no types


def _words(text: str) -> list[str]:
    return text.split()


_CLONE_THREAD = 0x00010000
_PROT_EXEC = 0x4
_INTERNET = (2, 10)  # AF_INET, AF_INET6
_STREAM_OR_DATAGRAM = (1, 2)
_SOCKET_KIND = 0xF  # SOCK_TYPE_MASK (include/linux/net.h): the rest are SOCK_CLOEXEC and SOCK_NONBLOCK

_BASE = _words("""
    read write readv writev pread64 preadv close lseek fstat dup fcntl pipe2
    mremap munmap brk madvise mincore mlock munlock membarrier
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait sigaltstack restart_syscall
    futex sched_yield sched_getaffinity sched_setaffinity getcpu set_robust_list rseq set_tid_address exit exit_group
    nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time
    epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd2 poll ppoll select pselect6
    timerfd_create timerfd_settime timerfd_gettime setitimer getitimer
    recvfrom recvmsg sendto sendmsg shutdown getsockopt setsockopt getsockname getpeername
    getrandom getpid gettid getppid getuid geteuid getgid getegid getresuid getresgid getrusage sysinfo uname
""")  # reading and writing what is open, memory, threads, time, waiting, sockets already there, who am I

_DAEMON = _words("""
    accept accept4 listen sendfile
    open openat stat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat getdents64 getcwd
    unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir ftruncate fallocate fadvise64 fsync fdatasync sync_file_range
    pwrite64 pwritev flock fchmod chmod utimensat umask
""")  # accepting clients (event loops call listen again); files, of which its root holds only the installation, /state and /tmp

_JURY = _words("""
    connect sendmmsg open openat stat newfstatat statx
""")  # going out, asking a name server, and reading the resolver's files, the only ones in its root, which is read-only

_WINDOW = _words("accept accept4 listen")  # taking connections on the sockets it was given; event loops call listen again

_TAPS = _words("""
    bpf perf_event_open
    open openat stat lstat newfstatat statx readlink readlinkat getdents64 access faccessat faccessat2 getcwd
""")  # attaching probes to what comes later, and reading /proc and the files that processes have mapped

_DEADLY = _words("""
    execve execveat ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp bpf perf_event_open userfaultfd
    mount umount2 pivot_root chroot setns unshare open_by_handle_at move_mount fsopen open_tree
    init_module finit_module delete_module kexec_load kexec_file_load reboot swapon
    setuid setgid setreuid setregid setresuid setresgid setgroups capset add_key request_key keyctl
""")

# ioctl requests (asm-generic/ioctls.h): isatty, FIONBIO, FIONREAD, FIOCLEX, and SIOCOUTQ for what the client has not acknowledged.
_IOCTLS = (0x5401, 0x5421, 0x541B, 0x5451, 0x5411)
_PRCTLS = (15, 0x53564D41)  # PR_SET_NAME, PR_SET_VMA (names of memory areas)


def allow_daemon() -> None:
    """Confine all threads of this process to what the daemon needs; for good. Raises OSError or RuntimeError."""
    _load([*_BASE, *_DAEMON], may_map_code=True)


def allow_worker() -> None:
    """Confine to computing over sockets and memory already there, or handed over: no file, no new socket, no new code. The witness, too."""
    _load(_BASE, may_map_code=False)


def allow_jury() -> None:
    """Confine to computing, and to going out over TCP and UDP: no listening, no other kind of socket, no file but the resolver's, no new code."""
    _load([*_BASE, *_JURY], may_map_code=False, may_go_out=True)


def allow_window() -> None:
    """Confine to computing over sockets already there, and taking connections on those that listen: no file, no new socket, no new code."""
    _load([*_BASE, *_WINDOW], may_map_code=False)


def allow_taps() -> None:
    """Confine to reading files and attaching probes: nothing is written, sent elsewhere or run."""
    _load([*_BASE, *_TAPS], may_map_code=False, ioctls=(*_IOCTLS, 0x2400, 0x40042408))  # PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_SET_BPF


def _load(names: list[str], may_map_code: bool, may_go_out: bool = False, ioctls: tuple[int, ...] = _IOCTLS) -> None:
    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    rules.set_attr(seccomp.Attr.CTL_TSYNC, 1)
    for name in names:
        if _exists(name):
            rules.add_rule(seccomp.ALLOW, name)
    for name in ("mmap", "mprotect"):
        if may_map_code:
            rules.add_rule(seccomp.ALLOW, name)
        else:
            rules.add_rule(seccomp.ALLOW, name, seccomp.Arg(2, seccomp.MASKED_EQ, _PROT_EXEC, 0))
    for request in ioctls:
        rules.add_rule(seccomp.ALLOW, "ioctl", seccomp.Arg(1, seccomp.MASKED_EQ, 0xFFFFFFFF, request))
    for option in _PRCTLS:
        rules.add_rule(seccomp.ALLOW, "prctl", seccomp.Arg(0, seccomp.MASKED_EQ, 0xFFFFFFFF, option))
    rules.add_rule(seccomp.ALLOW, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD))
    rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    if may_go_out:
        for family, kind in product(_INTERNET, _STREAM_OR_DATAGRAM):
            rules.add_rule(seccomp.ALLOW, "socket", seccomp.Arg(0, seccomp.EQ, family), seccomp.Arg(1, seccomp.MASKED_EQ, _SOCKET_KIND, kind))
        # With `connect` at hand, a pair of Unix datagram sockets could be turned to any socket by name; one of streams cannot (EISCONN).
        rules.add_rule(seccomp.ALLOW, "socketpair", seccomp.Arg(0, seccomp.EQ, 1), seccomp.Arg(1, seccomp.MASKED_EQ, _SOCKET_KIND, 1))
    else:
        rules.add_rule(seccomp.ALLOW, "socketpair", seccomp.Arg(0, seccomp.EQ, 1))  # AF_UNIX: the event loop's wake-up
    rules.add_rule(seccomp.ALLOW, "tgkill", seccomp.Arg(0, seccomp.EQ, os.getpid()))  # abort()
    rules.add_rule(seccomp.ALLOW, "prlimit64", seccomp.Arg(0, seccomp.EQ, 0), seccomp.Arg(2, seccomp.EQ, 0))  # reading its own
    for name in _DEADLY:
        if _exists(name) and name not in names:
            rules.add_rule(seccomp.KILL_PROCESS, name)
    rules.load()


def _exists(name: str) -> bool:
    """Whether libseccomp knows the call; older ones lack the newest, and an architecture may lack the oldest."""
    try:
        return int(seccomp.resolve_syscall(seccomp.Arch(), name)) >= 0  # negative: of another architecture
    except ValueError:
        return False
