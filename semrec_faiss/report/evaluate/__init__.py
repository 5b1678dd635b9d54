"""The report of evaluated recommendations: what each profile came to, and the winner beside the baselines.

It reads the records of `measure/evaluate`; `rows` flattens them for tables, CSV and the two `charts`.
"""
