"""Duplicates: exact copies by 128-bit keys, near-copies by MinHash bands and exact Jaccard similarity."""

from chimed.dedup.clusters import Clusters, exact, find
from chimed.dedup.minhash import band_keys, exact_keys, jaccard, signatures

__all__ = ["Clusters", "band_keys", "exact", "exact_keys", "find", "jaccard", "signatures"]
