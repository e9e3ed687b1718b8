"""The reasoner's training on the table's world: questions, thoughts, words."""
