"""How good, how fast, how big and how dear: every number that the project tells is taken here.

`documents` says what a result is, `instruments` take times and memory, `quality` says what is right; on these stand a
room for every command that measures, which don't know one another. Results are JSON, stamped by the program, with
null and a reason for what was not measured; drawing them is `report`'s.
"""
