"""The doctor: checks whether a deployment is ready for listeners, and says how to fix what is not.

No check changes anything. The doctor runs on the host, with the server's own environment; it cannot see what shows only
from outside (a firewall, a filter in another country).
"""
