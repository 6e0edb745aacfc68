"""The collector: `decide` says which versions go and why, `sweep` takes away what nobody needs."""
