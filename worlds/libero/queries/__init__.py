"""What is asked about a scene, made from its truth."""
