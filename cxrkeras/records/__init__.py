"""TFRecord shards: written once from a data folder, read as batches from then on."""
