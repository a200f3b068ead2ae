"""What the integration tests stand on: namespaces, devices, programs, packets, probes, reports.

Each is a context manager that cleans up in reverse; names are random; nothing touches the host's
own namespace. `plugin` offers them as pytest fixtures.
"""
