"""The root helper: the process of `holdfast start` itself. Small, and the only one that may do anything.

What it does, in order (`start.py` up to the daemon, `supervisor.py` from there):

    find the namespace, take the lock for namespace and port, enter the namespace for good
    load the steering program · make the gate's listeners · fork the daemon (which imports, confines itself, and listens)
    the daemon says `Accepting` → its sockets go into the sockmap → the link is attached (or taken over) and pinned
    → connections that are older are destroyed → capabilities are dropped → {"event": "ready"} → workers, window, jury, witness, taps
    and keeper are forked

Then it serves the daemon's requests (`messages.py`, a closed list), and watches. What happens when:

    daemon dies      the sockmap is empty, connections are refused at once; a new daemon with new listeners after 1, 2, 4 … 30 s
    another dies     (a worker, the window, the jury, the taps, the witness, the keeper) the same, for it alone; the daemon is given the new one's socket
    helper dies      all others die with it (PR_SET_PDEATHSIG); the pinned link refuses; the next start takes it over
    bad bytes        from the daemon: it is killed and replaced. From the helper: the daemon ends
    SIGTERM, SIGINT, `holdfast stop`     the daemon is asked to end, killed after 5 s; then the link goes, and every trace
    namespace gone, link detached, another program     the daemon is told `NotEnforcing`, with the reason, within a second

    messages.py    the closed list, both ways         wire.py       one message a packet, with descriptors
    channel.py     the daemon's end                   upstream.py   connections to the server, exempt while they are made
    listeners.py   the gate's and the control socket  children.py   fork, confine, reap
    lock.py        one instance for a port            traces.py     what an instance leaves behind, and its removal
    notify.py      systemd's readiness protocol       backoff.py    how long until the next try
    window.py      where the window listens           material.py   the files that the policy names
    tapping.py     the process of the taps            sights.py     what it tells whoever reads the rings

In observe mode there is no steering: no lock, no pins, no listener of the gate's; the taps and the judges alone.
"""
