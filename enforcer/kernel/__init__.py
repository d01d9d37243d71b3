"""The kernel side: what Holdfast asks of Linux, and how it is told.

    records.py    the records shared with bpf/, and their comparison with the object's BTF
    libbpf.py     one loader: libbpf.so.1 through ctypes (objects, maps, links, pins)
    bpffs.py      where pins live: /sys/fs/bpf/holdfast/<netns inode>-<port>/
    steer.py      sk_lookup steering of one port in one namespace: load, adopt, exempt, watch, remove
    netlink.py    request and answer over a netlink socket
    sockdiag.py   TCP connections: list, destroy the older ones, whose is this one
    route.py      which addresses are local to the namespace
    namespace.py  a network namespace: found, entered, and watched until it vanishes
    cgroup.py     where cgroup2 is mounted

Everything here but `sockdiag.owner` runs in the root helper. Nothing here parses a byte that came over a connection.
"""
