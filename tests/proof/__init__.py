"""Proof of the store: crashes, faults, corruption, random histories, kill -9, full disks.

One engine, run in short by pytest and at length by ``tools/torture``.
"""
