"""How good recommendations are: would they have brought back what users liked last?

`holdout` leaves those titles out, `taste_profile` makes queries of the rest, `evaluator` looks for them in the lists
beside two `baselines` that know the same. `run` tries many profiles and judges the winner on titles that it was not
chosen by.
"""
