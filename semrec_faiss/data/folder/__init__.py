"""The data folder as files: where they are, mapped into memory, checked and written.

Vectors stay on the disk and pass in float32 blocks of bounded size, normalised on the way, so that a folder of many
gigabytes needs little memory. Every line of metadata.jsonl is checked before any is used, and a mistake names file
and line.
"""
