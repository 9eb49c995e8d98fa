"""A run on many machines: jobs go to nodes of a Ray cluster, the driver alone writes the ledger."""
