"""Synthetic chest radiographs with known signs, written as a data set."""
