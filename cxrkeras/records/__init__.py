"""TFRecord shards: written once from a data folder, then read as batches."""
