"""Functions of numbers: latency, capacity, queueing."""
