"""Amazon Web Services: machine images as snapshots and AMIs. Only here is its SDK imported, at first use."""
