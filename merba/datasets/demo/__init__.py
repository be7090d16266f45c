"""The embedded demo: clips rendered from a real photograph, with known movements, apexes and displacements."""
