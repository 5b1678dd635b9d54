"""WHERE clauses over the titles' fields.

`matching` turns a clause into the rows that it matches, within the `limits` of length, depth, memory and time, and
refuses by `json_fields` what would never match; `parts` turns it into the conditions that it is made of.
"""
