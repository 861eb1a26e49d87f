"""Key-value caches of rows: their storage, their batches, and those kept between turns."""
