"""The wire contract, generated from proto/detmetrics/v1 by `make proto`."""
