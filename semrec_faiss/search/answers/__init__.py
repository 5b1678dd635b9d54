"""What a search returns, for whoever reads it.

An `Answers` holds rows and scores of a whole batch; `Answer` is one query's. Titles become objects (`result`), JSON
(`answer_json`) or tables of Arrow, pandas and polars (`frames`) when somebody wants them, from ready-made records.
"""
