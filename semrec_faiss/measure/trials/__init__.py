"""What every kind of trial shares.

`trial.py` and `settings.py` say what is measured, `questions.py` what is asked, and `tested_index.py` the index under
test. `run.py` goes through trials, whose records (`record.py`) lie in a ledger that a stopped run goes on from.
"""
