"""How good recommendations are: would they have brought back what users liked last?

`holdout` leaves those titles out, `lists` makes lists of the rest by a profile, and `evaluator` looks for them there
and in those of two `baselines` that know the same. `run` tries many profiles and judges the winner on titles that it
was not chosen by.
"""
