"""The benchmark's Panda and its cameras, as a robot that a client can drive."""
