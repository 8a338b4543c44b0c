"""Studies of supernets: trained, measured against stand-alone training, and reported.

How data walks: `study` says which supernets there are, `workers` has them trained by `training`; `summary`, `verdict`,
`plots` and `report` say what the journal then holds.
"""
