"""Everything that a CUDA device must show, in one command: ``python -m benchmarks.cuda``.

``plan.py`` says how much is measured; each of ``marked_tests``, ``criterion``, ``fit``,
``predict``, ``head_grid`` and ``two_processes`` is a section of the JSON; ``report.py``
turns that into tables, here and on the performance page; ``wheels.py`` makes the folder
of wheels for a machine without a network.
"""
