"""What a recipe describes: planned, run or gone on with, and summed up.

How data walks in a study of supernets: `supernet_study` says which supernets there are, `search.executors.processes`
has them trained by `supernet_training`; `search.results` and `search.reports` say what the journal then holds.
"""
