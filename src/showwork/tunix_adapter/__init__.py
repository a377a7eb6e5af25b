"""The only package that imports Tunix and Qwix: their classes, with workarounds for their faults.

Written against google-tunix 0.1.7 and qwix 0.1.8. Each workaround names the fault and has a test in
tests/numerics/test_tunix.py. This file imports nothing, so that each module loads only its own dependencies.
"""
