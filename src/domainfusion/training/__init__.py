"""What every trainer shares: batches, mixtures of domains, losses, and the loop over phases."""
