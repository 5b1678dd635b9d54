"""Queries made of what somebody liked.

`taste.py` is a list of likes and dislikes; `profile_search.py` asks by a user's history as the index's profile says.
`interests.py` parts a history into interests that are asked one by one.
"""
