"""Evidence: what CLCE gives against cross-entropy, on real pictures with real weights.

``python -m benchmarks.accuracy run`` measures what is not measured yet, one JSON line a
run; ``python -m benchmarks.accuracy report`` makes the results page of the documentation
from the lines. ``groups.py`` says what is measured.
"""
