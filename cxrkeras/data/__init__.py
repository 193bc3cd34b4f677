"""Everything before the records: data sets on disk, folds, single images."""
