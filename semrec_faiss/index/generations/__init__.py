"""The index directory, which a reader sees old or new and never half.

A generation is a folder that is written under a temporary name, synced and renamed; `CURRENT` names the one in use
and the one before stays for rollback. Its `manifest` holds a SHA-256 and a size for every file, and three known
answers.
"""
