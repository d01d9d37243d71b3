"""The second judge's pure half: what a twin's run did and answered, what the policy lets it do, and whether it agrees with the real answer.

A *twin* is a copy of the guarded server, restored under gVisor from a checkpoint (the *template*), on state frozen at the moment of the call.

    settings.py    `[servers.NAME.sandbox]`: how a twin is started, its root and its state
    effects.py     what a run did: files, connections, processes; complete, or why not
    run.py         one run of one call, as data: how it ended, what it answered, its effects
    permitted.py   effects against the policy: what the tool's class and its globs allow
    agreement.py   the twin's answer against the real one, place by place
    judge.py       all of it as one verdict of the judge "sandbox"
"""
