"""Readers of data sets: RefCOCO, ReasonSeg, COCO, the tabletop."""
