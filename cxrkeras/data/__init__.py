"""What comes before the records: releases, phantoms, folds, single images."""
