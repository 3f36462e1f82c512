"""A pretend cloud: real contracts, real habits of clouds, and disks that are small files."""
