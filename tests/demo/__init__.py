"""`make demo`: the main job on real input, shown and checked.

documents.py   what the guarded server reads; three of its documents carry an instruction
server.py      that server: an ordinary MCP server that knows nothing of Holdfast
instance.py    the programs: started, asked, ended, their folders removed
screen.py      what the terminal shows, and the same as a picture
story.py       the job itself, step by step; whatever is not as expected ends it
"""
