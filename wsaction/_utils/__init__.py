"""Small helpers of asyncio and Python that know nothing of WebSockets: tasks, threads, locks, timers, hints."""
