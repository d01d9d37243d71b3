"""What Holdfast costs and what it catches, measured against what others reach, in figures with goals (`python -m tests.bench`)."""
