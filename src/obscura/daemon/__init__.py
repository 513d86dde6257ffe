"""The node as a process: asyncio, configuration, data directory, local control."""
