"""Random scenes of LIBERO's object models: images, depth, true masks, and questions about them.

Rendering needs the extra `libero` (`make libero-setup`); reading what was rendered needs nothing
of it. Importing this package loads no renderer.
"""
