"""What every trainer shares: batches, mixtures of domains, objectives and their losses, and the
loop over phases.
"""
