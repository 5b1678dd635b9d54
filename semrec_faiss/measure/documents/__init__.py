"""What a result is on paper: the criterion, the checked field, the file.

A number that could not be measured is null with its reason, never 0; a document is written whole or not at all.
Records are checked when they are read again, so that nothing is chosen or drawn by a damaged one.
"""
