"""The gRPC service of detmetrics and its client: ``detmetrics serve``, ``detmetrics_server.client.Client``."""
