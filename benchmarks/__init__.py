"""Quality, speed, memory and start-up, measured beside others: ``python -m benchmarks --help``."""
