"""The benchmark's arenas and models in MuJoCo: built, posed, seen."""
