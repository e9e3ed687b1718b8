"""The tabletop study: the tables of Seg-Zero (arXiv:2503.06520) in small. See docs/study.md.

`plan` says what is trained, `jobs` runs it, `results` keeps the results, `estimates` computes the
metrics, and `report` and `plots` write them down.
"""
