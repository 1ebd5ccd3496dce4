"""A model as a network service that speaks the Open Inference Protocol (KServe V2) over REST and gRPC."""
