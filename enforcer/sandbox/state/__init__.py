"""The state that a twin gets: frozen at the moment of the call, so that what the real call writes is not seen in the twin.

    frozen.py      the value: what is mounted where, in what time, whole or why not
    freezing.py    `freeze` of all of a server's state, and its removal
    directory.py   a directory, by reflink or copy
    sqlite.py      a SQLite database, by the backup API
    redis.py       a Redis server, as an RDB file in a server of the twin's own

PostgreSQL databases are not copied yet: freezing one says so.

Freezing keeps the real request waiting, so it has a deadline; what is late is no state, and makes the run UNSURE.
"""
