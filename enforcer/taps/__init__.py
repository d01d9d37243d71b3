"""The taps: copies of what the guarded ports and the TLS libraries carried. Nothing here can delay or change a byte.

In the root helper, which loads and attaches, and reads no byte of traffic:

    loading.py    the two loaders behind one interface: libbpf, and BCC where the kernel has no BTF
    bcc.py        the second: BCC compiles the same C at start
    offsets.py    where members of the kernel's structures lie, from its BTF
    attach.py     uprobes (uprobe_multi, else perf), raw tracepoints, the packet socket's filter
    wire.py       the socket filter in the guarded namespace: ports, capture limit
    probes.py     the TLS probes: which functions of a target, and what that covers
    elf.py        symbols of a target's file; the file is hostile input
    target.py     what a file is: OpenSSL, a program with OpenSSL inside, Go, rustls, GnuTLS, …
    processes.py  which processes have mapped what (/proc), and which are under seccomp
    mappings.py   every executable mapping as it is made (perf side-band), so that no library is missed
    seccomp.py    whether return probes end confined processes here
    survey.py     what the taps would see on this machine, without attaching anything
    watch.py      the loop of all that: scan, follow, attach, tell

In the unprivileged daemon, which gets the rings' descriptors and parses every byte:

    records.py    the records shared with bpf/events.h, and their comparison with the object's BTF
    ring.py       the mapped ring buffer
    counters.py   the mapped counters, as `Lost`
    decode.py     records → escrow.events
    linking.py    which TLS object speaks on which connection
    reader.py     all of these together: `Reader.read()` gives events
"""
