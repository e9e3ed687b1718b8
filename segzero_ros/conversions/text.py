"""Text that a ROS string can carry."""


def valid_text(text: str) -> str:
    """Drop what no ROS string can carry: lone surrogates and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")
