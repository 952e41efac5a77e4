"""Helpers for asyncio and Python that know nothing of WebSockets.

Tasks, threads, locks, timers, back-off and lifespans; suggestions in error messages; the check for misspelt attributes.
"""
