"""Shared by every trainer: batches, mixtures of domains, objectives and their losses, and the
loop over phases.
"""
