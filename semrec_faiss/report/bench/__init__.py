"""The picture of `semrec bench gpu`.

Times stand by batch size, ours and the peers', beside the hardware's limit. `gpu_chart.py` makes it of the record.
"""
