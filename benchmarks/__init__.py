"""Measurements, each a table of ratios taken in one run. `make bench` runs those of the data."""
