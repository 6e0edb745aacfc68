"""Looking after a store whose service is down: `ckptfs check` and `ckptfs repair`.

The only place beside the daemon that sees the store, the catalog and the jobs'
records together, so it stands above all of them.
"""
