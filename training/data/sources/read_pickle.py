"""Writes a pickle of plain values as JSON; run by `safe_pickle` in a process of its own."""

import io
import json
import pickle
import sys
from typing import NoReturn


class _PlainUnpickler(pickle.Unpickler):
    """Knows dict, list, tuple, set, text, bytes, numbers, booleans and None.

    Everything else in a pickle begins with a name that is looked up here.
    """

    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")


if __name__ == "__main__":
    content = io.BytesIO(sys.stdin.buffer.read())
    json.dump(_PlainUnpickler(content, encoding="latin1").load(), sys.stdout)
