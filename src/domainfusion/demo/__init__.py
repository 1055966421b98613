"""The demo: three real experts become one student, on two cores and without a network."""
