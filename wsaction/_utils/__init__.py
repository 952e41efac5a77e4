"""Helpers of asyncio and Python that know nothing of WebSockets.

Tasks, threads, locks, timers, back-off and lifespans; hints in error messages, and attributes that are misspelt.
"""
