"""The daemon's two ends for those who steer it: people at the control socket, supervising agents at the window's.

    asks.py         what people can ask, typed      people.py       what each of that does, and who they are
    server.py       the control socket              client.py       the command line's end of it
    tokens.py       supervisors' tokens             guesses.py      who presents tokens that are none
    window.py       the window's socket             supervising.py  what each supervisor's tool does
    own.py          what is a supervisor's own      views.py        what supervisors are shown
    policy.py       the policy's commands           canaries.py     the canaries' commands

The two sockets share no list of commands: neither can carry the other's.
"""
