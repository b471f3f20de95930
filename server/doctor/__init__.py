"""The doctor: is this deployment fit for listeners, and what is to be mended where it is not.

Every check looks and changes nothing. It runs on the host, with the server's own environment; what only somebody
outside can see (a firewall, another country's filter) it cannot.
"""
