"""The store: inline ingest, packs, manifests, heads, verified reads."""
