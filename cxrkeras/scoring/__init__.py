"""Predictions of a network and their scores."""
