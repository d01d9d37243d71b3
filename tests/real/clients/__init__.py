"""The clients the gate is held against, each behind the same little language of steps (see `driver.py`)."""
