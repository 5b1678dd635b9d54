"""Updating an index: tomorrow's titles and users in, others out, in the time of the change.

`plan` holds a change against what the index has, `segment` writes it beside that, `updating` makes the two a new
generation, and `compaction` builds anew from what the index holds.
"""
