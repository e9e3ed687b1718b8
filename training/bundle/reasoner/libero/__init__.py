"""The reasoner's training on LIBERO's world: questions and thoughts."""
