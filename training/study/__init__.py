"""The tabletop study: the tables of Seg-Zero (arXiv:2503.06520) in small. See docs/study.md.

`plan` says what is trained, `jobs` does it, `results` keeps what came out, `figures` computes what
is shown, `report` and `plots` write it down.
"""
