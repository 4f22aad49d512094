"""`mof work`: workloads that show on which node memory is, as data, run in a guest, and told."""
