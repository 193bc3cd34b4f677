"""Phantoms: synthetic chest radiographs with known findings, written as a data set."""
